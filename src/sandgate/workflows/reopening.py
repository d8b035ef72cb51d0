"""How a run that ended badly goes on: which steps are open again, and what the rules of runs make of that.

What succeeded stays, unless something that it waits for is open again. ``on_error`` and ``finally`` are open again as
a whole: they tidy up after whatever comes now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sandgate.core.run import FAILED_STEP_STATUSES, HistoryEvent, Run, RunStatus, StepKey, StepRun, StepStatus
from sandgate.workflows.advance import advance
from sandgate.workflows.events import Changes
from sandgate.workflows.state import Graph, Phase, RunState

_BROKEN = FAILED_STEP_STATUSES | {StepStatus.CANCELLED}


def reopen(graph: Graph, state: RunState, who: str, from_step: str | None, now: datetime) -> Changes:
    """What follows when somebody retries an ended run, from a step of ``steps`` on that need not have failed.

    The fencing number is one more than before; a time limit of the whole run is counted anew. A run that takes turns
    waits for its turn again.
    """
    limit_s = graph.definition.timeout_s
    takes_turns = state.run.slot_group is not None
    anew = _opened(graph, state, from_step)
    rows = [row for name in graph.steps for row in _rows(graph, state, name, anew, from_step)]
    history = _history(graph, state.run, rows, {"by": who, "from": from_step}, now)
    run = replace(
        state.run,
        status=RunStatus.PENDING if takes_turns else RunStatus.RUNNING,
        started_at=None if takes_turns else state.run.started_at,
        finished_at=None,
        deadline_at=None if limit_s is None or takes_turns else now + timedelta(seconds=limit_s),
        wake_at=None,
        cancel_asked_at=None,
        error=None,
        events=state.run.events + len(history),
        fence=state.run.fence + 1,
    )
    opened: dict[StepKey, StepRun] = {row.key: row for row in rows}
    follows = advance(graph, RunState(run, {**state.steps, **opened}), [], now)
    changed = opened | {row.key: row for row in follows.steps}
    return replace(follows, steps=list(changed.values()), history=[*history, *follows.history])


def _history(
    graph: Graph, run: Run, rows: Sequence[StepRun], details: Mapping[str, Any], now: datetime
) -> Sequence[HistoryEvent]:
    """Who retried it and which steps are open again; and that a step whose items go on has started."""
    opened = {row.step for row in rows}
    events: list[tuple[str | None, int | None, str, Mapping[str, Any]]]
    events = [(None, None, "run_retried", {**details, "steps": [name for name in graph.steps if name in opened]})]
    events += [(row.step, row.attempt, "step_started", {"items": row.items}) for row in rows if row.items is not None]
    return [
        HistoryEvent(run.run_id, number, now, kind, step, None, attempt, told)
        for number, (step, attempt, kind, told) in enumerate(events, run.events)
    ]


def _opened(graph: Graph, state: RunState, from_step: str | None) -> frozenset[str]:
    """The steps that are open again."""
    broken = {name for name in graph.steps if _status(state, name) in _BROKEN}
    if from_step is not None:
        broken.add(from_step)
    after = {name for name in graph.steps if not broken.isdisjoint(graph.ancestors(name))}
    opened = broken | after
    if state.run.status in (RunStatus.CANCELLED, RunStatus.TIMED_OUT):
        # Not begun because nothing was to begin any more; one whose condition was false comes to that again.
        opened |= {name for name in graph.steps if _status(state, name) is StepStatus.SKIPPED}
    aftermath = {step.name for phase in (Phase.ON_ERROR, Phase.FINAL) for step in graph.phases[phase]}
    return frozenset(opened | aftermath)


def _status(state: RunState, name: str) -> StepStatus:
    row = state.steps.get((name, None))
    return StepStatus.PENDING if row is None else row.status


def _rows(graph: Graph, state: RunState, name: str, anew: frozenset[str], from_step: str | None) -> Sequence[StepRun]:
    """The rows of a step that is open again."""
    row = state.steps.get((name, None))
    if row is None or name not in anew:
        return []
    items = [found for key, found in state.steps.items() if key[0] == name and key[1] is not None]
    if row.items is None or name == from_step or not anew.isdisjoint(graph.ancestors(name)):
        return [_fresh(found) for found in (row, *items)]
    if graph.phase_of[name] is not Phase.MAIN:
        return [_fresh(found) for found in (row, *items)]
    # The list is the same as before, so that the items that succeeded stay.
    again = [_fresh(item) for item in items if item.status is not StepStatus.SUCCEEDED]
    parent = replace(
        row, status=StepStatus.RUNNING, attempt=row.attempt + 1, finished_at=None, outputs=None, error=None
    )
    return [parent, *again]


def _fresh(row: StepRun) -> StepRun:
    return StepRun(row.run_id, row.step, row.item, attempt=row.attempt, attempts_before=row.attempt)
