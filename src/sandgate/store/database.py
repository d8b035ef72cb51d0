"""One database, used from coroutines: many readers, one writer that commits in groups."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from sqlalchemy import Connection

from sandgate.core.errors import StoreUnavailable
from sandgate.store.connections import DEADLINE_S, Link, Location, connector_for
from sandgate.store.jobs import Job, JobQueue
from sandgate.store.readers import Readers
from sandgate.store.writer import Writer

ResultT = TypeVar("ResultT")


class Database:
    """The threads and connections of one database.

    ``checkpoint`` is False in every process but the server: see ``sqlite.py``.
    """

    def __init__(
        self, location: Location, read_threads: int = 4, *, checkpoint: bool = True, deadline_s: float = DEADLINE_S
    ) -> None:
        self._deadline_s = deadline_s
        self._connector = connector_for(location, checkpoint=checkpoint, deadline_s=deadline_s)
        self._writes = JobQueue()
        self._reads = JobQueue()
        self._writer = Writer(self._writes, Link(self._connector.writer, self._connector.identity))
        self._readers = Readers(self._reads, self._make_read_link, read_threads)

    @property
    def is_shared(self) -> bool:
        """Whether servers beside this one may use the database."""
        return self._connector.writer.dialect.name == "postgresql"

    async def open(self, prepare: Callable[[Connection], None] = lambda _connection: None) -> None:
        """Make a file that does not exist, connect, and run ``prepare`` on the writer's connection.

        Raises ``StoreUnavailable``, ``ConfigurationError``, and what ``prepare`` raises.
        """
        with ExitStack() as undo:
            undo.callback(self._reads.close)
            undo.callback(self._writes.close)
            await asyncio.to_thread(self._connector.create)
            await asyncio.wrap_future(self._writer.start(prepare))
            undo.pop_all()
        self._readers.start()

    async def write(
        self,
        work: Callable[[Connection], ResultT],
        *,
        repeatable: bool = False,
        last: bool = False,
        turn: str | None = None,
    ) -> ResultT:
        """Run ``work`` inside a transaction and answer its result once that is durable.

        ``work`` may be run more than once, each time but the last undone, and shares its transaction with others:
        it must not commit. What it raises undoes its own writes only. With ``repeatable``, it is also run again
        when it may have been committed already; with ``last``, it comes behind the others of its transaction; with a
        ``turn``, no other work of the same is under way, and it sees what that has written. Goes on when the caller is
        cancelled. Raises ``StoreUnavailable``; with ``details["outcome"] == "unknown"`` when it may
        have been done.
        """
        return await self._run(self._writes, work, repeatable, last, turn)

    async def read(self, work: Callable[[Connection], ResultT]) -> ResultT:
        """Run ``work``, each statement of which sees everything committed before; raises ``StoreUnavailable``."""
        return await self._run(self._reads, work, repeatable=True)

    async def close(self) -> None:
        """Finish the accepted work and disconnect; raises ``StoreUnavailable`` when that takes too long."""
        if not await asyncio.to_thread(self._shut_down):
            raise StoreUnavailable(f"The database did not finish its work within {self._deadline_s:g} s.")

    def _shut_down(self) -> bool:
        # The writer's connection goes last: the last one moves SQLite's log into the database.
        self._reads.close()
        readers_ended = self._readers.join(self._deadline_s)
        self._writes.close()
        return self._writer.join(self._deadline_s) and readers_ended

    def _make_read_link(self) -> Link:
        return Link(self._connector.reader, self._connector.identity)

    async def _run(
        self,
        queue: JobQueue,
        work: Callable[[Connection], ResultT],
        repeatable: bool,
        last: bool = False,
        turn: str | None = None,
    ) -> ResultT:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ResultT] = loop.create_future()
        job = Job(work, loop, future, repeatable, last, turn)
        queue.put(job)
        timer = loop.call_later(self._deadline_s, self._expire, queue, job)
        try:
            return await future
        finally:
            timer.cancel()

    def _expire(self, queue: JobQueue, job: Job) -> None:
        if job.future.done():
            return
        if queue.withdraw(job):
            error = StoreUnavailable(f"The database was busy for {self._deadline_s:g} s. Nothing was done; try later.")
        else:
            error = StoreUnavailable(
                f"The database did not answer within {self._deadline_s:g} s. What was asked may still be done: look "
                "before doing it again.",
                {"outcome": "unknown"},
            )
        job.future.set_exception(error)
