"""The background tasks of a service, each with an owner."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sandgate.telemetry.log import get_logger

ResultT = TypeVar("ResultT")

_log = get_logger(__name__)


class TaskOwner:
    """Holds tasks until they end, so that none is collected early and none outlives its service.

    A task of :meth:`spawn` that raises is a bug: it is logged and ``on_fault`` is told, so that the process can stop.
    """

    def __init__(self, on_fault: Callable[[BaseException], None] | None = None) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_fault = on_fault

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, ResultT], name: str) -> asyncio.Task[ResultT]:
        """Run ``work`` in the background."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def finish(self, work: Coroutine[Any, Any, ResultT], name: str) -> ResultT:
        """Run ``work`` to its end even if the caller is cancelled while it waits; raises what ``work`` raises."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def settle(self, within_s: float) -> None:
        """Wait for what still runs, and for what that starts, then cancel the rest and wait for that too."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while self._tasks and loop.time() < deadline:
            await asyncio.wait(self._tasks, timeout=deadline - loop.time())
        pending = list(self._tasks)
        for task in pending:
            task.cancel()
        if pending:
            _log.warning("tasks cancelled at the end", tasks=sorted(task.get_name() for task in pending))
            await asyncio.wait(pending)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            _log.error("background task failed", task=task.get_name(), exc_info=fault)
            if self._on_fault is not None:
                self._on_fault(fault)
