"""The one thread that writes: what arrives together shares one transaction and one flush."""

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future

import sqlalchemy.exc
from sqlalchemy import Connection, RootTransaction

from sandgate.store import faults
from sandgate.store.connections import Link
from sandgate.store.jobs import Job, JobQueue, Outcome, settle

# Bounds how long the first of a batch waits for the last.
MOST_IN_A_BATCH = 256


class Writer:
    """Runs queued jobs on its own connection, in the order they came."""

    def __init__(self, jobs: JobQueue, link: Link) -> None:
        self._jobs = jobs
        self._link = link
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
        while jobs := self._jobs.take(MOST_IN_A_BATCH):
            settle(commit(self._link, jobs))
        self._link.drop()


def commit(link: Link, jobs: list[Job]) -> list[Outcome]:
    """Do the jobs in one transaction; if that fails, each in its own, so that one does not fail its neighbours."""
    try:
        return _attempt(link, jobs)
    except faults.UnreachableError as error:
        return _fail_all(jobs, error)
    except faults.CommitUnknownError as error:
        known = [job for job in jobs if job.repeatable]
        unknown = [job for job in jobs if not job.repeatable]
        return _each_alone(link, known) + _fail_all(unknown, error)
    except Exception as error:
        if len(jobs) == 1 and not faults.is_lost(error):
            return _fail_all(jobs, error)
        # Nothing of the batch was kept, so that doing it again is safe. A lone job comes here when the connection
        # had been lost before: it gets one more try on a new one.
        return _each_alone(link, jobs)


def _each_alone(link: Link, jobs: list[Job]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for position, job in enumerate(jobs):
        try:
            outcomes += _attempt(link, [job])
        except faults.UnreachableError as error:
            return outcomes + _fail_all(jobs[position:], error)
        except Exception as error:
            outcomes += _fail_all([job], error)
    return outcomes


def _fail_all(jobs: list[Job], error: Exception) -> list[Outcome]:
    # An exception of its own for each: a traceback grows where it is raised.
    return [Outcome(job, error=faults.translate(error)) for job in jobs]


def _attempt(link: Link, jobs: list[Job]) -> list[Outcome]:
    """One transaction with all the jobs: done when this returns, not done when it raises.

    Raises ``CommitUnknownError`` when only the database knows.
    """
    connection = link.connection()
    transaction = _begin(connection)
    try:
        outcomes = [Outcome(job, job.work(connection)) for job in jobs]
    except BaseException:
        _roll_back(link, connection)
        raise
    try:
        transaction.commit()
    except Exception as error:
        _roll_back(link, connection)
        if faults.is_lost(error):
            raise faults.CommitUnknownError from error
        raise
    return outcomes


def _begin(connection: Connection) -> RootTransaction:
    """Start a transaction.

    Raises ``UnreachableError`` when a lock was waited for in vain: that is no job's fault, and fails the whole batch.
    """
    try:
        return connection.begin()
    except (sqlalchemy.exc.DBAPIError, sqlite3.Error) as error:
        raise faults.UnreachableError(faults.cause_of(error)) from error


def _roll_back(link: Link, connection: Connection) -> None:
    """End the transaction; a connection that cannot even do that is given up."""
    try:
        connection.rollback()
    except Exception:
        link.drop()
