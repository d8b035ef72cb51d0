"""What the rules say of each kind of step."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sandgate.core.run import RunStatus, StepResult, StepStatus
from sandgate.core.workflow import RetryPolicy
from sandgate.workflows.events import CancelAsked, Entered, TakenOver
from tests.unit.workflows.walk import (
    CANCELLED,
    FAILED,
    NOW,
    SUCCEEDED,
    Walk,
    a_child,
    a_definition,
    a_sleep,
    a_step,
    an_approval,
)


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


@pytest.mark.parametrize(("timeout_s", "status"), [(4.0, StepStatus.TIMED_OUT), (5.0, StepStatus.SUCCEEDED)])
def test_a_sleep_has_a_time_limit_like_other_steps(timeout_s: float, status: StepStatus) -> None:
    """One that would take longer ends at the limit, and has not done what it should."""
    walk = Walk(a_definition(a_sleep("a", timeout_s=timeout_s, config={"seconds": 5})))
    walk.feed()
    walk.pass_time(3.9)
    assert walk.statuses() == {"a": StepStatus.WAITING}
    walk.wait()
    assert walk.steps["a", None].status is status
    assert walk.run.status is (RunStatus.SUCCEEDED if status is StepStatus.SUCCEEDED else RunStatus.FAILED)


def test_tidying_up_ends_five_minutes_after_the_time_of_the_run() -> None:
    """What runs is killed once, what waits for people is given up, and what has not begun is skipped."""
    more = {"on_error": (a_step("tell"),), "final": (an_approval("ask"), a_step("tidy"), a_step("last", "ask"))}
    walk = Walk(a_definition(a_step("a"), timeout_s=10, **more))
    walk.feed()
    walk.wait()
    walk.end(("a", None), CANCELLED)
    walk.end(("tell", None), SUCCEEDED)
    assert walk.run.wake_at == NOW + timedelta(seconds=310)
    assert walk.pass_time(299).kill == []
    assert walk.wait().kill == [("tidy", None)]
    assert walk.pass_time(1).kill == []
    walk.end(("tidy", None), CANCELLED)
    assert walk.run.status is RunStatus.TIMED_OUT
    late, skipped = StepStatus.TIMED_OUT, StepStatus.SKIPPED
    assert walk.statuses() == {
        "a": late, "tell": StepStatus.SUCCEEDED, "ask": late, "tidy": late, "last": skipped
    }  # fmt: skip


def test_steps_that_ended_in_time_leave_theirs_to_what_tidies_up() -> None:
    """A run that waits for a person in ``finally`` is over at last."""
    walk = Walk(a_definition(a_step("a"), timeout_s=10, final=(an_approval("ask"),)))
    walk.feed()
    walk.end(("a", None), SUCCEEDED)
    walk.wait()
    assert (walk.run.status, walk.now) == (RunStatus.FAILED, NOW + timedelta(seconds=310))
    assert walk.steps["ask", None].status is StepStatus.TIMED_OUT


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


def test_a_child_is_waited_for_under_one_name() -> None:
    """Its run is named when the step begins, is waited for anew after a crash, and another attempt is another run."""
    walk = Walk(a_definition(a_child("a", retry=RetryPolicy(2, delay_s=1))))
    first = walk.feed().start[0]
    assert (walk.run.status, first.status) == (RunStatus.WAITING, StepStatus.WAITING)
    assert first.child_run_id is not None
    assert list(walk.feed(TakenOver()).start) == [first]
    walk.end(first.key, FAILED)
    assert walk.steps[first.key].child_run_id is None
    second = walk.wait().start[0]
    assert second.child_run_id not in (None, first.child_run_id)
    walk.end(first.key, SUCCEEDED)
    assert walk.run.status is RunStatus.SUCCEEDED
    assert walk.steps[first.key].child_run_id == second.child_run_id


def test_a_child_is_cancelled_with_its_parent() -> None:
    """The parent ends when the child has; a crash between does not forget the cancel."""
    walk = Walk(a_definition(a_child("a"), a_step("b", "a")))
    walk.feed()
    assert walk.feed(CancelAsked("somebody")).kill == [("a", None)]
    assert walk.run.is_live
    again = walk.feed(TakenOver())
    assert ([row.key for row in again.start], again.kill) == ([("a", None)], [("a", None)])
    walk.end(("a", None), StepResult(StepStatus.FAILED, "cancelled"))
    assert walk.run.status is RunStatus.CANCELLED
    assert walk.statuses() == {"a": StepStatus.CANCELLED, "b": StepStatus.SKIPPED}


@pytest.mark.parametrize("foreach", [None, [1]])
def test_an_attempt_that_is_cancelled_alone_has_failed(foreach: list[int] | None) -> None:
    """Whoever ends it by its environment does not make the run succeed; what tidies up after a failure does."""
    retry = RetryPolicy(3)
    steps = (a_step("a", foreach=foreach, retry=retry), a_step("b", "a"))
    walk = Walk(a_definition(*steps, on_error=(a_step("tell"),), final=(a_step("tidy"),)))
    walk.feed()
    walk.end(("a", None if foreach is None else 0), CANCELLED)
    walk.end(("tell", None), CANCELLED)
    walk.end(("tidy", None), CANCELLED)
    assert set(walk.statuses().items()) == {
        ("a", StepStatus.FAILED), ("b", StepStatus.SKIPPED), ("tell", StepStatus.FAILED), ("tidy", StepStatus.FAILED)
    }  # fmt: skip
    assert walk.run.status is RunStatus.FAILED
    assert next(event.details["reason"] for event in walk.history if event.kind == "step_failed") == "cancelled"


def test_what_tidies_up_is_cancelled_with_the_run() -> None:
    """A word that kills it says so of the step, too."""
    walk = Walk(a_definition(a_step("a"), final=(a_step("tidy"),)))
    walk.feed()
    walk.end(("a", None), SUCCEEDED)
    assert walk.feed(CancelAsked("somebody")).kill == [("tidy", None)]
    walk.end(("tidy", None), CANCELLED)
    assert (walk.run.status, walk.statuses()["tidy"]) == (RunStatus.CANCELLED, StepStatus.CANCELLED)


def test_a_run_that_waits_for_its_turn_does_nothing() -> None:
    """No step begins and its time limit does not count, until it is let in."""
    walk = Walk(a_definition(a_step("a"), concurrency_group="g", timeout_s=5))
    assert walk.feed().start == []
    walk.pass_time(100)
    assert (walk.run.status, walk.run.wake_at) == (RunStatus.PENDING, None)
    walk.feed(Entered(walk.now))
    assert walk.run.started_at == walk.now
    assert walk.run.deadline_at == walk.now + timedelta(seconds=5)
    walk.pass_time(5)
    walk.end(("a", None), CANCELLED)
    assert walk.run.status is RunStatus.TIMED_OUT


def test_a_limit_set_from_above_holds_while_a_run_waits() -> None:
    """Nothing of it ran, so that nothing handles or tidies up."""
    after: dict[str, Any] = {"on_error": (a_step("e"),), "final": (a_step("f"),)}
    walk = Walk(a_definition(a_step("a"), concurrency_group="g", **after))
    walk.run = replace(walk.run, deadline_at=NOW + timedelta(seconds=3))
    walk.feed()
    walk.wait()
    assert walk.run.status is RunStatus.TIMED_OUT
    assert set(walk.statuses().values()) == {StepStatus.SKIPPED}


def test_a_run_leaves_its_outputs() -> None:
    """They are evaluated when it has succeeded; what has no value fails the run."""
    outputs = {"total": "${{ steps.a.outputs.n }}", "fixed": [1, "${{ inputs.x }}"]}
    walk = Walk(a_definition(a_step("a"), outputs=outputs), inputs={"x": "y"})
    walk.feed()
    walk.end(("a", None), replace(SUCCEEDED, outputs={"n": 3}))
    assert walk.run.outputs == {"total": 3, "fixed": [1, "y"]}
    bad = Walk(a_definition(a_step("a"), outputs=outputs), inputs={"x": "y"})
    bad.feed()
    bad.end(("a", None), SUCCEEDED)
    assert bad.run.status is RunStatus.FAILED
    assert (bad.run.outputs, bad.run.error and bad.run.error.name) == (None, "OutputsInvalid")


def test_what_was_for_a_failure_is_skipped_when_there_was_none() -> None:
    """Before ``finally``, whose steps may look at it; and it is open again with the run."""
    look = a_step("look", condition="steps.tell.status == 'skipped'")
    walk = Walk(a_definition(a_step("a"), on_error=(a_step("tell"),), final=(look,)))
    walk.feed()
    walk.end(("a", None), SUCCEEDED)
    assert walk.statuses()["tell"] is StepStatus.SKIPPED
    walk.end(("look", None), SUCCEEDED)
    assert walk.run.status is RunStatus.SUCCEEDED


def test_whoever_decides_is_told_what_about() -> None:
    """The message of an approval is its output while it waits, stays beside the decision, and is in the history."""
    ask = replace(an_approval("ask"), config={"message": "ship ${{ inputs.version }}?"})
    walk = Walk(a_definition(ask), inputs={"version": "1.2"})
    walk.feed()
    assert walk.steps["ask", None].outputs == {"message": "ship 1.2?"}
    assert [event.details for event in walk.history if event.kind == "step_waiting"] == [{"message": "ship 1.2?"}]
    walk.decide(("ask", None), approved=True)
    outputs = walk.steps["ask", None].outputs or {}
    assert (outputs["message"], outputs["approved"]) == ("ship 1.2?", True)
    assert str(outputs["at"]).endswith("Z")


def test_a_message_that_has_no_value_fails_the_approval() -> None:
    """Nobody is asked about a gap."""
    ask = replace(an_approval("ask"), config={"message": "${{ inputs.gone }} now"})
    walk = Walk(a_definition(ask))
    walk.feed()
    error = walk.steps["ask", None].error
    assert (walk.run.status, error and error.name) == (RunStatus.FAILED, "ExpressionError")
