"""An environment that attacks, a neighbour that must notice nothing, and the launchers that hold both."""

from collections.abc import AsyncIterator

import pytest

from tests.runtime.conftest import process, process_host, standard, standard_host
from tests.runtime.hosts import Bench
from tests.security.siege import Siege

__all__ = ["process", "process_host", "siege", "standard", "standard_host"]


@pytest.fixture
async def siege(standard: Bench) -> AsyncIterator[Siege]:
    """An attacker and a neighbour; the neighbour and the service have to answer after the test, too."""
    besieged = Siege(standard, await standard.make(), await standard.make())
    assert await standard.works(besieged.neighbour)
    yield besieged
    await besieged.everybody_answers()
