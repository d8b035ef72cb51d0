"""What the engine keeps in memory of a run that it works on."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sandgate.core.ids import SignalId
from sandgate.core.run import HistoryEvent, Run, StepKey, StepRun, measure_printed
from sandgate.store.base import RunStore
from sandgate.workflows.collecting import RunRoom
from sandgate.workflows.events import Changes, Event
from sandgate.workflows.live_output import LiveOutput
from sandgate.workflows.state import Graph, RunState


def started_numbers(history: Iterable[HistoryEvent]) -> dict[StepKey, int]:
    """The number of the event that each step, or item, was started by last."""
    return {(event.step, event.item): event.number for event in history if event.kind == "step_started" and event.step}


async def load_live(store: RunStore, run: Run, graph: Graph) -> "LiveRun":
    """A run that was worked on before. Raises ``StoreUnavailable``."""
    live = LiveRun(run, graph)
    rows = await store.list_steps(run.run_id, with_output=False)
    live.adopt(rows, await store.measure_printed(run.run_id))
    return live


class LiveRun:
    """The newest rows, without the output of what has ended, and what is under way."""

    def __init__(self, run: Run, graph: Graph) -> None:
        self.run = run
        self.graph = graph
        self.steps: dict[StepKey, StepRun] = {}
        self._sizes: dict[StepKey, int] = {}
        self._output_bytes: Counter[str] = Counter()
        self._printed_sizes: dict[StepKey, int] = {}
        self._printed_bytes = 0
        self.events: list[Event] = []
        self.due = False
        self.pump: asyncio.Task[None] | None = None
        self.attempts: dict[StepKey, asyncio.Task[None]] = {}
        self.outputs: dict[StepKey, LiveOutput] = {}
        # Which event of the history each attempt that is under way began with.
        self.numbers: dict[StepKey, int] = {}
        self.signals: list[SignalId] = []
        self._heard: set[SignalId] = set()
        self.timer: asyncio.TimerHandle | None = None
        self.room = RunRoom()
        self.closed = False
        self._changed: asyncio.Future[None] | None = None

    def hear(self, signal_id: SignalId) -> bool:
        """Take a signal into the next batch; False when that was done before."""
        if signal_id in self._heard:
            return False
        self._heard.add(signal_id)
        self.signals.append(signal_id)
        return True

    def state(self) -> RunState:
        """What is, for the rules."""
        return RunState(self.run, self.steps, self._output_bytes, self._printed_bytes)

    def adopt(self, rows: Iterable[StepRun], printed: Mapping[StepKey, int]) -> None:
        """Have these rows, as they were written before, without what each has ``printed``, of these sizes."""
        self._printed_sizes = dict(printed)
        self._printed_bytes = sum(printed.values())
        for row in rows:
            self.steps[row.key] = row
            self._measure(row, {})

    def _measure(self, row: StepRun, known: Mapping[StepKey, int]) -> None:
        size = (known.get(row.key) or len(json.dumps(row.outputs))) if row.outputs else 0
        self._output_bytes[row.step] += size - self._sizes.get(row.key, 0)
        self._sizes[row.key] = size

    def take(self, changes: Changes) -> None:
        """What was written."""
        self.run = changes.run
        for row in changes.steps:
            size = measure_printed(row)
            self._printed_bytes += size - self._printed_sizes.get(row.key, 0)
            self._printed_sizes[row.key] = size
            self.steps[row.key] = replace(row, stdout="", stderr="") if size else row
            self._measure(row, changes.output_bytes)
        self.wake()

    def close(self) -> None:
        """Kill what runs, and let nobody wait any longer."""
        self.closed = True
        if self.timer is not None:
            self.timer.cancel()
        for task in self.attempts.values():
            task.cancel()
        self.wake()

    async def wait_for_change(self) -> None:
        """Wait until something was written, or the run is no longer worked on here."""
        if self.closed:
            return
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    async def wait_for_end(self, limit_s: float) -> None:
        """Wait until it is no longer worked on here, or the time is over."""
        try:
            async with asyncio.timeout(limit_s):
                while not self.closed:
                    await self.wait_for_change()
        except TimeoutError:
            return

    def running(self) -> Sequence[StepKey]:
        """What is under way."""
        return tuple(self.attempts)

    def wake(self) -> None:
        """Let those look who wait for a change."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._changed = None
