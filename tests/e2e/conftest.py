"""A real server, as an operator starts it, for all tests of this folder."""

from collections.abc import Iterator

import pytest

from bench.sandgate_server import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """``sandgate serve`` on a fresh state folder and a free port; stopped, and everything of it gone, at the end."""
    with Server() as running:
        yield running
