"""An environment that attacks, a neighbour that must notice nothing, and the launchers that hold both."""

from collections.abc import AsyncIterator

import pytest

from tests.abilities import is_tried_on_gvisor
from tests.runtime.conftest import WALLED, connect, gvisor_host, process, process_host, standard, standard_host
from tests.runtime.hosts import LauncherHost
from tests.security.siege import Siege

__all__ = ["gvisor_host", "process", "process_host", "siege", "standard", "standard_host"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each class with walls in turn, but for what is marked ``not_on_gvisor``."""
    if "siege" in metafunc.fixturenames:
        metafunc.parametrize("siege", WALLED if is_tried_on_gvisor(metafunc) else WALLED[:1], indirect=True)


@pytest.fixture
async def siege(request: pytest.FixtureRequest) -> AsyncIterator[Siege]:
    """An attacker and a neighbour; the neighbour and the service have to answer after the test, too."""
    host: LauncherHost = request.getfixturevalue(f"{request.param}_host")
    async for bench in connect(host, request.module):
        besieged = Siege(bench, await bench.make(), await bench.make())
        assert await bench.works(besieged.neighbour)
        yield besieged
        await besieged.everybody_answers()
