"""The use cases of schedules."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sandgate.config.settings import Settings
from sandgate.core.clock import Clock
from sandgate.core.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    ScheduleNotFound,
    TooManyTriggers,
    WorkflowNotFound,
)
from sandgate.core.idempotency import Keep
from sandgate.core.ids import ScheduleId, WorkflowId, make_schedule_id
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal
from sandgate.core.run import Run
from sandgate.core.trigger import Schedule, Timing, Trigger, TriggerType
from sandgate.store.base import RunChange, Store
from sandgate.workflows.base import Workflows
from sandgate.workflows.cron import CronInvalid, parse_cron, parse_zone
from sandgate.workflows.inputs import check_inputs
from sandgate.workflows.ticks import begin_anew, next_tick, upcoming
from sandgate.workflows.triggers import NewSchedule, ScheduleChange, TriggeredRuns

_TRIES = 5


class ScheduleService:
    """``Schedules`` on a store. ``wake`` is called when something may be due sooner than it was."""

    def __init__(
        self,
        store: Store,
        workflows: Workflows,
        runs: TriggeredRuns,
        clock: Clock,
        settings: Settings,
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._workflows = workflows
        self._runs = runs
        self._clock = clock
        self._most = settings.max_triggers_per_user
        self._wake = wake

    async def create(self, caller: Principal, wanted: NewSchedule, keep: Keep[Schedule] | None = None) -> Schedule:
        """See ``Schedules``."""
        workflow = await self._workflows.get(caller, wanted.workflow_id)
        _check_can_write(caller)
        now = self._clock.now()
        timing = _with_anchor(wanted.timing, now)
        _check_timing(timing, now)
        check_inputs(await self._workflows.definition_of(workflow), wanted.inputs)
        schedule = Schedule(
            schedule_id=make_schedule_id(),
            workflow_id=workflow.workflow_id,
            owner_id=workflow.owner_id,
            name=wanted.name,
            timing=timing,
            policy=wanted.policy,
            created_at=now,
            updated_at=now,
            inputs=wanted.inputs,
            paused=wanted.paused,
        )
        schedule = begin_anew(schedule, now)
        inserted = await self._store.schedules.insert(schedule, self._most, keep and keep(schedule))
        if inserted is None:
            raise WorkflowNotFound(f"Workflow {workflow.workflow_id} was deleted just now")
        if not inserted:
            raise TooManyTriggers(
                f"The owner of the workflow has {self._most} schedules, which is the most allowed; delete one",
                {"limit": self._most},
                retry_after_s=60,
            )
        self._wake()
        return schedule

    async def get(self, caller: Principal, schedule_id: ScheduleId) -> Schedule:
        """See ``Schedules``."""
        schedule = await self._store.schedules.find(schedule_id)
        if schedule is None or not (caller.is_admin or schedule.owner_id == caller.user_id):
            raise schedule_not_found(schedule_id)
        return schedule

    async def list(
        self, caller: Principal, page: PageRequest, *, workflow_id: WorkflowId | None = None
    ) -> Page[Schedule]:
        """See ``Schedules``."""
        return await self._store.schedules.list(None if caller.is_admin else caller.user_id, workflow_id, page)

    async def update(self, caller: Principal, schedule_id: ScheduleId, change: ScheduleChange) -> Schedule:
        """See ``Schedules``."""
        for _ in range(_TRIES):
            schedule = await self._get_to_change(caller, schedule_id)
            changed = _changed(schedule, change, self._clock.now())
            if "inputs" in change.row:
                workflow = await self._workflows.get(caller, schedule.workflow_id)
                check_inputs(await self._workflows.definition_of(workflow), changed.inputs)
            written = await self._store.schedules.replace(schedule, changed)
            if written is not None:
                self._wake()
                return written
        raise _busy(schedule_id)

    async def delete(self, caller: Principal, schedule_id: ScheduleId) -> None:
        """See ``Schedules``."""
        await self._get_to_change(caller, schedule_id)
        if not await self._store.schedules.delete(schedule_id):
            raise schedule_not_found(schedule_id)

    async def trigger(self, caller: Principal, schedule_id: ScheduleId, keep: Keep[Run] | None = None) -> Run:
        """See ``Schedules``."""
        for _ in range(_TRIES):
            schedule = await self._get_to_change(caller, schedule_id)
            run = await self._start(schedule, keep)
            if run is not None:
                return run
        raise _busy(schedule_id)

    def next_times(self, schedule: Schedule, count: int) -> Sequence[datetime]:
        """See ``Schedules``; none when the machine does not know the schedule's time zone any more."""
        try:
            return upcoming(schedule, self._clock.now(), count)
        except CronInvalid:
            return ()

    async def _start(self, schedule: Schedule, keep: Keep[Run] | None) -> Run | None:
        async def insert(change: RunChange, lease_s: float) -> bool:
            run = change.run
            after = replace(schedule, last_run_id=run.run_id, last_run_at=run.created_at, last_error=None)
            return await self._store.schedules.fire(schedule, after, change, lease_s, keep and keep(run))

        trigger = Trigger(TriggerType.SCHEDULE, schedule.schedule_id, self._clock.now())
        return await self._runs.start_triggered(schedule.workflow_id, schedule.inputs, trigger, insert)

    async def _get_to_change(self, caller: Principal, schedule_id: ScheduleId) -> Schedule:
        schedule = await self.get(caller, schedule_id)
        _check_can_write(caller)
        return schedule


def schedule_not_found(schedule_id: str) -> ScheduleNotFound:
    """The refusal for a schedule that is not there, or somebody else's."""
    return ScheduleNotFound(f"You have no schedule {schedule_id}; GET /api/v1/orchestrator/schedules lists yours")


def _busy(schedule_id: str) -> Conflict:
    return Conflict(f"Schedule {schedule_id} was changed by others each time that this was tried; try again")


def _check_can_write(caller: Principal) -> None:
    if not caller.can_write:
        raise Forbidden(f"The role {caller.role} only reads; ask an admin for the role user")


def _changed(schedule: Schedule, change: ScheduleChange, now: datetime) -> Schedule:
    """The schedule with the change. Raises ``InvalidRequest``."""
    changed: Schedule = replace(schedule, **_as_any(change.row), updated_at=now)
    timing = replace(schedule.timing, **_as_any(change.timing))
    # One kind of timing takes the place of the other.
    if change.timing.get("cron") is not None:
        timing = replace(timing, interval_s=None, anchor_at=None)
    elif change.timing.get("interval_s") is not None:
        timing = replace(timing, cron=None)
    timing = _with_anchor(timing, now)
    changed = replace(changed, timing=timing, policy=replace(schedule.policy, **_as_any(change.policy)))
    if timing == schedule.timing and changed.paused == schedule.paused:
        return changed
    _check_timing(timing, now)
    return begin_anew(changed, now)


def _as_any(changes: Mapping[str, object]) -> Mapping[str, Any]:
    return changes


def _with_anchor(timing: Timing, now: datetime) -> Timing:
    if timing.interval_s is None or timing.anchor_at is not None:
        return timing
    return replace(timing, anchor_at=now.replace(microsecond=0))


def _check_timing(timing: Timing, now: datetime) -> None:
    """Raises ``InvalidRequest`` with all that is wrong."""
    problems = [*_cron_problems(timing)]
    if (timing.cron is None) == (timing.interval_s is None):
        problems.append(("cron", "give either cron or interval, one of them"))
    if timing.interval_s is None and timing.anchor_at is not None:
        problems.append(("anchor_at", "belongs to interval; a cron expression says itself when it is due"))
    if timing.start_at is not None and timing.end_at is not None and timing.end_at < timing.start_at:
        problems.append(("end_at", "is before start_at"))
    if not problems and next_tick(timing, now) is None:
        problems.append(("cron" if timing.cron else "interval", "is never due from now on, within start_at and end_at"))
    if problems:
        raise InvalidRequest.for_fields(problems)


def _cron_problems(timing: Timing) -> Sequence[tuple[str, str]]:
    problems: list[tuple[str, str]] = []
    for name, parse in (("timezone", lambda: parse_zone(timing.timezone)), ("cron", lambda: _parse(timing.cron))):
        try:
            parse()
        except CronInvalid as problem:
            problems.append((name, str(problem)))
    return problems


def _parse(cron: str | None) -> None:
    if cron is not None:
        parse_cron(cron, "UTC")
