"""Many connections from one address, on the real server."""

import contextlib
import socket
import time

import pytest

from tests.e2e.wire_app import make_app
from tests.e2e.wire_server import PATIENCE_S, Wire, serving


def test_connections_of_one_address_are_bounded() -> None:
    """Whoever has too many is told so, others are served, and a place that was given back is there again."""
    with serving(make_app, max_connections_per_address=2) as server, contextlib.ExitStack() as held:
        wires = [held.enter_context(server.connect()) for _ in range(2)]
        for wire in wires:
            wire.ask("GET", "/")
            assert wire.answer().status == 200
        with server.connect() as crowding:
            answer = crowding.answer()
            assert (answer.status, answer.code) == (503, "TOO_MANY_CONNECTIONS")
        other = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S, source_address=("127.0.0.2", 0))
        with Wire(other) as elsewhere:
            elsewhere.ask("GET", "/")
            assert elsewhere.answer().status == 200
        wires[0].sock.close()
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with server.connect() as again:
                again.ask("GET", "/")
                if again.answer().status == 200:
                    return
        pytest.fail("the place was not given back")


def test_a_trusted_proxy_may_have_many_connections() -> None:
    """They are those of its clients."""
    with (
        serving(make_app, max_connections_per_address=1, trusted_proxies="127.0.0.0/8") as server,
        server.connect() as one,
        server.connect() as two,
    ):
        for wire in (one, two):
            wire.ask("GET", "/")
            assert wire.answer().status == 200
