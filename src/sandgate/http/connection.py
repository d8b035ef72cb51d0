"""Notices when the client of a long request goes away."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

ResultT = TypeVar("ResultT")

# Requests that are answered sooner are not watched, so that watching costs them next to nothing.
_WATCHED_AFTER_S = 0.05


class ClientGone(Exception):
    """The client has closed the connection; there is nobody to answer."""


async def while_connected(receive: Receive, work: Awaitable[ResultT]) -> ResultT:
    """What ``work`` comes to; cancels it when the client goes away, and then raises ``ClientGone``.

    The body of the request must have been read.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    watcher: asyncio.Task[None] | None = None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        if task is not None:
            task.cancel()

    def begin_to_watch() -> None:
        nonlocal watcher
        watcher = loop.create_task(watch(), name="watch client")

    timer = loop.call_later(_WATCHED_AFTER_S, begin_to_watch)
    try:
        return await work
    except asyncio.CancelledError:
        # Cancelled by the watcher and by nobody else.
        if gone and task is not None and task.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()
