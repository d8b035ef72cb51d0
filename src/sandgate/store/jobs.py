"""The way from coroutines to the threads that hold the connections, and back."""

import asyncio
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from sqlalchemy import Connection

from sandgate.core.errors import StoreUnavailable

MOST_WAITING = 4096


@dataclass(slots=True, eq=False)
class Job:
    """Work for a connection, and the future of the coroutine that waits for it.

    ``repeatable`` work may be done twice with the same outcome as once. ``last`` is work that takes a lock which all
    servers want: done behind everything else of its transaction, so that whoever has the lock waits for nobody.
    Of those with the same ``turn``, on all servers of a database, one transaction is under way at a time.
    """

    work: Callable[[Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    repeatable: bool = False
    last: bool = False
    turn: str | None = None


@dataclass(slots=True)
class Outcome:
    """What a job came to: a value, or an error."""

    job: Job
    value: Any = None
    error: Exception | None = None


class JobQueue:
    """Jobs that wait for a thread, first come first served; at most ``MOST_WAITING``."""

    def __init__(self) -> None:
        # Wakes a sleeping thread at two thirds of the cost of a condition. None is the end.
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        # Whoever removes a job from here, a thread or the withdrawer, has it. Single operations on it are atomic.
        self._waiting: dict[int, Job] = {}
        self._put = threading.Lock()
        self._closed = False

    def put(self, job: Job) -> None:
        """Add a job; raises ``StoreUnavailable`` when the queue is full or closed."""
        with self._put:
            if self._closed:
                raise StoreUnavailable("The database is closed: the service is stopping.")
            # Counts what was withdrawn too, which is in memory until a thread comes by.
            if self._queue.qsize() >= MOST_WAITING:
                raise StoreUnavailable(f"The database is too slow: {MOST_WAITING} requests wait for it. Try later.")
            self._waiting[id(job)] = job
            self._queue.put(job)

    def take(self, most: int) -> list[Job]:
        """Wait for jobs and take at most ``most``; none means that the queue is closed and empty."""
        taken: list[Job] = []
        while not taken:
            # With ``most`` above 1 there is but one taker, so that what is counted is still there.
            if not self._take_up_to(max(1, min(most, self._queue.qsize())), taken):
                return taken
        return taken

    def take_more(self, most: int) -> list[Job]:
        """Those that are there now, at most ``most``; for the only taker."""
        taken: list[Job] = []
        self._take_up_to(min(most, self._queue.qsize()), taken)
        return taken

    def _take_up_to(self, count: int, taken: list[Job]) -> bool:
        """False at the end, beyond which there is nothing."""
        for _ in range(count):
            job = self._queue.get()
            if job is None:
                # Left for the other threads, and for the next call.
                self._queue.put(None)
                return False
            if self._waiting.pop(id(job), None) is not None:
                taken.append(job)
        return True

    def withdraw(self, job: Job) -> bool:
        """Take back a job that no thread has taken; False when it is too late."""
        return self._waiting.pop(id(job), None) is not None

    def close(self) -> None:
        """Take no more jobs; those that wait are still done."""
        with self._put:
            if not self._closed:
                self._closed = True
                self._queue.put(None)


def settle(outcomes: Iterable[Outcome]) -> None:
    """Hand every outcome to its coroutine, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome.job.loop, []).append(outcome)
    for loop, of_loop in by_loop.items():
        try:
            loop.call_soon_threadsafe(_deliver, of_loop)
        except RuntimeError:
            # The loop was closed: nobody waits any more. The work is done all the same.
            continue


def _deliver(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        future = outcome.job.future
        if future.done():
            continue
        if outcome.error is not None:
            future.set_exception(outcome.error)
        else:
            future.set_result(outcome.value)
