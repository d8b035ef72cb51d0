"""How much is done for one run before others have their turn, counted in calls, and how that grows."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from sandgate.core.run import RunStatus, StepResult, StepRun, StepStatus
from sandgate.core.workflow import RetryPolicy, StepDefinition
from sandgate.workflows import endings, ledger
from sandgate.workflows import live as live_module
from sandgate.workflows.advance import advance
from sandgate.workflows.conditions import MOST_ITEM_BYTES, MOST_ITEMS_OF_RUN
from sandgate.workflows.events import AttemptEnded, Changes
from sandgate.workflows.expressions import MAX_WORK, Work
from sandgate.workflows.ledger import TURN_WORK
from sandgate.workflows.live import LiveRun
from sandgate.workflows.state import RunState
from tests.unit.workflows.walk import FAILED, NOW, SUCCEEDED, Walk, a_definition, a_sleep, a_step

MOST_ROWS = 400


def _count(work: Callable[[], Changes]) -> tuple[Changes, int]:
    """What it answers, and how many functions it calls."""
    calls = 0

    def on_event(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(on_event)
    try:
        answer = work()
    finally:
        sys.setprofile(None)
    return answer, calls


@dataclass
class Played:
    """A run that was played to its end: what each turn of it cost."""

    walk: Walk
    calls: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def play(self) -> "Played":
        """Wake it up until it is over."""
        walk = self.walk
        steps = dict(walk.steps)
        while walk.run.is_live:
            now = walk.run.wake_at or NOW
            state = RunState(walk.run, steps)
            changes, calls = _count(partial(advance, walk.graph, state, [], now))
            steps |= {row.key: row for row in changes.steps}
            walk.run, walk.steps = changes.run, steps
            self.calls.append(calls)
            self.rows.append(len(changes.steps))
        return self


def _items(count: int, steps: int = 1, **more: Any) -> Played:
    config = {"seconds": 0}
    each = [a_sleep(f"s{n}", foreach="${{ inputs.all }}", config=config, **more) for n in range(steps)]
    return Played(Walk(a_definition(*each), inputs={"all": list(range(count))})).play()


def test_a_turn_is_short_however_many_items_there_are() -> None:
    """The rest has its turn at once; all of it comes to the same end, and costs as much as there is."""
    few, many, most = _items(100), _items(1000), _items(1000, steps=5)
    for played in (few, many, most):
        assert played.walk.run.status is RunStatus.SUCCEEDED
        assert max(played.rows) <= MOST_ROWS
    assert sum(few.rows) < 300, "one that is small has no more turns than it needs"
    assert len(few.calls) == 2
    assert sum(many.calls) < 20 * sum(few.calls)
    # What is looked at in each turn is all there is: rows are few calls each.
    assert max(most.calls) < 8 * max(many.calls)
    assert sum(most.calls) < 15 * sum(many.calls)


def test_code_that_is_read_later_costs_no_turn() -> None:
    """However long it is, all items begin in the first one."""
    walk = Walk(a_definition(a_step("s", foreach=list(range(100)), config={"code": "#" * 100_000})))
    changes = advance(walk.graph, RunState(walk.run, dict(walk.steps)), [], NOW)
    assert sum(row.item is not None for row in changes.steps) == 100


def _comparing(name: str) -> StepDefinition:
    return a_sleep(name, config={"seconds": 0}, condition="inputs.all == inputs.all")


def test_expressions_of_many_steps_share_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take its bound; the next one is for the next turn when this one has been taken."""
    spent: list[int] = []
    spend = Work.spend

    def counted(self: Work, amount: int) -> None:
        spent[-1] += amount
        spend(self, amount)

    monkeypatch.setattr(Work, "spend", counted)
    walk = Walk(a_definition(*(_comparing(f"s{n}") for n in range(5))), inputs={"all": [1] * 100_000})
    while walk.run.is_live:
        spent.append(0)
        changes = advance(walk.graph, RunState(walk.run, dict(walk.steps)), [], walk.run.wake_at or NOW)
        walk.run = changes.run
        walk.steps |= {row.key: row for row in changes.steps}
    assert walk.run.status is RunStatus.SUCCEEDED
    assert sum(spent) > 4 * TURN_WORK
    assert max(spent) < TURN_WORK + MAX_WORK
    assert sum(work > TURN_WORK for work in spent) == 5, "in turns of their own"


def test_a_list_is_made_once_a_turn_and_not_for_each_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose items each look at one of its elements."""
    made = 0
    spend = Work.spend

    def counted(self: Work, amount: int) -> None:
        nonlocal made
        made += amount
        spend(self, amount)

    monkeypatch.setattr(Work, "spend", counted)
    text = ",".join("0" * 200)
    step = a_sleep("a", foreach="${{ split(inputs.text, ',') }}", config={"seconds": 0})
    walk = Walk(a_definition(step), inputs={"text": text})
    advance(walk.graph, RunState(walk.run, {}), [], NOW)
    assert made < 50 * len(text)


def test_outputs_of_all_items_of_a_step_are_bounded_together() -> None:
    """Those in this turn and those that were written before; the item that goes over fails, and says why."""
    part = StepResult(StepStatus.SUCCEEDED, "succeeded", outputs={"x": "y" * (MOST_ITEM_BYTES // 4)})
    walk = Walk(a_definition(a_step("a", foreach=list(range(5))), a_step("b", "a")))
    walk.feed()
    live = LiveRun(walk.run, walk.graph)
    live.adopt(walk.steps.values(), {})
    for items in ((0, 1), (2, 3), (4,)):
        events = [AttemptEnded(("a", item), 1, part if item != 4 else SUCCEEDED) for item in items]
        live.take(advance(walk.graph, live.state(), events, NOW))
    statuses = [live.steps["a", item].status for item in range(5)]
    assert statuses == [*[StepStatus.SUCCEEDED] * 3, StepStatus.FAILED, StepStatus.SUCCEEDED]
    error = live.steps["a", 3].error
    assert error is not None
    assert (error.name, live.steps["a", 3].outputs) == ("OutputsTooLarge", None)
    again = LiveRun(live.run, walk.graph)
    again.adopt(live.steps.values(), {})
    assert again.state().output_bytes == live.state().output_bytes


def test_outputs_of_all_steps_of_a_run_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not they have items; the step that goes over fails, and says why. An output is measured once."""
    measured: list[int] = []
    monkeypatch.setattr(endings, "json", _counting(measured))
    monkeypatch.setattr(live_module, "json", _counting(measured))
    part = StepResult(StepStatus.SUCCEEDED, "succeeded", outputs={"x": "y" * 60})
    monkeypatch.setattr(ledger, "MOST_RUN_BYTES", 200)
    walk = Walk(a_definition(a_step("a"), a_step("b", "a", foreach=[0]), a_step("c", "b"), a_step("d", "a")))
    walk.feed()
    live = LiveRun(walk.run, walk.graph)
    live.adopt(walk.steps.values(), {})
    for key in (("a", None), ("b", 0), ("c", None), ("d", None)):
        live.take(advance(walk.graph, live.state(), [AttemptEnded(key, 1, part)], NOW))
    error = live.steps["c", None].error
    assert error is not None
    assert (error.name, error.value) == (
        "OutputsTooLarge", "the outputs of all steps of this run together are longer than 200 bytes"
    )  # fmt: skip
    assert [live.steps[key].status for key in (("a", None), ("b", 0), ("b", None))] == [StepStatus.SUCCEEDED] * 3
    assert sum(live.state().output_bytes.values()) == 2 * len('{"x": ""}') + 120
    assert len(measured) == 4


def _counting(measured: list[int]) -> SimpleNamespace:
    def dumps(value: Any) -> str:
        measured.append(1)
        return json.dumps(value)

    return SimpleNamespace(dumps=dumps)


def test_what_all_steps_of_a_run_have_printed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that their text is not kept, which `stderr` says; an attempt takes the place of the one before."""
    monkeypatch.setattr(ledger, "MOST_PRINTED_BYTES", 250)
    retry = RetryPolicy(max_attempts=5)
    walk = Walk(a_definition(a_step("a", retry=retry), a_step("b", "a"), a_step("c", "b")))
    walk.feed()
    live = LiveRun(walk.run, walk.graph)
    live.adopt(walk.steps.values(), {("z", None): 50})
    failed, succeeded = (replace(end, stdout="o" * 50, stderr="e" * 50) for end in (FAILED, SUCCEEDED))
    kept = []
    for attempt, result in enumerate((failed, failed, succeeded), 1):
        changes = advance(walk.graph, live.state(), [AttemptEnded(("a", None), attempt, result)], NOW)
        kept.append([(row.stdout, row.stderr) for row in changes.steps if row.step == "a"][-1])
        live.take(changes)
    assert kept == [("o" * 50, "e" * 50)] * 3
    for step in ("b", "c"):
        changes = advance(walk.graph, live.state(), [AttemptEnded((step, None), 1, succeeded)], NOW)
        kept.append([(row.stdout, row.stderr) for row in changes.steps if row.step == step][-1])
        live.take(changes)
    assert kept[3] == ("o" * 50, "e" * 50)
    assert kept[4][0] == ""
    assert "not kept: the steps of this run have printed more than" in kept[4][1]
    assert live.steps["c", None].status is StepStatus.SUCCEEDED


def test_a_run_has_a_bounded_number_of_items() -> None:
    """The step that would go over it fails and says so; those before it are as they were."""
    count = MOST_ITEMS_OF_RUN // 10
    steps = [a_step(f"s{n}", foreach=list(range(count))) for n in range(10)] + [a_step("late", foreach=[1])]
    walk = Walk(a_definition(*steps))
    over: dict[str, Any] = {"status": StepStatus.SUCCEEDED, "items": count}
    walk.steps = {(f"s{n}", None): StepRun(walk.run.run_id, f"s{n}", None, **over) for n in range(10)}
    walk.feed()
    error = walk.steps["late", None].error
    assert walk.run.status is RunStatus.FAILED
    assert error is not None
    assert f"{MOST_ITEMS_OF_RUN + 1} of this run; {MOST_ITEMS_OF_RUN} is the most" in error.value
