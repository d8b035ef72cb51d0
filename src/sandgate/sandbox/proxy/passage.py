"""Bytes on their way through, in both directions at once, for as long as they flow."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from sandgate.core.byte_stream import Stream
from sandgate.sandbox.proxy.ledger import Entry
from sandgate.sandbox.proxy.problems import Problem, Reason

_LOOKS = 4


Way = Coroutine[Any, Any, None]


async def run_both(entry: Entry, up: Way, down: Way, *, idle_s: float, lifetime_s: float, is_tunnel: bool) -> None:
    """Run two directions of a connection until both are through, or without a tunnel ``down`` alone.

    Raises what they raise, and ``Problem`` when nothing moves for ``idle_s`` or it takes longer than ``lifetime_s``.
    """
    began = time.monotonic()
    tasks = (asyncio.ensure_future(up), asyncio.ensure_future(down))
    waiting: set[asyncio.Future[None]] = set(tasks)
    try:
        while waiting and (is_tunnel or not tasks[1].done()):
            done, waiting = await asyncio.wait(
                waiting, timeout=min(idle_s, lifetime_s) / _LOOKS, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
            now = time.monotonic()
            if now - entry.used_at > idle_s:
                raise Problem(Reason.TIMED_OUT, f"nothing was sent for {idle_s:g} s")
            if now - began > lifetime_s:
                raise Problem(Reason.TIMED_OUT, f"a connection may be open for {lifetime_s:g} s")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _copy(source: Stream, target: Stream, count: Callable[[int], None]) -> None:
    while data := await source.receive():
        count(len(data))
        await target.send(data)
    target.end()


async def tunnel(
    client: Stream, server: Stream, entry: Entry, early: bytes, *, idle_s: float, lifetime_s: float
) -> None:
    """Pass on whatever comes, until both have said that nothing more will. Raises ``OSError``, ``Problem``."""
    if early:
        entry.count(sent=len(early))
        await server.send(early)
    await run_both(
        entry,
        _copy(client, server, lambda size: entry.count(sent=size)),
        _copy(server, client, lambda size: entry.count(received=size)),
        idle_s=idle_s,
        lifetime_s=lifetime_s,
        is_tunnel=True,
    )
