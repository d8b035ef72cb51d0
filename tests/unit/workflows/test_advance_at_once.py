"""Things that happen to a run in one moment: what is begun in it is not forgotten when it is to be killed."""

import pytest

from sandgate.core.run import RunStatus, StepStatus
from sandgate.core.workflow import RetryPolicy
from sandgate.workflows.events import AttemptEnded, CancelAsked, Event, TakenOver
from tests.unit.workflows.walk import FAILED, SUCCEEDED, Walk, a_definition, a_step

AGAIN = RetryPolicy(max_attempts=3)
A = ("a", None)


def test_taken_over_after_the_time_is_over() -> None:
    """A run whose time ran out while nobody worked on it does not begin its lost attempts again."""
    walk = Walk(a_definition(a_step("a"), a_step("b"), timeout_s=5.0))
    walk.feed()
    walk.now = walk.now.replace(second=30)
    changes = walk.feed(TakenOver())
    assert changes.start == []
    assert walk.run.status is RunStatus.TIMED_OUT
    assert set(walk.statuses().values()) == {StepStatus.TIMED_OUT}


@pytest.mark.parametrize("event", [TakenOver(), AttemptEnded(A, 1, FAILED)])
def test_cancelled_in_the_moment_of_another_attempt(event: Event) -> None:
    """The attempt that would follow is not started, because nobody could kill it."""
    walk = Walk(a_definition(a_step("a", retry=AGAIN)))
    walk.feed()
    changes = walk.feed(event, CancelAsked("somebody"))
    assert (changes.start, changes.kill) == ([], [])
    assert walk.run.status is RunStatus.CANCELLED
    assert walk.statuses() == {"a": StepStatus.CANCELLED}


def test_given_up_while_an_item_waits_for_its_next_attempt() -> None:
    """Items of what tidies up that were not begun are not waited for, whether or not one runs at that moment."""
    retry = RetryPolicy(max_attempts=2, delay_s=1.0)
    tidy = a_step("tidy", foreach=[1, 2, 3], max_parallel=1, retry=retry)
    walk = Walk(a_definition(a_step("a"), final=(tidy,)))
    walk.feed()
    walk.end(("a", None), SUCCEEDED)
    walk.end(("tidy", 0), FAILED)
    walk.feed(CancelAsked("somebody"))
    assert walk.run.status is RunStatus.CANCELLED
    assert walk.steps["tidy", None].status is StepStatus.CANCELLED
