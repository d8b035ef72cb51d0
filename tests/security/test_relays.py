"""Relays that lie, inside real containers: what carries the connections of a template that was written to harm.

Its own sandboxes may suffer. The launcher, the proxy and a neighbour with a network of its own go on.
"""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sandgate.core.errors import MechanismFault
from sandgate.core.ids import make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.network import NetworkLimits, NetworkPolicy
from sandgate.core.states import Isolation
from sandgate.sandbox import inner_network
from sandgate.sandbox.base import Sandbox, SandboxSpec
from tests.runtime.hosts import Bench, LauncherHost, find_templates, launcher_host, until
from tests.runtime.test_network import proxies, world
from tests.runtime.worlds import HOST, World
from tests.security.poisons import lay_out
from tests.security.siege import Siege

__all__ = ["world"]
pytestmark = [
    pytest.mark.needs_gvisor,
    pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="the poisoned templates are of /usr/bin/python3"),
]

_MOST_OPEN = 8
_LIE = """
import os, socket
from sandgate_agent import relay, wire
def hear(self):
    return self._letter.receive()
def answer(self, port):
    os.write(self._control, wire.pack_numbered(wire.LISTEN, port))
def run(self):
    kept = []
    {body}
relay.Relay.run = run
"""
LIES = {
    "ends": "os._exit(0)",
    "asks-without-end": (
        "(door,) = hear(self)[1]\n    answer(self, 3128)\n"
        "    os.set_blocking(door, False)\n    while True:\n"
        "        try: os.write(door, b'W')\n        except BlockingIOError: pass"
    ),
    "keeps-what-it-is-given": (
        "(door,) = hear(self)[1]\n    answer(self, 3128)\n"
        "    letter = relay.Letter(door, 1, 1)\n    while True:\n"
        "        os.write(door, b'W')\n        kept += letter.receive()[1]"
    ),
    "says-anything": (
        "while True:\n        ends = hear(self)[1]\n        answer(self, 1) if len(kept) < 1 else None\n"
        "        kept += ends\n        for end in ends: os.write(end, b'R' + b'x' * 4096)"
    ),
}


@pytest.fixture(scope="module")
def lying_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LauncherHost]:
    """A launcher that serves good templates and bad ones."""
    folder = tmp_path_factory.mktemp("lying")
    sources = {name: _LIE.replace("{body}", body) for name, body in LIES.items()}
    templates = (*find_templates(), *lay_out(folder, sources))
    with launcher_host(Isolation.GVISOR, templates=templates) as host:
        yield host
    shutil.rmtree(folder)


@pytest.fixture
async def lying(lying_host: LauncherHost, world: World) -> AsyncIterator[Siege]:
    """A neighbour with a network; the attacker is made in the test."""
    limits = NetworkLimits(connections_of_environment=_MOST_OPEN)
    bench = Bench(lying_host, lying_host.runtime(NetworkPolicy(special=HOST, limits=limits)))
    await bench.runtime.start(bench.on_end)
    neighbour = await bench.make()
    await neighbour.network.allow(world.rules, "user-1")
    yield Siege(bench, neighbour, neighbour)
    for environment_id in bench.made:
        await bench.runtime.destroy(environment_id)
    await bench.runtime.stop(keep_sandboxes=True)


async def _make(siege: Siege, template: str) -> Sandbox:
    environment_id = make_environment_id()
    siege.bench.made.append(environment_id)
    return await siege.bench.runtime.create(SandboxSpec(environment_id, template, Limits(), 60.0))


@pytest.mark.parametrize("name", LIES)
async def test_only_its_own_sandbox_suffers(
    name: str, lying: Siege, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it says, keeps or leaves: everybody else gets through, and the proxy holds no more than it may."""
    monkeypatch.setattr(inner_network, "_CONNECT_LIMIT_S", 0.05)
    assert await world.is_reached(lying.bench, lying.neighbour)
    (proxy,) = proxies()
    held = len(os.listdir(f"/proc/{proxy}/fd"))
    sandbox = await _make(lying, name)
    with suppress(MechanismFault):
        await sandbox.network.allow(world.rules, "user-2")
    for _round in range(3):
        with suppress(MechanismFault, ConnectionRefusedError):
            (await sandbox.network.dial(8000)).close()
        await lying.everybody_answers()
        assert await world.is_reached(lying.bench, lying.neighbour)
        # Its own door, and those that it keeps.
        await until(lambda: len(os.listdir(f"/proc/{proxy}/fd")) <= held + 1 + _MOST_OPEN)
    await until(lambda: (sandbox.failure is None) is (name != "ends"))
    await lying.bench.runtime.destroy(sandbox.environment_id)
    await until(lambda: proxies() == [proxy])
