"""The threads that read, each on a connection of its own."""

import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from sandgate.store import faults
from sandgate.store.connections import Link
from sandgate.store.jobs import Job, JobQueue, Outcome, settle


class Readers:
    """Run queued jobs side by side."""

    def __init__(self, jobs: JobQueue, make_link: Callable[[], Link], threads: int) -> None:
        self._jobs = jobs
        self._make_link = make_link
        self._threads = [
            threading.Thread(target=self._run, name=f"sandgate-store-reader-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads; each connects when it gets its first job."""
        for thread in self._threads:
            thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the threads, which comes after the queue was closed; False when it takes longer."""
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        link = self._make_link()
        while jobs := self._jobs.take(1):
            # Nobody waits for the answer of a cancelled read.
            if not jobs[0].future.done():
                settle([read(link, jobs[0])])
        link.drop()


def read(link: Link, job: Job) -> Outcome:
    """Do a job; once more on a new connection when the old one turns out to be lost."""
    try:
        try:
            value = _attempt(link, job)
        except DBAPIError as error:
            if not faults.is_lost(error):
                raise
            value = _attempt(link, job)
    except Exception as error:
        return Outcome(job, error=faults.translate(error))
    return Outcome(job, value)


def _attempt(link: Link, job: Job) -> object:
    connection = link.connection()
    try:
        return job.work(connection)
    finally:
        # Each statement stood by itself; this only tells SQLAlchemy so.
        connection.rollback()
