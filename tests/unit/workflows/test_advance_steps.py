"""What the rules say of each kind of step."""

from datetime import timedelta

import pytest

from sandgate.core.run import RunStatus, StepStatus
from tests.unit.workflows.walk import NOW, SUCCEEDED, Walk, a_definition, a_sleep, a_step, an_approval


def _statuses(walk: Walk, step: str) -> list[StepStatus]:
    return [
        row.status for (name, item), row in sorted(walk.steps.items(), key=str) if name == step and item is not None
    ]


def test_a_sleep_ends_at_its_moment() -> None:
    """Not before, and at once when the moment has passed."""
    walk = Walk(a_definition(a_sleep("a", config={"until": "2026-01-01T02:00:10+02:00"})))
    walk.feed()
    assert walk.run.wake_at == NOW + timedelta(seconds=10)
    walk.pass_time(9.5)
    assert walk.statuses() == {"a": StepStatus.WAITING}
    walk.pass_time(0.5)
    assert walk.run.status is RunStatus.SUCCEEDED
    past = Walk(a_definition(a_sleep("a", config={"until": "2025-01-01T00:00:00Z"})))
    past.feed()
    past.wait()
    assert past.run.status is RunStatus.SUCCEEDED


@pytest.mark.parametrize("text", ["soon", "2026-01-01T00:00:00", "9999-01-01T00:00:00Z", "0001-01-01T00:00:00+10:00"])
def test_a_moment_that_is_none_fails_the_step(text: str) -> None:
    """A time without its offset is none, nor is one that is too far ahead."""
    walk = Walk(a_definition(a_sleep("a", config={"until": "${{ inputs.when }}"})), inputs={"when": text})
    walk.feed()
    error = walk.steps["a", None].error
    assert (walk.run.status, error and error.name) == (RunStatus.FAILED, "ExpressionError")


def test_each_item_sleeps_for_its_own_time() -> None:
    """``item`` has a value in it; an item that has no such time fails alone."""
    walk = Walk(a_definition(a_sleep("a", foreach=[5, "no", 1], config={"seconds": "${{ item }}"}, max_parallel=2)))
    walk.feed()
    assert _statuses(walk, "a") == [StepStatus.WAITING, StepStatus.FAILED, StepStatus.WAITING]
    walk.pass_time(1)
    assert _statuses(walk, "a") == [StepStatus.WAITING, StepStatus.FAILED, StepStatus.SUCCEEDED]
    walk.pass_time(4)
    assert walk.statuses() == {"a": StepStatus.FAILED}


def test_an_approval_is_given_item_by_item() -> None:
    """A word for one item says nothing of the others, and none for the whole counts."""
    walk = Walk(a_definition(an_approval("ask", foreach=["x", "y"]), a_step("go", "ask")))
    walk.feed()
    assert walk.undecided() == [("ask", 0), ("ask", 1)]
    assert walk.decide(("ask", None), approved=True).steps == []
    walk.decide(("ask", 1), approved=True)
    assert _statuses(walk, "ask") == [StepStatus.WAITING, StepStatus.SUCCEEDED]
    assert walk.decide(("ask", 1), approved=False).steps == []
    walk.decide(("ask", 0), approved=True)
    walk.end(("go", None), SUCCEEDED)
    assert walk.run.status is RunStatus.SUCCEEDED


def test_one_rejected_item_fails_the_step() -> None:
    """The others are asked about all the same."""
    walk = Walk(a_definition(an_approval("ask", foreach=["x", "y"]), a_step("go", "ask")))
    walk.feed()
    walk.decide(("ask", 0), approved=False)
    assert walk.undecided() == [("ask", 1)]
    walk.decide(("ask", 1), approved=True)
    assert walk.statuses() == {"ask": StepStatus.FAILED, "go": StepStatus.SKIPPED}
