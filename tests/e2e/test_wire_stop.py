"""Stopping the server while clients are connected."""

import asyncio
import threading
import time

import pytest

from sandgate.http import server as server_module
from tests.e2e.wire_app import held_came, held_go, make_app
from tests.e2e.wire_server import serving


def test_stopping_answers_what_is_under_way() -> None:
    """No connection is taken any more, idle ones end, the service stops, then the last answers leave."""
    with serving(make_app) as server, server.connect() as busy, server.connect() as idle:
        idle.ask("GET", "/")
        assert idle.answer().status == 200
        held_came.clear()
        held_go.clear()
        busy.ask("GET", "/held")
        assert held_came.wait(60)
        entered, leave = threading.Event(), threading.Event()

        async def hold() -> None:
            entered.set()
            await asyncio.get_running_loop().run_in_executor(None, leave.wait)

        server.before_drained = hold
        server.begin_to_stop()
        assert entered.wait(60)
        assert idle.is_closed()
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        held_go.set()
        answer = busy.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert server.drained == []
        leave.set()
        server.join()
        assert server.drained == ["drained", "served"]


def test_stopping_does_not_wait_for_idle_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a head, and an answer that nobody reads, are cut off."""
    monkeypatch.setattr(server_module, "_LAST_ANSWERS_S", 1)
    with serving(make_app) as server, server.connect() as half, server.connect() as deaf:
        half.send("GET / HT")
        deaf.ask("GET", "/large")
        with server.connect() as other:
            other.ask("GET", "/")
            assert other.answer().status == 200
        begun = time.monotonic()
        server.begin_to_stop()
        server.join()
        assert time.monotonic() - begun < 40
