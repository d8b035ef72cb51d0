"""The one thread that writes: what arrives together shares one transaction and one flush."""

import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack

from sqlalchemy import Connection, RootTransaction
from sqlalchemy.exc import DBAPIError

from sandgate.store import faults
from sandgate.store.connections import Link
from sandgate.store.jobs import Job, JobQueue, Outcome, settle
from sandgate.store.turns import Turns

# Bounds how long the first of a batch waits for the last.
MOST_IN_A_BATCH = 256
# How long several are kept from their commit for others to join: about as long as a commit takes.
_GATHER_S = 0.0015
_SOME, _MANY = 2, 3
_MOST_FRUITLESS = 64


class Patience:
    """Whether it is worth while to wait before a commit until more have come.

    A commit of ten costs little more than one of two, so that waiting pays where many write at a time; where two take
    turns it only costs time. So it begins with three at once, goes on with two as long as others join, and a wait that
    nobody joined is followed by one, two, four and up to 64 commits without. A job alone never waits.
    """

    def __init__(self) -> None:
        self._least = _MANY
        self._skipped = 1
        self._left = 0

    def is_worth_it(self, jobs: int) -> bool:
        """Asked before each commit."""
        if not self._least <= jobs < MOST_IN_A_BATCH:
            return False
        if self._left:
            self._left -= 1
            return False
        return True

    def note(self, joined: int) -> None:
        """So many came during a wait."""
        if joined:
            self._least, self._skipped = _SOME, 1
        else:
            self._least, self._left = _MANY, self._skipped
            self._skipped = min(2 * self._skipped, _MOST_FRUITLESS)


class Writer:
    """Runs queued jobs on its own connection, in the order they came."""

    def __init__(self, jobs: JobQueue, link: Link) -> None:
        self._jobs = jobs
        self._link = link
        self._turns = Turns()
        self._patience = Patience()
        self._thread: threading.Thread | None = None

    def start(self, prepare: Callable[[Connection], None]) -> "Future[None]":
        """Start the thread; the future is done once ``prepare`` ran on the new connection, or has its exception."""
        prepared: Future[None] = Future()
        # From here on it cannot be cancelled, so that the thread can always answer.
        prepared.set_running_or_notify_cancel()
        self._thread = threading.Thread(
            target=self._run, args=(prepare, prepared), name="sandgate-store-writer", daemon=True
        )
        self._thread.start()
        return prepared

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread, which comes after the queue was closed; False when it takes longer."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self, prepare: Callable[[Connection], None], prepared: "Future[None]") -> None:
        try:
            prepare(self._link.connection())
        except Exception as error:
            self._link.drop()
            prepared.set_exception(faults.translate(error))
            return
        prepared.set_result(None)
        with ExitStack() as undo:
            undo.callback(self._link.drop)
            # Should this thread die of a bug, whoever writes is refused rather than left to wait.
            undo.callback(self._jobs.close)
            while jobs := self._jobs.take(MOST_IN_A_BATCH):
                if self._patience.is_worth_it(len(jobs)):
                    time.sleep(_GATHER_S)
                    more = self._jobs.take_more(MOST_IN_A_BATCH - len(jobs))
                    self._patience.note(len(more))
                    jobs += more
                settle(commit(self._link, jobs, self._turns))


def commit(link: Link, jobs: list[Job], turns: Turns) -> list[Outcome]:
    """Do the jobs in one transaction; if that fails, each in its own, so that one does not fail its neighbours."""
    answer = _try(link, jobs, turns)
    match answer:
        case list():
            return answer
        case faults.UnreachableError():
            return _fail_all(jobs, answer)
        case faults.CommitUnknownError():
            repeatable = [job for job in jobs if job.repeatable]
            unknown = [job for job in jobs if not job.repeatable]
            return _each_alone(link, repeatable, turns) + _fail_all(unknown, answer)
        case _ if len(jobs) == 1 and not faults.is_lost(answer):
            return _fail_all(jobs, answer)
        case _:
            # Nothing of the batch was kept, so that doing it again is safe. A lone job comes here when the
            # connection had been lost before: it gets one more try on a new one.
            return _each_alone(link, jobs, turns)


def _each_alone(link: Link, jobs: list[Job], turns: Turns) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for position, job in enumerate(jobs):
        answer = _try(link, [job], turns)
        match answer:
            case list():
                outcomes += answer
            case faults.UnreachableError():
                return outcomes + _fail_all(jobs[position:], answer)
            case _:
                outcomes += _fail_all([job], answer)
    return outcomes


def _fail_all(jobs: list[Job], error: Exception) -> list[Outcome]:
    # An exception of its own for each: a traceback grows where it is raised.
    return [Outcome(job, error=faults.translate(error)) for job in jobs]


def _try(link: Link, jobs: list[Job], turns: Turns) -> list[Outcome] | Exception:
    try:
        return _attempt(link, jobs, turns)
    except Exception as error:
        return error


def _attempt(link: Link, jobs: list[Job], turns: Turns) -> list[Outcome]:
    """One transaction with all the jobs whose turn it is: done when this returns, not done when it raises.

    Raises ``CommitUnknownError`` when only the database knows.
    """
    connection = link.connection()
    transaction = _begin(connection)
    with ExitStack() as undo:
        undo.callback(_roll_back, link, connection)
        taken = turns.take(connection, {job.turn for job in jobs if job.turn is not None})
        refused = [job for job in jobs if job.turn in taken]
        allowed = [job for job in jobs if job.turn not in taken]
        outcomes = [Outcome(job, job.work(connection)) for job in sorted(allowed, key=_is_last)]
        _commit(transaction)
        undo.pop_all()
    return outcomes + _fail_all(refused, faults.TurnTakenError())


def _is_last(job: Job) -> bool:
    return job.last


def _begin(connection: Connection) -> RootTransaction:
    """Start a transaction.

    Raises ``UnreachableError`` when a lock was waited for in vain: that is no job's fault, and fails the whole batch.
    """
    try:
        return connection.begin()
    except (DBAPIError, sqlite3.Error) as error:
        raise faults.UnreachableError(faults.cause_of(error)) from error


def _commit(transaction: RootTransaction) -> None:
    try:
        transaction.commit()
    except DBAPIError as error:
        if faults.is_lost(error):
            raise faults.CommitUnknownError from error
        raise


def _roll_back(link: Link, connection: Connection) -> None:
    """End the transaction; a connection that cannot even do that is given up."""
    try:
        connection.rollback()
    except (DBAPIError, sqlite3.Error):
        link.drop()
