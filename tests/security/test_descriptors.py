"""The launcher at the limit of its descriptors: it refuses what is new, and loses nothing that it holds.

The limit is lowered while it runs, which root can do to any process.
"""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from sandgate.core.errors import MechanismFault, SandboxFailed
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.states import ExecutionStatus, Isolation
from sandgate.sandbox.base import SandboxSpec
from sandgate.sandbox.launcher.allowance import RESERVED
from tests.runtime.hosts import Bench, LauncherHost, available_versions, launcher_host, until
from tests.security.siege import Siege

pytestmark = pytest.mark.needs_root_namespaces

TEMPLATE = f"python-{available_versions()[-1]}"


@pytest.fixture(scope="module")
def cramped_host() -> Iterator[LauncherHost]:
    """A launcher of these tests' own."""
    with launcher_host(Isolation.STANDARD) as host:
        yield host


@pytest.fixture
async def cramped(cramped_host: LauncherHost) -> AsyncIterator[Siege]:
    """Two environments that are there before it gets tight; they have to answer afterwards, of the same zygote."""
    bench = Bench(cramped_host, cramped_host.runtime())
    await bench.runtime.start(bench.on_end)
    besieged = Siege(bench, await bench.make(), await bench.make())
    assert await bench.works(besieged.attacker)
    # It does one thing after the other: once this is answered, what it has handed over is closed on its side.
    await bench.runtime.check()
    zygotes, held = cramped_host.zygotes(), _held(cramped_host)
    yield besieged
    await besieged.everybody_answers()
    await until(lambda: cramped_host.zygotes() == zygotes, what=cramped_host.zygotes)
    assert bench.ended == []
    for environment_id in bench.made[2:]:
        await bench.runtime.destroy(environment_id)
    assert await bench.works(await bench.make())
    await bench.runtime.destroy(bench.made[-1])
    await until(lambda: _held(cramped_host) <= held)
    for environment_id in bench.made:
        await bench.runtime.destroy(environment_id)
    await bench.runtime.stop(keep_sandboxes=True)


def _held(host: LauncherHost) -> int:
    return len(os.listdir(f"/proc/{host.process.pid}/fd"))


def _full(host: LauncherHost, left: int) -> int:
    """The limit at which so many can be opened, and no more."""
    taken = set(map(int, os.listdir(f"/proc/{host.process.pid}/fd")))
    return [number for number in range(4096) if number not in taken][left]


@contextmanager
def _limit(host: LauncherHost, number: int) -> Iterator[None]:
    """Let the launcher have so many descriptors, for as long as the block lasts."""
    pid = host.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (number, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_more_sandboxes_than_descriptors(cramped: Siege) -> None:
    """As many are made as there is room for; the others are refused, with what there is to be done about it."""
    with _limit(cramped.bench.host, RESERVED + 40):
        made = await asyncio.gather(*(cramped.bench.make() for _each in range(60)), return_exceptions=True)
        refused = [each for each in made if isinstance(each, BaseException)]
        assert 10 <= len(made) - len(refused) <= 20
        assert all(isinstance(each, SandboxFailed) and "raise its limit of open files" in str(each) for each in refused)
        await cramped.everybody_answers()
    await until(lambda: len(cramped.bench.host.groups()) == 2 + len(made) - len(refused))


async def test_more_slots_than_descriptors(cramped: Siege) -> None:
    """Executions that lack a slot wait for one; those that have one run."""
    with _limit(cramped.bench.host, RESERVED + 24):
        code = "import time; time.sleep(0.1); print('ran')"
        running = [cramped.attacker.execute(ExecutionRequest(code, 60.0)) for _each in range(32)]
        ended = await asyncio.gather(*(each.wait() for each in running))
        assert {(each.status, each.stdout) for each in ended} == {(ExecutionStatus.COMPLETED, b"ran\n")}
    # The slots would be let go of later, of their own accord.
    await cramped.bench.runtime.destroy(cramped.attacker.environment_id)
    cramped.attacker = await cramped.bench.make()


async def test_more_to_keep_than_descriptors(cramped: Siege) -> None:
    """What cannot be kept for the next gateway is not kept; all of it is closed."""
    client, name = cramped.bench.runtime._client, cramped.attacker.environment_id
    ends = [os.open("/dev/null", os.O_RDONLY) for _each in range(3)]
    with _limit(cramped.bench.host, RESERVED + 30):
        for number in range(100):
            kept = {"tag": f"t{number}", "slot": 0, "child": 1, "kills": 0, "lifetime_s": 60}
            client.notify("keep", ends, environment_id=name, **kept)
        await cramped.everybody_answers()
        assert _held(cramped.bench.host) < RESERVED
        assert "ends with its gateway" in cramped.bench.host.log()
        for number in range(100):
            client.notify("let_go", [], environment_id=name, tag=f"t{number}")
    for end in ends:
        os.close(end)


async def test_what_is_given_back_can_be_had_again(cramped: Siege) -> None:
    """Whatever becomes of sandboxes, slots and what is kept: no descriptor is counted that is not held any more."""
    bench, client = cramped.bench, cramped.bench.runtime._client
    end = os.open("/dev/null", os.O_RDONLY)
    with _limit(bench.host, RESERVED + 34):
        for number in range(28):
            making = asyncio.ensure_future(bench.make())
            if number % 4 == 3:
                await asyncio.sleep(0.001 * (number % 5))
                making.cancel()
                await asyncio.gather(making, return_exceptions=True)
                await bench.runtime.destroy(bench.made[-1])
                continue
            sandbox = await making
            running = [sandbox.execute(ExecutionRequest("import time; time.sleep(0.01)", 60.0)) for _each in range(3)]
            kept = {"tag": "t", "slot": 0, "child": 1, "kills": 0, "lifetime_s": 60}
            client.notify("keep", [end] * 3, environment_id=sandbox.environment_id, **kept)
            if number % 2:
                await asyncio.gather(*(each.wait() for each in running))
            await bench.runtime.destroy(sandbox.environment_id)
    os.close(end)


@pytest.mark.parametrize("left", [0, 1, 2, 3])
async def test_no_descriptor_is_left_at_all(left: int, cramped: Siege) -> None:
    """The reserve gone, too: what cannot be received, opened or accepted costs those who ask, and nobody else."""
    host, bench = cramped.bench.host, cramped.bench
    ends = [os.open("/dev/null", os.O_RDONLY) for _each in range(3)]
    kept = {"slot": 0, "child": 1, "kills": 0, "lifetime_s": 60}
    with _limit(host, _full(host, left)):
        for number in range(10):
            bench.runtime._client.notify("keep", ends, environment_id=bench.made[0], tag=f"t{number}", **kept)
        specs = [SandboxSpec(make_environment_id(), TEMPLATE, Limits(), 30.0) for _each in range(10)]
        made = await asyncio.gather(*map(bench.runtime.create, specs), return_exceptions=True)
        assert all(isinstance(each, MechanismFault) for each in made)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(str(host.config.socket_path))
            await cramped.everybody_answers()
    for end in ends:
        os.close(end)


async def test_zygote_whose_clone_gets_lost(cramped: Siege) -> None:
    """A process that is cloned while no descriptor of it can be had is lost, and the zygote with all others is not."""
    host, bench = cramped.bench.host, cramped.bench
    spec = SandboxSpec(make_environment_id(), TEMPLATE, Limits(), 30.0)
    # Past the point where it is counted: the rest is taken away before the zygote has answered.
    os.kill(host.zygotes()[0], 19)
    making = asyncio.ensure_future(bench.runtime.create(spec))
    try:
        await until(lambda: len(host.groups()) == 3)
        # What it is asked it does one after the other: the zygote was told by then.
        await bench.runtime.check()
        with _limit(host, _full(host, 0)):
            os.kill(host.zygotes()[0], 18)
            with pytest.raises(SandboxFailed, match="taken hold of"):
                await making
    finally:
        os.kill(host.zygotes()[0], 18)
    await until(lambda: len(host.groups()) == 2)


async def test_silent_connections(cramped: Siege) -> None:
    """Who connects and says nothing is sent away once there are many of that kind; the gateway stays."""
    host = cramped.bench.host
    before = _held(host)
    silent = []
    for _each in range(100):
        each = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        each.connect(str(host.config.socket_path))
        silent.append(each)
        await asyncio.sleep(0)
    await cramped.everybody_answers()
    await until(lambda: _held(host) <= before + 17)
    for each in silent:
        each.close()
