"""What code reaches of the network, with servers of the tests' own on the loopback of this machine."""

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sandgate.core.errors import NetworkUnavailable, SandboxFailed
from sandgate.core.network import NetworkRules, Verdict
from sandgate.core.states import ExecutionStatus
from tests.e2e.small_wheels import serve_index
from tests.runtime.conftest import WALLED
from tests.runtime.hosts import Bench, LauncherHost, descendants, until
from tests.runtime.worlds import GET, HOST, POLICY, World, joined_to, serving

pytestmark = pytest.mark.needs_root_namespaces


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A server to be reached."""
    with serving() as world:
        yield world


@pytest.fixture(params=WALLED)
def host(request: pytest.FixtureRequest) -> LauncherHost:
    """A launcher of each class that puts up walls, in turn."""
    found: LauncherHost = request.getfixturevalue(f"{request.param}_host")
    return found


@pytest.fixture
async def joined(host: LauncherHost) -> AsyncIterator[Bench]:
    """A runtime of it that may reach the server."""
    async with joined_to(host) as bench:
        yield bench


def proxies() -> list[int]:
    """The proxies that this process has started."""
    return [pid for pid, found in descendants(os.getpid()).items() if found == ("sg-proxy", os.getpid())]


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _links(pid: int) -> list[str]:
    """What it has open, but for what it lets go of just now."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(link))
    return found


def _read(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


async def test_hosts_that_are_named_and_no_others(joined: Bench, world: World) -> None:
    """Nothing before they are, nothing when they are not any more, and each try is written down."""
    sandbox = await joined.make()
    assert not await world.is_reached(joined, sandbox)
    assert (await sandbox.network.report()).rules is None
    await sandbox.network.allow(world.rules, "user-1")
    assert await world.is_reached(joined, sandbox)
    asked = f"[get('http://other.test/'), get('https://other.test/'), get('http://{HOST}:1/')]"
    first, second, third = await joined.ask(sandbox, f"{GET}answer = {asked}")
    assert first == third == [403, "host_not_allowed"]
    assert "403" in second[1]
    report = await sandbox.network.report()
    assert report.rules == world.rules
    assert [(each.host, each.port, each.verdict, each.reason) for each in reversed(report.connections)] == [
        (HOST, world.port, Verdict.ALLOWED, "closed"),
        ("other.test", 80, Verdict.DENIED, "host_not_allowed"),
        ("other.test", 443, Verdict.DENIED, "host_not_allowed"),
        (HOST, 1, Verdict.DENIED, "host_not_allowed"),
    ]
    assert report.totals.received_bytes > 0 < report.totals.sent_bytes
    await sandbox.network.close()
    assert not await world.is_reached(joined, sandbox)
    await sandbox.network.allow(world.rules, "user-1")
    assert await world.is_reached(joined, sandbox)


async def test_there_is_no_other_way(joined: Bench, world: World) -> None:
    """No device but loopback, no route, and nothing of the host's behind the proxy's port."""
    sandbox = await joined.make()
    await sandbox.network.allow(world.rules, "user-1")
    code = f"""
import os, socket
def connect(address):
    try:
        with socket.create_connection(address, 30):
            return None
    except OSError as error:
        return error.errno
answer = [socket.if_nameindex(), open('/proc/net/route').read().count('\\n'), connect(({HOST!r}, {world.port})),
          os.environ['http_proxy'], connect(('127.0.0.1', 3128))]
"""
    devices, routes, errno, proxy, reached = await joined.ask(sandbox, code)
    assert [name for _number, name in devices] == ["lo"]
    assert (routes, errno, reached, proxy) == (1, 111, None, "http://127.0.0.1:3128")


async def test_port_that_is_taken(joined: Bench, world: World) -> None:
    """Code that listens where the proxy would keeps its port; whoever begins later is told another one."""
    sandbox = await joined.make()
    code = (
        "import socket, time\ns = socket.create_server(('127.0.0.1', 3128))\nprint('there', flush=True)\ntime.sleep(60)"
    )
    holding = sandbox.execute(joined.request(code))
    probe = "import socket\nanswer = socket.socket().connect_ex(('127.0.0.1', 3128))"
    while await joined.ask(sandbox, probe):
        pass
    await sandbox.network.allow(world.rules, "user-1")
    assert await world.is_reached(joined, sandbox)
    holding.cancel()
    await holding.wait()


async def test_each_has_its_own(joined: Bench, world: World) -> None:
    """What one may reach another may not, and what each has reached is counted apart."""
    first, second = await joined.make(), await joined.make()
    await first.network.allow(world.rules, "user-1")
    await second.network.allow(NetworkRules(), "user-2")
    assert await world.is_reached(joined, first)
    assert not await world.is_reached(joined, second)
    assert (await first.network.report()).totals.denied == 0
    assert (await second.network.report()).totals.allowed == 0


@pytest.mark.needs_own_python
async def test_packages_are_installed(joined: Bench) -> None:
    """pip finds its way by the variables, and executions after it find the package."""
    sandbox = await joined.make(f"{sys.version_info.major}.{sys.version_info.minor}")
    with serve_index() as index:
        index.add("greeting", "1.0", {"greeting.py": "TEXT = 'hello from a package'\n"})
        await sandbox.network.allow(NetworkRules.parse([f"{HOST}:{index.port}"]), "user-1")
        asked = [
            "install", "--user", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--index-url", index.url,
            "--trusted-host", HOST, "greeting",
        ]  # fmt: skip
        code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'pip', *{asked!r}], check=True)"
        installed = await joined.run(sandbox, code, timeout_s=100)
    assert installed.status is ExecutionStatus.COMPLETED, installed
    assert await joined.ask(sandbox, "import greeting\nanswer = greeting.TEXT") == "hello from a package"
    totals = (await sandbox.network.report()).totals
    assert (totals.allowed, totals.denied, totals.failed) == (2, 0, 0)


async def test_variables_of_the_request_come_first(joined: Bench, world: World) -> None:
    """And code without a network has none of them."""
    sandbox = await joined.make()
    shown = "import os\nanswer = sorted(name for name in os.environ if 'proxy' in name.lower())"
    assert await joined.ask(sandbox, shown) == []
    await sandbox.network.allow(world.rules, "user-1")
    names = ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"]
    assert await joined.ask(sandbox, shown) == names


async def test_gateway_that_is_followed_by_another(host: LauncherHost, world: World) -> None:
    """The listener stays where it is; with the rules it works again, and connections meanwhile waited."""
    before = Bench(host, host.runtime(POLICY))
    await before.runtime.start(before.on_end)
    sandbox = await before.make()
    await sandbox.network.allow(world.rules, "user-1")
    assert await world.is_reached(before, sandbox)
    (proxy,) = proxies()
    await before.runtime.stop(keep_sandboxes=True)
    await until(lambda: not _lives(proxy))
    after = Bench(host, host.runtime(POLICY))
    await after.runtime.start(after.on_end)
    (adopted,) = await after.runtime.adopt({sandbox.environment_id: sandbox._limits})  # type: ignore[attr-defined]
    await adopted.network.allow(world.rules, "user-1")
    assert await world.is_reached(after, adopted)
    await after.runtime.destroy(adopted.environment_id)
    await after.runtime.stop(keep_sandboxes=True)


async def test_proxy_that_is_killed(joined: Bench, world: World) -> None:
    """It is started again and told of every environment; until then it is said that it is away."""
    sandbox = await joined.make()
    await sandbox.network.allow(world.rules, "user-1")
    (proxy,) = proxies()
    os.kill(proxy, signal.SIGKILL)
    await until(lambda: proxies() not in ([], [proxy]))
    while True:
        try:
            await sandbox.network.report()
            break
        except NetworkUnavailable:
            continue
    assert await world.is_reached(joined, sandbox)


async def test_nothing_is_left_of_one_that_has_ended(joined: Bench, world: World) -> None:
    """Its listener and its connections are gone from the proxy, too, or its network would live on."""
    other = await joined.make()
    await other.network.allow(world.rules, "user-1")
    (proxy,) = proxies()
    held = len(os.listdir(f"/proc/{proxy}/fd"))
    sandbox = await joined.make()
    await sandbox.network.allow(world.rules, "user-1")
    await until(lambda: len(os.listdir(f"/proc/{proxy}/fd")) == held + 1)
    await joined.runtime.destroy(sandbox.environment_id)
    await until(lambda: len(os.listdir(f"/proc/{proxy}/fd")) == held)
    await until(lambda: not [link for link in _links(joined.host.process.pid) if link.startswith("net:")])


async def test_proxy_has_nothing_of_the_gateway(joined: Bench, world: World) -> None:
    """No descriptor but its own, no variable, no way to more privileges."""
    kept = socket.socket()
    sandbox = await joined.make()
    await sandbox.network.allow(world.rules, "user-1")
    (proxy,) = proxies()
    assert f"socket:[{os.fstat(kept.fileno()).st_ino}]" not in _links(proxy)
    kept.close()
    assert b"SANDGATE" not in _read(proxy, "environ")
    assert b"NoNewPrivs:\t1" in _read(proxy, "status")


async def test_class_without(process_host: LauncherHost, world: World) -> None:
    """It refuses, and goes on."""
    bench = Bench(process_host, process_host.runtime(POLICY))
    await bench.runtime.start(bench.on_end)
    sandbox = await bench.make()
    with pytest.raises(SandboxFailed):
        await sandbox.network.allow(world.rules, "user-1")
    assert await bench.works(sandbox)
    await bench.runtime.destroy(sandbox.environment_id)
    await bench.runtime.stop(keep_sandboxes=True)
