"""The rows of a run as they become while the rules are applied, and what is to be done about it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sandgate.core.artifact import Artifact
from sandgate.core.run import HistoryEvent, StepKey, StepRun, StepStatus
from sandgate.core.workflow import Json, StepDefinition
from sandgate.workflows.conditions import foreach_item
from sandgate.workflows.contexts import visible_env
from sandgate.workflows.events import Changes
from sandgate.workflows.state import Graph, Phase, RunState, expression_context, has_failed, is_over


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
        return Changes(run, list(self._changed.values()), self._history, start, kill, self._artifacts)

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
            self._context = {**context, "env": visible_env(self.graph.definition, context)}
        if step is None or item is None:
            return self._context
        return {**self._context, "item": foreach_item(step, self._context, item), "index": item}

    # What holds of the whole

    @property
    def is_halted(self) -> bool:
        """Whether nothing more of the steps is to be started."""
        return self.run.cancel_asked_at is not None or self.run.error is not None

    def is_halted_for(self, step: str) -> bool:
        """Whether nothing more of this step is to be started."""
        return self.is_halted and self.graph.phase_of[step] is Phase.MAIN

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
        self._steps[row.key] = row
        self._changed[row.key] = row
        self._context = None
        if not row.is_under_way:
            self.start.pop(row.key, None)

    def begin(self, row: StepRun) -> None:
        """Write a row whose attempt is to be started."""
        self.put(row)
        self.start[row.key] = row

    def resume(self, row: StepRun) -> None:
        """Start the attempt of a row anew, in the place of a process that is gone."""
        self.start[row.key] = row

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
