"""One launcher for each isolation class, and a runtime for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest

from sandgate.core.states import Isolation
from tests.runtime.hosts import Bench, LauncherHost, launcher_host

_GVISOR = pytest.param(Isolation.GVISOR, marks=pytest.mark.needs_gvisor)
_STANDARD = pytest.param(Isolation.STANDARD, marks=pytest.mark.needs_root_namespaces)


@pytest.fixture(scope="session")
def standard_host() -> Iterator[LauncherHost]:
    """A launcher of the standard class."""
    with launcher_host(Isolation.STANDARD) as host:
        yield host


@pytest.fixture(scope="session")
def process_host() -> Iterator[LauncherHost]:
    """A launcher of the process class."""
    with launcher_host(Isolation.PROCESS) as host:
        yield host


@pytest.fixture(scope="session")
def gvisor_host() -> Iterator[LauncherHost]:
    """A launcher of the gvisor class."""
    with launcher_host(Isolation.GVISOR) as host:
        yield host


async def _connected(host: LauncherHost) -> AsyncIterator[Bench]:
    runtime = host.runtime()
    bench = Bench(host, runtime)
    await runtime.start(bench.on_end)
    yield bench
    for environment_id in bench.made:
        await bench.runtime.destroy(environment_id)
    await bench.runtime.stop(keep_sandboxes=True)


@pytest.fixture
async def standard(standard_host: LauncherHost) -> AsyncIterator[Bench]:
    """A runtime of the standard class."""
    async for bench in _connected(standard_host):
        yield bench


@pytest.fixture
async def gvisor(gvisor_host: LauncherHost) -> AsyncIterator[Bench]:
    """A runtime of the gvisor class."""
    async for bench in _connected(gvisor_host):
        yield bench


@pytest.fixture
async def process(process_host: LauncherHost) -> AsyncIterator[Bench]:
    """A runtime of the process class."""
    async for bench in _connected(process_host):
        yield bench


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each class in turn for a test of a ``bench``; the gvisor class, which is slow, for those that are marked."""
    if "bench" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker("also_gvisor") is not None
        metafunc.parametrize("bench", [_STANDARD, Isolation.PROCESS, *([_GVISOR] if marked else [])], indirect=True)


@pytest.fixture
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A runtime of each class in turn, for what all promise."""
    host: LauncherHost = request.getfixturevalue(f"{request.param}_host")
    async for bench in _connected(host):
        yield bench
