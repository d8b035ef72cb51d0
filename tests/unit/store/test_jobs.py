"""The queue between coroutines and threads."""

import asyncio
import itertools
import threading

import pytest

from sandgate.core.errors import StoreUnavailable
from sandgate.store import jobs
from sandgate.store.jobs import Job, JobQueue, Outcome, settle
from sandgate.store.writer import Patience


def _job() -> Job:
    loop = asyncio.get_running_loop()
    return Job(lambda _connection: None, loop, loop.create_future())


async def test_jobs_are_taken_in_order_and_in_groups() -> None:
    """At most as many as asked for, without waiting for more."""
    queue = JobQueue()
    queued = [_job() for _ in range(5)]
    for job in queued:
        queue.put(job)
    assert queue.take(3) == queued[:3]
    assert queue.take(3) == queued[3:]


async def test_a_withdrawn_job_is_not_taken() -> None:
    """Either the thread has it or the withdrawer."""
    queue = JobQueue()
    first, second, third = [_job() for _ in range(3)]
    for job in (first, second, third):
        queue.put(job)
    assert [queue.withdraw(first), queue.withdraw(first), queue.withdraw(third)] == [True, False, True]
    assert queue.take(1) == [second]
    assert not queue.withdraw(second)
    queue.close()
    assert queue.take(1) == []


async def test_a_closed_queue_is_emptied_and_then_ends_every_taker() -> None:
    """What waits is still taken, more is refused, and each thread is told."""
    queue = JobQueue()
    job = _job()
    queue.put(job)
    queue.close()
    queue.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        queue.put(_job())
    assert queue.take(9) == [job]
    ended: list[list[Job]] = []
    threads = [threading.Thread(target=lambda: ended.append(queue.take(1))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ended == [[], [], []]


async def test_a_full_queue_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was withdrawn counts until a thread has passed it by."""
    monkeypatch.setattr(jobs, "MOST_WAITING", 2)
    queue = JobQueue()
    first, second = _job(), _job()
    queue.put(first)
    queue.put(second)
    queue.withdraw(first)
    with pytest.raises(StoreUnavailable, match="too slow"):
        queue.put(_job())
    assert queue.take(1) == [second]
    queue.put(_job())


async def test_outcomes_reach_their_futures() -> None:
    """Values and errors; who no longer waits is passed over."""
    value, error, cancelled = _job(), _job(), _job()
    cancelled.future.cancel()
    settle([Outcome(value, 5), Outcome(error, error=ZeroDivisionError()), Outcome(cancelled, 6)])
    assert await value.future == 5
    with pytest.raises(ZeroDivisionError):
        await error.future
    assert cancelled.future.cancelled()


def test_outcomes_of_a_closed_loop_are_passed_over() -> None:
    """Their work is done; the thread goes on."""
    loop = asyncio.new_event_loop()
    job = Job(lambda _connection: None, loop, loop.create_future())
    loop.close()
    settle([Outcome(job, 5)])


async def test_more_are_taken_without_waiting() -> None:
    """Those that are there, none where none are, and the end stays for the next call."""
    queue = JobQueue()
    first, second, third = [_job() for _ in range(3)]
    assert queue.take_more(9) == []
    for job in (first, second, third):
        queue.put(job)
    queue.withdraw(second)
    assert queue.take_more(2) == [first]
    queue.close()
    assert (queue.take_more(9), queue.take_more(9), queue.take(9)) == ([third], [], [])


def _waits(patience: Patience, jobs: list[int], joined: int) -> list[bool]:
    """Before which of the commits of so many jobs it is waited, when so many join each time."""
    waits = []
    for count in jobs:
        waits.append(patience.is_worth_it(count))
        if waits[-1]:
            patience.note(joined)
    return waits


def test_a_commit_waits_where_others_join() -> None:
    """It begins with three, goes on with two, and whoever writes alone never waits."""
    assert _waits(Patience(), [1, 2, 3, 2, 2, 1, 2], joined=1) == [False, False, True, True, True, False, True]
    assert not any(_waits(Patience(), [1, 2] * 100, joined=1))


def test_a_commit_without_room_waits_for_nobody() -> None:
    """And learns nothing from that."""
    assert _waits(Patience(), [255, 256, 257, 3], joined=1) == [True, False, False, True]


def test_a_commit_that_nobody_joins_waits_ever_more_seldom() -> None:
    """Where three take turns, as good as all commits leave at once."""
    waits = _waits(Patience(), [3] * 1000, joined=0)
    at = [place for place, waited in enumerate(waits) if waited]
    assert at[:5] == [0, 2, 5, 10, 19]
    assert {later - before for before, later in itertools.pairwise(at[8:])} == {65}


def test_a_commit_that_is_joined_again_waits_as_before() -> None:
    """What was learnt while it was quiet is forgotten."""
    patience = Patience()
    _waits(patience, [3] * 30, joined=0)
    assert any(_waits(patience, [3] * 64, joined=1))
    assert all(_waits(patience, [2] * 30, joined=1))
