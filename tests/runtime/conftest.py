"""One launcher for each isolation class, and a runtime for each test."""

from collections.abc import AsyncIterator, Iterator
from types import ModuleType

import pytest

from sandgate.core.states import Isolation
from tests.abilities import is_tried_on_gvisor
from tests.runtime.hosts import Bench, LauncherHost, launcher_host
from tests.runtime.lending import LendingBench

_GVISOR = pytest.param(Isolation.GVISOR, marks=pytest.mark.needs_gvisor)
_STANDARD = pytest.param(Isolation.STANDARD, marks=pytest.mark.needs_root_namespaces)
WALLED = (_STANDARD, _GVISOR)


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


async def _lending(host: LauncherHost, counts: bool) -> AsyncIterator[Bench]:
    bench = LendingBench(host, host.runtime())
    await bench.runtime.start(bench.on_end)
    if counts:
        await bench.clear_out()
    yield bench
    await bench.take_back()
    await bench.runtime.stop(keep_sandboxes=True)


async def connect(host: LauncherHost, module: ModuleType) -> AsyncIterator[Bench]:
    """A runtime of the tests of every class; a module that ``COUNTS`` processes finds none of other tests'."""
    lends = host.isolation is Isolation.GVISOR
    counts = getattr(module, "COUNTS", False)
    async for bench in _lending(host, counts) if lends else _connected(host):
        yield bench


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
    """Each class in turn for a test of a ``bench``, each with walls for one that is ``walled``.

    The marker ``not_on_gvisor`` says why one leaves out the gvisor class.
    """
    gvisor = [_GVISOR] if is_tried_on_gvisor(metafunc) else []
    if "bench" in metafunc.fixturenames:
        metafunc.parametrize("bench", [_STANDARD, *gvisor, Isolation.PROCESS], indirect=True)
    if "walled" in metafunc.fixturenames:
        metafunc.parametrize("walled", [_STANDARD, *gvisor], indirect=True)


async def _beside_a_neighbour(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A runtime; of a test that is an ``attack``, with a neighbour, who and the launcher have to answer afterwards."""
    host: LauncherHost = request.getfixturevalue(f"{request.param}_host")
    attacks = request.node.get_closest_marker("attack") is not None
    async for bench in connect(host, request.module):
        if attacks:
            await bench.add_neighbour()
        yield bench
        if attacks:
            await bench.everybody_answers()


@pytest.fixture
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A runtime of each class in turn, for what all promise."""
    async for bench in _beside_a_neighbour(request):
        yield bench


@pytest.fixture
async def walled(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A runtime of each class that puts up walls, in turn."""
    async for bench in _beside_a_neighbour(request):
        yield bench
