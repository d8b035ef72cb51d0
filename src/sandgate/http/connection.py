"""Notices when the client of a long request goes away; and leaves it in the middle of an answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.types import Receive, Scope

ResultT = TypeVar("ResultT")

# Requests that are answered sooner are not watched, so that watching costs them next to nothing.
_WATCHED_AFTER_S = 0.05
_CUT = "sandgate.cut"


class ClientGone(Exception):
    """The client has closed the connection; there is nobody to answer."""


class AnswerCutOff(Exception):
    """An answer that others give has ended in its middle; whoever reads it has to see that it is not whole."""


def offer_cut(scope: Scope, cut: Callable[[], None]) -> None:
    """Let whoever serves the request close the connection in the middle of the answer."""
    scope.setdefault("extensions", {})[_CUT] = cut


def find_cut(scope: Scope) -> Callable[[], None] | None:
    """How to close the connection of a request; None where there is none."""
    cut: Callable[[], None] | None = scope.get("extensions", {}).get(_CUT)
    return cut


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
