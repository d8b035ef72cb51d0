"""The queue between coroutines and threads."""

import asyncio
import threading

import pytest

from sandgate.core.errors import StoreUnavailable
from sandgate.store import jobs
from sandgate.store.jobs import Job, JobQueue, Outcome, settle


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
