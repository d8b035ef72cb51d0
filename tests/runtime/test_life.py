"""Gateways and launchers come and go, by their own will or by SIGKILL; environments live and end as they should."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from sandgate.core.errors import LauncherUnavailable, SandboxFailed
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import EnvironmentId, make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.states import ExecutionStatus, Isolation
from sandgate.sandbox import zygote_runtime
from sandgate.sandbox.base import Sandbox, SandboxSpec
from sandgate.sandbox.launcher import starter
from sandgate_agent.system import is_zombie
from tests.runtime.hosts import Bench, LauncherHost, available_versions, launcher_host, start_launcher, until

# Processes of the machine; see conftest.connect.
COUNTS = True
ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = f"python-{available_versions()[-1]}"
DAEMON = "import os, time\nif os.fork() == 0: os.setsid()\nopen('on', 'w').close()\ntime.sleep(1000)"

both = pytest.mark.parametrize(
    "isolation", [pytest.param(Isolation.STANDARD, marks=pytest.mark.needs_root_namespaces), Isolation.PROCESS]
)


def spec(environment_id: EnvironmentId | None = None) -> SandboxSpec:
    """What to make."""
    return SandboxSpec(environment_id or make_environment_id(), TEMPLATE, Limits(), 120.0)


@asynccontextmanager
async def own_launcher(isolation: Isolation, **changes: object) -> AsyncIterator[Bench]:
    """A launcher that the test may kill, and a runtime connected to it."""
    with launcher_host(isolation, **changes) as host:
        bench = Bench(host, host.runtime())
        await bench.runtime.start(bench.on_end)
        try:
            yield bench
        finally:
            await bench.runtime.stop(keep_sandboxes=True)


async def busy(bench: Bench, sandbox: Sandbox) -> None:
    """Wait until DAEMON runs in a sandbox."""
    assert (
        await bench.run(sandbox, "import os, time\nwhile not os.path.exists('on'): time.sleep(0.002)")
    ).exit_code == 0


@both
async def test_adoption_after_sigkill(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """Environments outlive their gateway; the next one finds their files, and nothing running in them."""
    host: LauncherHost = request.getfixturevalue(f"{isolation}_host")
    kept, dropped = make_environment_id(), make_environment_id()
    arguments = [str(host.config.socket_path), isolation, TEMPLATE, kept, dropped]
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.runtime.gateway", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert gateway.stdout is not None
    assert await gateway.stdout.readline() == b"ready\n"
    gateway.kill()
    await gateway.wait()
    bench = Bench(host, host.runtime())
    await bench.runtime.start(bench.on_end)
    assert len(host.forkers()) >= 2
    (sandbox,) = await bench.runtime.adopt({kept: Limits(), make_environment_id(): Limits()})
    assert sandbox.environment_id == kept
    await bench.quiet()
    assert (await bench.run(sandbox, "print(open('kept').read())")).stdout == b"xx\n"
    assert await bench.works(sandbox)
    assert bench.ended == []
    await bench.runtime.destroy(kept)
    await until(lambda: host.processes() == {})
    await bench.runtime.stop(keep_sandboxes=True)


async def test_stop_that_keeps(bench: Bench) -> None:
    """What runs is lost and answered, what is there is kept, and the next runtime goes on with it, again and again."""
    sandbox = await bench.make()
    running = sandbox.execute(ExecutionRequest(DAEMON, 60))
    await busy(bench, sandbox)
    await bench.runtime.stop(keep_sandboxes=True)
    assert (await running.wait()).status is ExecutionStatus.LOST
    for _again in range(3):
        bench.runtime = bench.host.runtime()
        await bench.runtime.start(bench.on_end)
        (sandbox,) = await bench.runtime.adopt({sandbox.environment_id: Limits()})
        assert await bench.works(sandbox)
        await bench.runtime.stop(keep_sandboxes=True)
    bench.runtime = bench.host.runtime()
    await bench.runtime.start(bench.on_end)
    assert await bench.runtime.adopt({}) == []
    # At once in the standard class; without a namespace some may still be on their way out.
    await until(lambda: bench.host.processes() == {})
    assert bench.ended == []


@both
async def test_launcher_killed(isolation: Isolation) -> None:
    """Everything dies with it, the next one cleans up after it, and the runtime finds that one by itself."""
    async with own_launcher(isolation) as bench:
        sandboxes = [await bench.make() for _each in range(3)]
        running = sandboxes[0].execute(ExecutionRequest(DAEMON, 60))
        await busy(bench, sandboxes[0])
        processes = bench.host.processes()
        bench.host.process.kill()
        bench.host.process.wait()
        assert (await running.wait()).status is ExecutionStatus.LOST
        with pytest.raises(LauncherUnavailable):
            await bench.runtime.create(spec())
        with pytest.raises(LauncherUnavailable):
            await bench.runtime.check()
        if isolation is Isolation.STANDARD:
            await until(lambda: not any(_is_alive(pid) for pid in processes))
        bench.host.process = start_launcher(bench.host.config)
        await until(lambda: len(bench.ended) == 3)
        assert {reason for _name, reason in bench.ended} == {zygote_runtime.LAUNCHER_DIED}
        assert all(sandbox.failure for sandbox in sandboxes)
        assert await bench.works(await bench.make())
        await bench.runtime.check()
        await until(lambda: not any(_is_alive(pid) for pid in processes))
        if isolation is Isolation.STANDARD:
            await until(lambda: len(bench.host.groups()) == 1, what=bench.host.groups)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_connection_lost(bench: Bench) -> None:
    """A connection that breaks is made again: nothing ends, and what was being made for it does not stay."""
    sandbox = await bench.make()
    running = sandbox.execute(ExecutionRequest("import time; time.sleep(0.2); print('on')", 60))
    # Or it might answer before the connection breaks.
    bench.host.process.send_signal(signal.SIGSTOP)
    creating = [asyncio.ensure_future(bench.runtime.create(spec())) for _each in range(3)]
    await asyncio.sleep(0)
    connection = bench.runtime._client._socket
    assert connection is not None
    connection.shutdown(socket.SHUT_RDWR)
    bench.host.process.send_signal(signal.SIGCONT)
    made = await asyncio.gather(*creating, return_exceptions=True)
    assert {type(each) for each in made} == {LauncherUnavailable}
    await until(lambda: bench.runtime._reconnecting is None)
    assert (await running.wait()).stdout == b"on\n"
    await bench.quiet()
    assert await bench.works(sandbox)
    assert bench.ended == []


async def test_expiry(bench: Bench) -> None:
    """A lifetime is over to the moment, whatever runs; its owner is told."""
    sandbox, neighbour = await bench.make(), await bench.make()
    # Before its end is set, which whoever hears of that late may be past.
    running = sandbox.execute(ExecutionRequest("import os\nos.fork()\nwhile True: pass", 60))
    started = time.perf_counter()
    await sandbox.extend(0.4)
    ended = await running.wait()
    assert ended.status is ExecutionStatus.LOST
    assert 0.35 < time.perf_counter() - started < 30
    await until(lambda: bench.ended)
    assert bench.ended == [(sandbox.environment_id, "expired")]
    with pytest.raises(SandboxFailed):
        await sandbox.extend(5)
    await bench.quiet()
    assert await bench.works(neighbour)


async def test_expiry_without_a_gateway(bench: Bench) -> None:
    """Nobody has to be there for it."""
    sandbox = await bench.make()
    sandbox.execute(ExecutionRequest(DAEMON, 60))
    await busy(bench, sandbox)
    await sandbox.extend(0.3)
    await bench.runtime.stop(keep_sandboxes=True)
    await until(lambda: not bench.host.processes())
    bench.runtime = bench.host.runtime()
    await bench.runtime.start(bench.on_end)
    assert await bench.runtime.adopt({sandbox.environment_id: Limits()}) == []


async def test_extend(bench: Bench) -> None:
    """A lifetime is counted anew from the moment that it is extended, to a shorter one, too."""
    sandbox = await bench.make()
    # One right behind the other, or the first might be over before the second is asked for.
    await asyncio.gather(sandbox.extend(0.5), sandbox.extend(60))
    ran = await bench.run(sandbox, "import time; time.sleep(0.6); print('on')")
    assert ran.stdout == b"on\n"
    await sandbox.extend(0.01)
    await until(lambda: bench.ended)
    assert bench.ended == [(sandbox.environment_id, "expired")]


async def test_destroy(bench: Bench) -> None:
    """It ends what runs, can be asked for twice and for what never was, and frees the id."""
    sandbox = await bench.make()
    running = sandbox.execute(ExecutionRequest(DAEMON, 60))
    await busy(bench, sandbox)
    name = sandbox.environment_id
    await asyncio.gather(bench.runtime.destroy(name), bench.runtime.destroy(name))
    # What is dead may wait for a moment to be buried by the zygote.
    alive = [pid for pid in bench.host.processes() if not is_zombie(pid)]
    assert bench.host.isolation is not Isolation.STANDARD or alive == []
    await until(lambda: bench.host.processes() == {})
    assert (await running.wait()).status is ExecutionStatus.LOST
    await bench.runtime.destroy(name)
    await bench.runtime.destroy(make_environment_id())
    again = await bench.runtime.create(spec(name))
    assert (await bench.run(again, "import os; print(os.listdir())")).stdout == b"[]\n"
    with pytest.raises(SandboxFailed):
        await bench.runtime.create(spec(name))
    assert await bench.works(again)
    assert bench.ended == []


@pytest.mark.parametrize("delay_s", [0, 0.0005, 0.002, 0.005, 0.02])
@pytest.mark.few_on_gvisor(delay_s=[0.02])
async def test_create_that_is_cancelled(delay_s: float, bench: Bench) -> None:
    """At whatever moment: nothing is left of it, and its id is free."""
    descriptors = len(os.listdir("/proc/self/fd"))
    wanted = spec()
    for _round in range(5):
        creating = asyncio.ensure_future(bench.runtime.create(wanted))
        await asyncio.sleep(delay_s)
        if creating.done():
            await bench.runtime.destroy(wanted.environment_id)
            continue
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        # One that was asked for and comes after all is killed before it has begun.
        await until(lambda: bench.host.forkers() == [])
    await until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
    sandbox = await bench.runtime.create(wanted)
    bench.made.append(wanted.environment_id)
    assert await bench.works(sandbox)
    assert bench.ended == []


@both
async def test_stop_that_ends_everything(isolation: Isolation) -> None:
    """Nothing is left on the machine, and the launcher is gone."""
    async with own_launcher(isolation) as bench:
        sandboxes = [await bench.make() for _each in range(3)]
        running = sandboxes[0].execute(ExecutionRequest(DAEMON, 60))
        await busy(bench, sandboxes[0])
        processes = bench.host.processes()
        await bench.runtime.stop(keep_sandboxes=False)
        assert (await running.wait()).status is ExecutionStatus.LOST
        assert await asyncio.to_thread(bench.host.process.wait, 60) == 0
        await until(lambda: not any(_is_alive(pid) for pid in processes))
        assert not bench.host.config.socket_path.exists()
        if isolation is Isolation.STANDARD:
            assert bench.host.groups() == []


@both
async def test_polite_end_of_the_launcher(isolation: Isolation) -> None:
    """SIGTERM is the same, without anybody who asked for it."""
    async with own_launcher(isolation) as bench:
        sandbox = await bench.make()
        sandbox.execute(ExecutionRequest(DAEMON, 60))
        await busy(bench, sandbox)
        bench.host.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(bench.host.process.wait, 60) == 0
        if isolation is Isolation.STANDARD:
            assert bench.host.groups() == []


async def test_no_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A runtime that finds none says so."""
    monkeypatch.setattr(zygote_runtime, "_CONNECT_LIMIT_S", 0.05)
    runtime = zygote_runtime.ZygoteRuntime(Isolation.STANDARD, tmp_path / "launcher.sock")
    with pytest.raises(LauncherUnavailable):
        await runtime.start(lambda _environment_id, _reason: None)
    await runtime.stop(keep_sandboxes=True)


async def test_strangers_at_the_launchers_door(bench: Bench) -> None:
    """Whatever one connection says, the launcher goes on, and serves the next."""
    sandbox = await bench.make()
    await bench.runtime.stop(keep_sandboxes=True)
    for message in (
        b"",
        b"x",
        b"{}",
        b"[" * 60_000,
        b'{"verb": "destroy", "number": 1, "environment_id": "env-../../x"}',
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(str(bench.host.config.socket_path))
            stranger.send(message)
            stranger.settimeout(60)
            # Some kernels say that what was sent has not been read.
            with suppress(ConnectionResetError):
                heard = stranger.recv(2000)
                assert heard == b"" or json.loads(heard)["ok"] is False
    bench.runtime = bench.host.runtime()
    await bench.runtime.start(bench.on_end)
    (sandbox,) = await bench.runtime.adopt({sandbox.environment_id: Limits()})
    assert await bench.works(sandbox)


@pytest.mark.needs_root_namespaces
async def test_looking_whether_a_launcher_listens_disturbs_nobody(standard: Bench) -> None:
    """The supervisor looks again and again; the gateway's connection, and what it waits for, go on."""
    made = asyncio.ensure_future(standard.make())
    for _look in range(20):
        assert await asyncio.to_thread(starter.is_running, standard.host.config)
    sandbox = await made
    await standard.runtime.check()
    assert await standard.works(sandbox)
    assert standard.ended == []


async def test_folders_too_deep_for_recursion(process: Bench) -> None:
    """A sandbox without walls leaves them in a real folder; it ends all the same, and nothing of it is left."""
    sandbox = await process.make()
    code = "import os\nfor _level in range(1500):\n    os.mkdir('in')\n    os.chdir('in')\nprint('deep')"
    assert (await process.run(sandbox, code)).stdout == b"deep\n"
    folders = process.host.config.run_folder / "sandboxes"
    before = set(folders.iterdir())
    await process.runtime.destroy(sandbox.environment_id)
    # The launcher keeps others as spares.
    assert len(before - set(folders.iterdir())) == 1
