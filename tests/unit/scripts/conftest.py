"""A machine of its own for each test."""

from pathlib import Path

import pytest

from tests.unit.scripts.fresh import Fresh


@pytest.fixture
def machine(tmp_path: Path) -> Fresh:
    """A machine that has nothing but what every system has; its user is root."""
    return Fresh(tmp_path)
