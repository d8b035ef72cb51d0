"""A small application for trying what clients can do to connections."""

import asyncio
import json
import threading

from starlette.types import ASGIApp, Receive, Scope, Send

from sandgate.http.answer import Answer
from sandgate.http.bodies import read_body
from sandgate.http.boundary import Boundary
from sandgate.http.connection import while_connected
from sandgate.http.metrics import HttpMetrics
from tests.e2e.wire_server import PATIENCE_S, Wire

BODY_LIMIT = 100_000


watched_came, watched_ended = threading.Event(), threading.Event()
large_sent = threading.Event()
held_came, held_go = threading.Event(), threading.Event()


async def _work_for_ever() -> None:
    watched_came.set()
    try:
        await asyncio.Event().wait()
    finally:
        watched_ended.set()


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """Says what it was asked; ``/slow`` answers after a while, ``/large`` at length, ``/unread`` reads no body.

    ``/held`` answers when it is let go. ``/watched`` never answers, and ends when its client goes away.
    """
    body = b"" if scope["path"] == "/unread" else await read_body(scope, receive, BODY_LIMIT)
    if scope["path"] == "/watched":
        await while_connected(receive, _work_for_ever())
    if scope["path"] == "/held":
        held_came.set()
        await asyncio.get_running_loop().run_in_executor(None, held_go.wait, 60)
    if scope["path"] == "/slow":
        await asyncio.sleep(0.15)
    if scope["path"] == "/large":
        await Answer(200, b"x" * 8_000_000).send(send)
        large_sent.set()
        return
    said = {"method": scope["method"], "path": scope["path"], "body": len(body)}
    await Answer(200, json.dumps(said).encode()).send(send)


async def make_app() -> ASGIApp:
    """The application."""
    return Boundary(_app, HttpMetrics())


def ask_and_be_held(wire: Wire) -> None:
    """Ask for what is not answered before ``held_go`` is set, and wait until that is worked on."""
    held_came.clear()
    held_go.clear()
    wire.ask("GET", "/held")
    assert held_came.wait(PATIENCE_S)
