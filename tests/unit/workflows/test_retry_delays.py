"""How long a step waits before it is tried again."""

import pytest

from sandgate.core.ids import RunId
from sandgate.core.run import StepRun
from sandgate.core.workflow import RetryPolicy
from sandgate.workflows.retries import MOST_LOSSES, delay_before_next, may_try_again


def _row(attempt: int, losses: int = 0, attempts_before: int = 0) -> StepRun:
    return StepRun(run_id=RunId("r"), step="s", attempt=attempt, losses=losses, attempts_before=attempts_before)


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        (RetryPolicy(delay_s=1, backoff=2), [1, 2, 4, 8]),
        (RetryPolicy(delay_s=0.5, backoff=1), [0.5, 0.5, 0.5, 0.5]),
        (RetryPolicy(delay_s=2, backoff=3, max_delay_s=10), [2, 6, 10, 10]),
        (RetryPolicy(delay_s=0, backoff=100), [0, 0, 0, 0]),
    ],
)
def test_waits_grow_to_their_bound(policy: RetryPolicy, waits: list[float]) -> None:
    """By the factor, from the delay to the longest."""
    assert [delay_before_next(policy, _row(attempt), "failed") for attempt in (1, 2, 3, 4)] == waits


def test_a_factor_beyond_all_numbers_waits_the_longest() -> None:
    """A hundred attempts at a factor of a hundred hundred times over are no float."""
    assert delay_before_next(RetryPolicy(delay_s=1, backoff=1e300), _row(100), "failed") == 300


def test_what_the_machine_lost_neither_waits_nor_counts() -> None:
    """The next attempt of one comes at once, and those of the code wait as if it had not been."""
    policy = RetryPolicy(max_attempts=2, delay_s=1)
    assert delay_before_next(policy, _row(3, losses=2), "lost") == 0
    assert delay_before_next(policy, _row(4, losses=3), "failed") == 1
    assert may_try_again(policy, _row(4, losses=3), "failed")
    assert not may_try_again(policy, _row(5, losses=3), "failed")
    assert not may_try_again(policy, _row(MOST_LOSSES, losses=MOST_LOSSES), "lost")


def test_a_retried_run_counts_anew() -> None:
    """Attempts before the retry of the run are neither counted nor waited for."""
    policy = RetryPolicy(max_attempts=2, delay_s=1)
    assert may_try_again(policy, _row(3, attempts_before=2), "failed")
    assert delay_before_next(policy, _row(3, attempts_before=2), "failed") == 1
