"""One server that tests kill, one after the other, in all its parts."""

from collections.abc import Iterator

import pytest

from tests.crash.chaos import ChaosServer
from tests.crash.server_process import CrashServer


@pytest.fixture(scope="session")
def hardy_server() -> Iterator[ChaosServer]:
    """A server whose gateway may die as often as all tests together like."""
    with ChaosServer({"SANDGATE_DRAIN_GRACE_S": "0.3"}) as running:
        yield running


@pytest.fixture
def server(hardy_server: ChaosServer) -> CrashServer:
    """The server, every part of it well again, whatever the last test did to it."""
    hardy_server.revive()
    hardy_server.until_ready().close()
    return hardy_server
