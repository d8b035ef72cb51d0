"""The rows of a run as they become while the rules are applied, and what is to be done about it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sandgate.core.artifact import Artifact
from sandgate.core.run import HistoryEvent, StepKey, StepRun, StepStatus
from sandgate.core.workflow import Json, StepDefinition
from sandgate.workflows.conditions import (
    MOST_ITEM_BYTES,
    MOST_PRINTED_BYTES,
    MOST_RUN_BYTES,
    foreach_item,
    foreach_items,
)
from sandgate.workflows.contexts import visible_env
from sandgate.workflows.events import Changes
from sandgate.workflows.expressions import MAX_WORK, Work
from sandgate.workflows.state import Graph, Phase, RunState, expression_context, has_failed, is_over, seen_step

TURN_WORK = 250_000
"""What is done for a run before others have their turn, in units of ``Work``; one value more may be in it."""
ROW_WORK = 1_000
"""What a row costs of that which opens or wakes."""


class Ledger:
    """``run`` may be set; rows of steps are written with ``put`` and noted with ``note``.

    ``start`` holds the attempts to begin and ``kill`` those to end.
    """

    def __init__(self, graph: Graph, state: RunState, now: datetime) -> None:
        self.graph = graph
        self.run = state.run
        self.now = now
        self.start: dict[StepKey, StepRun] = {}
        self.kill: dict[StepKey, None] = {}
        self._steps = {key: row for key, row in state.steps.items() if row.status is not StepStatus.PENDING}
        # Counted once, not for each item that ends: of n items, that would be n times n.
        self._begun = Counter(step for step, item in self._steps if item is not None)
        self._live = Counter(row.step for row in self._steps.values() if row.item is not None and row.is_live)
        self._output_bytes = Counter(state.output_bytes)
        self._run_bytes = sum(state.output_bytes.values())
        self._printed_bytes = state.printed_bytes
        self._measured: dict[StepKey, int] = {}
        self._spent = 0
        self._work = Work()
        self._lists: dict[str, Sequence[Json]] = {}
        # Opened anew by a retry: as if they had never been, but that their attempts are counted on.
        self._attempts_before = {row.key: row.attempt for row in state.steps.values() if row.key not in self._steps}
        self._changed: dict[StepKey, StepRun] = {}
        self._history: list[HistoryEvent] = []
        self._artifacts: list[Artifact] = []
        self._context: dict[str, Json] | None = None

    def changes(self) -> Changes:
        """Everything that follows."""
        run = replace(self.run, events=self.run.events + len(self._history))
        start, kill = list(self.start.values()), list(self.kill)
        return Changes(run, list(self._changed.values()), self._history, start, kill, self._artifacts, self._measured)

    # Looking

    @property
    def noted(self) -> int:
        """How much has been noted; it grows whenever a step opens or ends."""
        return len(self._history)

    def find(self, step: str, item: int | None = None) -> StepRun | None:
        """The row of a step or of an item; None while it is pending."""
        return self._steps.get((step, item))

    def fresh(self, step: str, item: int | None = None) -> StepRun:
        """The row of a step or an item that is about to open."""
        before = self._attempts_before.get((step, item), 0)
        return StepRun(self.run.run_id, step, item, attempt=before, attempts_before=before)

    def rows(self) -> Sequence[StepRun]:
        """Every row, as of now."""
        return list(self._steps.values())

    def count_begun(self, step: str) -> int:
        """How many items of a step have a row."""
        return self._begun[step]

    def count_live(self, step: str) -> int:
        """How many items of a step have begun and not ended."""
        return self._live[step]

    def items(self, parent: StepRun) -> Sequence[StepRun]:
        """The rows of a step's items that have one."""
        found = (self._steps.get((parent.step, index)) for index in range(parent.items or 0))
        return [row for row in found if row is not None]

    def under_way(self) -> Sequence[StepRun]:
        """The rows whose attempt has begun and not ended."""
        return [row for row in self._steps.values() if row.is_under_way]

    def are_over(self, names: Iterable[str]) -> bool:
        """Whether all of these steps have ended."""
        return all(is_over(self._steps.get((name, None))) for name in names)

    def any_failed(self, names: Iterable[str]) -> bool:
        """Whether one of these steps has ended badly."""
        return any(has_failed(self._steps.get((name, None))) for name in names)

    def seen(self, step: StepDefinition | None = None, item: int | None = None) -> Mapping[str, Json]:
        """What expressions see, of a step's item when there is one."""
        if self._context is None:
            context = expression_context(self.graph, RunState(self.run, self._steps))
            self._context = {**context, "env": visible_env(self.graph.definition, context, self.work())}
        if step is None or item is None:
            return self._context
        return {**self._context, "item": self._element(step, item), "index": item}

    def elements(self, step: StepDefinition) -> Sequence[Json]:
        """What a step is run for, found once. Raises ``ExpressionError``."""
        if step.name not in self._lists:
            self._lists[step.name] = foreach_items(step, self.seen(), self.work())
        return self._lists[step.name]

    def _element(self, step: StepDefinition, item: int) -> Json:
        if isinstance(step.foreach, list):
            return foreach_item(step, self.seen(), item, self.work())
        return self.elements(step)[item]

    # What it costs

    def work(self) -> Work:
        """The bound of one value more; what is used of it is counted."""
        self._spent += MAX_WORK - self._work.left
        self._work = Work()
        return self._work

    def spend(self, amount: int) -> None:
        """Count what was done."""
        self._spent += amount

    @property
    def is_spent(self) -> bool:
        """Whether it is the turn of others: what is left to do is done in the next one."""
        return self._spent + MAX_WORK - self._work.left >= TURN_WORK

    # What holds of the whole

    @property
    def is_halted(self) -> bool:
        """Whether nothing more of the steps is to be started."""
        return self.run.cancel_asked_at is not None or self.run.error is not None

    def is_halted_for(self, step: str) -> bool:
        """Whether nothing more of this step is to be started."""
        if self.graph.phase_of[step] is Phase.MAIN:
            return self.is_halted
        return self.run.tidy_until is not None and self.run.tidy_until <= self.now

    def main_failed(self) -> bool:
        """Whether the steps came to a bad end."""
        return self.run.error is not None or self.any_failed(step.name for step in self.graph.phases[Phase.MAIN])

    def phase(self) -> Phase | None:
        """The first phase that is not over; None when all are."""
        for phase, steps in self.graph.phases.items():
            unwanted = phase is Phase.ON_ERROR and (self.run.cancel_asked_at is not None or not self.main_failed())
            if unwanted and not self._any_live(step.name for step in steps):
                continue
            if not self.are_over(step.name for step in steps):
                return phase
        return None

    def _any_live(self, names: Iterable[str]) -> bool:
        """Whether something of these has begun and has yet to die, though nothing more of them is wanted."""
        return any(row is not None and row.is_live for row in map(self.find, names))

    # Writing

    def put(self, row: StepRun) -> None:
        """Write a row."""
        before = self._steps.get(row.key)
        self._steps[row.key] = row
        self._changed[row.key] = row
        if row.item is not None:
            self._begun[row.step] += before is None
            self._live[row.step] += row.is_live - (before is not None and before.is_live)
        elif not row.is_live and self._context is not None:
            self._context["steps"][row.step] = seen_step(RunState(self.run, self._steps), row.step)
        if not row.is_under_way:
            self.start.pop(row.key, None)

    def begin(self, row: StepRun) -> None:
        """Write a row whose attempt is to be started."""
        self.put(row)
        self.start[row.key] = row

    def resume(self, row: StepRun) -> None:
        """Start the attempt of a row anew, in the place of a process that is gone."""
        self.start[row.key] = row

    def lacks_room_for(self, row: StepRun, size: int) -> str | None:
        """Why outputs of a step or an item may not be so long beside those of others; None: they may, and count now."""
        if row.item is not None and self._output_bytes[row.step] + size > MOST_ITEM_BYTES:
            return f"the outputs of all items of this step together are longer than {MOST_ITEM_BYTES} bytes"
        if self._run_bytes + size > MOST_RUN_BYTES:
            return f"the outputs of all steps of this run together are longer than {MOST_RUN_BYTES} bytes"
        self._output_bytes[row.step] += size
        self._run_bytes += size
        self._measured[row.key] = size
        return None

    def has_room_to_print(self, size: int) -> bool:
        """Whether so many bytes more are kept of what is printed; they count from now on if so."""
        if self._printed_bytes + size > MOST_PRINTED_BYTES:
            return False
        self._printed_bytes += size
        return True

    def keep(self, artifacts: Iterable[Artifact]) -> None:
        """Add what an attempt has left."""
        self._artifacts.extend(artifacts)

    def note(self, kind: str, row: StepRun | None = None, details: dict[str, Any] | None = None) -> None:
        """Add to the history."""
        number = self.run.events + len(self._history)
        step, item, attempt = (None, None, None) if row is None else (row.step, row.item, row.attempt)
        event = HistoryEvent(self.run.run_id, number, self.now, kind, step, item, attempt, details or {})
        self._history.append(event)


def is_waiting(row: StepRun) -> bool:
    """Whether only time or a person takes the step on."""
    return row.status is StepStatus.WAITING and not row.is_under_way
