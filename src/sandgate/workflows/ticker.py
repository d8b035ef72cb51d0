"""Carries out what schedules are due for: one ticker a process, any number of processes on one database.

A tick is decided by rules that are pure (:mod:`sandgate.workflows.ticks`), and written by compare and set together with
the run that it starts. So whoever is killed, and whoever else tries the same, a tick starts one run or is still due.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from sandgate.core.clock import Clock
from sandgate.core.errors import (
    RequestRefused,
    ServiceDraining,
    StoreUnavailable,
    TooManyRequests,
)
from sandgate.core.ids import ScheduleId
from sandgate.core.run import Run
from sandgate.core.trigger import Overlap, Schedule, TickError, Trigger, TriggerType
from sandgate.store.base import RunChange, Store
from sandgate.telemetry.log import get_logger
from sandgate.workflows.cron import CronInvalid
from sandgate.workflows.ticks import Begin, CancelLive, Note, Rest, decide
from sandgate.workflows.triggers import TriggeredRuns

# The wall clock may be set while nobody looks.
LONGEST_SLEEP_S = 60.0
# When a start was refused for the moment, as when the server has as many runs as it may have.
RETRY_S = 5.0
# Bounds how long one schedule that has much to catch up keeps others waiting.
_MOST_MOVES = 20
_BATCH = 100
_QUARANTINE_S = 300.0

_log = get_logger(__name__)


class Ticker:
    """``start`` comes first and ``stop`` last. ``on_fault`` is told of a bug in the loop.

    ``poll_s`` bounds how long a change that another process makes goes unseen.
    """

    def __init__(
        self,
        store: Store,
        runs: TriggeredRuns,
        clock: Clock,
        *,
        poll_s: float = LONGEST_SLEEP_S,
        on_fault: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._store = store
        self._runs = runs
        self._clock = clock
        self._poll_s = min(poll_s, LONGEST_SLEEP_S)
        self._on_fault = on_fault
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._not_before: dict[ScheduleId, float] = {}

    def start(self) -> None:
        """Look at once, and from then on whenever something is due."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="ticker")
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Decide nothing more. What is being written is written or not, as one."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def wake(self) -> None:
        """Look soon: a schedule was changed."""
        self._changed.set()

    def run_ended(self, run: Run) -> None:
        """A run is over, for which a tick may wait."""
        if run.trigger_type is TriggerType.SCHEDULE:
            self._changed.set()

    async def look(self) -> float:
        """Decide all that is due, and answer after how many seconds to look again. Raises ``StoreUnavailable``."""
        now, tried_at = self._clock.now(), self._clock.monotonic()
        self._not_before = {key: at for key, at in self._not_before.items() if at > tried_at}
        found = await self._store.schedules.list_due(now, _BATCH)
        due = [schedule for schedule in found if schedule.schedule_id not in self._not_before]
        async with asyncio.TaskGroup() as tasks:
            served = [tasks.create_task(self._serve(schedule)) for schedule in due]
        if any(task.result() for task in served):
            return 0.0
        waits = [self._poll_s, *(at - self._clock.monotonic() for at in self._not_before.values())]
        next_at = await self._store.schedules.find_next_due(now)
        if next_at is not None:
            waits.append((next_at - self._clock.now()).total_seconds())
        return max(0.0, min(waits))

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            try:
                sleep_s = await self.look()
            except* StoreUnavailable as faults:
                _log.warning("schedules not looked at", reason=str(faults.exceptions[0]))
                sleep_s = RETRY_S
            try:
                async with asyncio.timeout(sleep_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _serve(self, schedule: Schedule) -> bool:
        """Decide what a schedule is due for; whether there may be more to decide at once."""
        try:
            return await self._move(schedule)
        except StoreUnavailable:
            raise
        except CronInvalid as problem:
            # The machine's time zones have changed since the schedule was made.
            error = TickError("SCHEDULE_INVALID", f"timezone or cron {problem}", self._clock.now())
            await self._store.schedules.replace(schedule, replace(schedule, due_at=None, queue=(), last_error=error))
            return False
        except Exception as fault:
            _log.error("schedule not served", schedule_id=schedule.schedule_id, exc_info=fault)
            self._not_before[schedule.schedule_id] = self._clock.monotonic() + _QUARANTINE_S
            return False

    async def _move(self, schedule: Schedule) -> bool:
        current: Schedule | None = schedule
        for _ in range(_MOST_MOVES):
            if current is None:
                return False
            live = []
            if current.policy.overlap is not Overlap.ALLOW or current.queue:
                live = list(await self._store.schedules.list_live_runs(current.schedule_id))
            match decide(current, self._clock.now(), len(live)):
                case Rest():
                    return False
                case CancelLive():
                    await self._runs.cancel_quietly(live, f"schedule {current.schedule_id}")
                    return False
                case Note(after):
                    await self._store.schedules.replace(current, after)
                case Begin() as begin:
                    if not await self._begin(current, begin):
                        return False
            current = await self._store.schedules.find(current.schedule_id)
        return True

    async def _begin(self, schedule: Schedule, begin: Begin) -> bool:
        """Start a run, or see that somebody else did; False when it cannot be started for the moment."""

        async def insert(change: RunChange, lease_s: float) -> bool:
            after = replace(begin.after, last_run_id=change.run.run_id, last_run_at=change.run.created_at)
            return await self._store.schedules.fire(schedule, after, change, lease_s)

        trigger = Trigger(TriggerType.SCHEDULE, schedule.schedule_id, begin.tick_at)
        try:
            await self._runs.start_triggered(schedule.workflow_id, schedule.inputs, trigger, insert)
        except (TooManyRequests, ServiceDraining) as refusal:
            self._not_before[schedule.schedule_id] = self._clock.monotonic() + RETRY_S
            await self._note_error(schedule, schedule, refusal)
            return False
        except RequestRefused as refusal:
            await self._note_error(schedule, begin.after, refusal)
        return True

    async def _note_error(self, before: Schedule, after: Schedule, refusal: RequestRefused | ServiceDraining) -> None:
        known = before.last_error
        if after is before and known is not None and known.code == refusal.code:
            return
        error = TickError(refusal.code, refusal.message, self._clock.now())
        await self._store.schedules.replace(before, replace(after, last_error=error))
        _log.warning("schedule started no run", schedule_id=before.schedule_id, error_code=refusal.code)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        fault = None if task.cancelled() else task.exception()
        if fault is not None and self._on_fault is not None:
            self._on_fault(fault)
