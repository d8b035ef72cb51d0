"""A service on rows in memory, with a clock that stands still."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandgate.core.clock import ManualClock
from tests.unit.auth.forge import Forge
from tests.unit.auth.memory import Desk, MemoryCredentials, MemoryUsers


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
def desk(tmp_path: Path, clock: ManualClock) -> Iterator[Desk]:
    """A process's authentication without any user."""
    opened = Desk.open(tmp_path, clock, MemoryUsers(), MemoryCredentials())
    yield opened
    opened.passwords.close()


@pytest.fixture
def other_desk(tmp_path: Path, desk: Desk) -> Iterator[Desk]:
    """Another process on the same rows, keys and clock: the command line, or a second gateway."""
    opened = Desk.open(tmp_path, desk.clock, desk.user_rows, desk.credential_rows)
    yield opened
    opened.passwords.close()


@pytest.fixture
def forge() -> Forge:
    """A forge with the keys of the server."""
    return Forge()
