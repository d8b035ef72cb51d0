"""Packages of a template that were written to harm: they are in the zygote, and in every process forked from it.

Only environments of their own template may suffer. The neighbour is of another one, on the same launcher.
"""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandgate.core.errors import MechanismFault
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.base import SandboxSpec
from sandgate.sandbox.launcher.cgroup import Tree
from sandgate.sandbox.launcher.hierarchies import find_hierarchies
from sandgate.sandbox.link import SandboxLink
from tests.runtime.hosts import Bench, find_templates, launcher_host, until
from tests.runtime.test_usage import quota_of
from tests.security.poisons import lay_out
from tests.security.siege import Siege

pytestmark = [
    pytest.mark.needs_root_namespaces,
    pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="the poisoned templates are of /usr/bin/python3"),
]

# What each does when it is imported in the zygote.
POISONS = {
    "hangs-at-fork": "import os, time\nos.register_at_fork(before=lambda: time.sleep(1000))",
    "hangs-after-fork": "import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep(1000))",
    "dies-after-fork": "import os\nos.register_at_fork(after_in_child=lambda: os._exit(9))",
    "kills-after-fork": "import os, signal\nos.register_at_fork(after_in_child=lambda: os.kill(-1, signal.SIGKILL))",
    "stops-after-fork": "import os, signal\nos.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), 19))",
    "forks-at-import": "import os, time\nfor _ in range(200):\n    if os.fork() == 0:\n        time.sleep(1000)",
    "burns": "import threading\ndef f():\n    while True: pass\nfor _ in range(8): threading.Thread(target=f).start()",
    "burns-in-processes": "import os\nfor _ in range(4):\n    if os.fork() == 0:\n        while True: pass",
    "replaces-builtins": "import builtins, os\nbuiltins.open = builtins.print = os.read = None\nos.write = len",
    "replaces-json": "import json\njson.loads = lambda *a: {'folder': '/etc', 'joins': 1}\njson.dumps = lambda *a: '{'",
    "eats-memory": "kept = []\nwhile True: kept.append(bytearray(b'x' * (1 << 22)))",
    "closes-everything": "import os\nos.closerange(0, 4096)",
    "silent": "import os\nos.dup2(os.open('/dev/null', os.O_RDWR), 3)",
}

# What does no harm to the environment itself either: the forks that are killed are the package's own, and so on.
HARMLESS = ("kills-after-fork", "forks-at-import")

# What may be too slow for its own limits, or not, by how fast the machine is.
SLOW = ("burns", "burns-in-processes")

# What the forkers of a template say to the gateway before they begin to serve, on its own socket.
FORGERS = {
    "ends-before-it-begins": "send(wire.pack_exited(1, 0, 0, 0, 0))",
    "ends-of-others": "send(wire.pack_exited(77, 0, 0, 0, 0)); send(wire.pack_exited(0, 0, 0, 0, 0))",
    "ends-in-the-midst": "later(0.05, lambda: [send(wire.pack_exited(1, 0, 0, 0, 0)) for _ in range(9)])",
    "huge-figures": "later(0.05, lambda: send(wire.pack_exited(1, 0, 2**63, 2**63, 2**63)))",
    "truncated": "send(b'X'); send(b''); send(b'C')",
    "huge-messages": "[send(b'X' * 60_000) for _ in range(50)]",
    "garbage": "[send(os.urandom(37)) for _ in range(50)]",
    "children-without-ends": "send(wire.pack_numbered(wire.CHILD, 1))",
    "many-children": "[send(wire.pack_numbered(wire.CHILD, n), pipes()) for n in range(1, 9)]",
    "answers-to-nothing": "[send(wire.pack_numbered(k, 0)) for k in (wire.RESET, wire.RESUME, wire.KILL, wire.NEXT)]",
    "flood": "later(0.01, lambda: [send(b'K' * 9) for _ in range(100_000)])",
    "wrong-files": "send(CHILD, [os.open('/dev/zero', os.O_RDONLY), os.memfd_create('x'), os.pipe()[0]])",
    "no-pipes": "send(CHILD, [end.detach() for end in (*socket.socketpair(), socket.socket())])",
    "writing-ends": "send(CHILD, [socket.socketpair()[0].detach(), os.pipe()[1], os.pipe()[1]])",
    "the-same-pipe-thrice": "send(CHILD, [os.pipe()[0]] * 3)",
    "its-own-socket": "send(CHILD, [self._control, os.pipe()[0], os.pipe()[0]])",
    "a-child-that-floods": (
        "ends = pipes(); send(CHILD, ends); later(0, lambda: [os.write(ends[3], b'x' * 4096) for _ in range(9**6)])"
    ),
}
_FORGE = """
import os, socket, sys, time
from sandgate_agent import forker, wire
contained = sys.modules.get("sandgate_agent.contained")
role = forker.Forker if contained is None else contained.GivenForker
real = role._serve
CHILD = wire.pack_numbered(wire.CHILD, 1)
def later(seconds, do):
    if os.fork() == 0:
        time.sleep(seconds)
        do()
        os._exit(0)
def pipes():
    (a, b), (r, w) = socket.socketpair(), os.pipe()
    return [a.detach(), r, os.pipe()[0], w]
def serve(self):
    channel = socket.socket(fileno=os.dup(self._control))
    def send(data, ends=()):
        try: socket.send_fds(channel, [data], list(ends)[:3])
        except OSError: pass
    {body}
    real(self)
role._serve = serve
"""
# Where each sandbox has a zygote of its own, which takes a while to start.
_IN_GVISOR = ["dies-after-fork", "closes-everything", "ends-of-others", "flood"]


def _forge(body: str) -> str:
    return _FORGE.replace("{body}", body)


@pytest.fixture(
    scope="module", params=[Isolation.STANDARD, pytest.param(Isolation.GVISOR, marks=pytest.mark.needs_gvisor)]
)
def poisoned_host(tmp_path_factory: pytest.TempPathFactory, request):  # type: ignore[no-untyped-def]
    """A launcher of each class with walls that serves good templates and bad ones."""
    folder = tmp_path_factory.mktemp("poisoned")
    sources = {**POISONS, **{name: _forge(body) for name, body in FORGERS.items()}}
    templates = (*find_templates(), *lay_out(folder, sources))
    limit_s = 4.0 if request.param is Isolation.STANDARD else 10.0
    with launcher_host(request.param, templates=templates, start_limit_s=limit_s, build_limit_s=limit_s) as host:
        yield host
    shutil.rmtree(folder)


@pytest.fixture
async def poisoned(poisoned_host) -> AsyncIterator[Siege]:  # type: ignore[no-untyped-def]
    """A neighbour of a good template; the attacker is made in the test."""
    bench = Bench(poisoned_host, poisoned_host.runtime())
    await bench.runtime.start(bench.on_end)
    neighbour = await bench.make()
    assert await bench.works(neighbour)
    yield Siege(bench, neighbour, neighbour)
    for environment_id in bench.made:
        await bench.runtime.destroy(environment_id)
    await bench.runtime.stop(keep_sandboxes=True)


async def _use(siege: Siege, template: str, limit_s: float = 0.4, stall_s: float = 30.0) -> bool:
    """Make an environment of a template and run code in it, as far as that goes; whether it went as it should.

    It is given up when it starts nothing for ``stall_s``, and nobody else's is: a busy machine may hold those up.
    """
    environment_id = make_environment_id()
    siege.bench.made.append(environment_id)
    with contextlib.suppress(MechanismFault, TimeoutError):
        async with asyncio.timeout(5 + limit_s):
            sandbox = await siege.bench.runtime.create(SandboxSpec(environment_id, template, Limits(), 30.0))
            assert isinstance(sandbox, SandboxLink)
            sandbox._stall.limit_s = stall_s
            code = "import time; time.sleep(0.1); print('hello')"
            ran = await sandbox.execute(ExecutionRequest(code, limit_s)).wait()
            return ran.stdout == b"hello\n" and ran.duration_s >= 0.1
    return False


@pytest.mark.few_on_gvisor(name=_IN_GVISOR)
@pytest.mark.parametrize("name", [*POISONS, *FORGERS])
async def test_only_its_own_template_suffers(name: str, poisoned: Siege) -> None:
    """Whatever a package does, the launcher and environments of other templates answer, during it and afterwards."""
    limit_s, stall_s = (10.0, 30.0) if name in HARMLESS else (0.4, 1.0)
    # In gVisor much of it harms nobody, because nothing of a package comes that far, and what is harmless may be slow.
    # A flood there may come later than what it would have hindered.
    told = name in {*_IN_GVISOR} - {"flood"} or not poisoned.bench.on_gvisor
    as_told = False
    for _attempt in range(3):
        # What comes later than it should on a busy machine comes in time once.
        using = asyncio.ensure_future(_use(poisoned, name, limit_s, stall_s))
        while not using.done():
            await poisoned.everybody_answers()
            await asyncio.sleep(0.02)
        as_told = await using is (name in HARMLESS) or not told or name in SLOW
        if as_told:
            break
    assert as_told
    for environment_id in poisoned.bench.made[1:]:
        await poisoned.bench.runtime.destroy(environment_id)
    await poisoned.everybody_answers()
    await until(lambda: len(poisoned.bench.host.groups()) == 1)
    fresh = await poisoned.bench.make()
    assert await poisoned.bench.works(fresh)


def _worked_s(siege: Siege, template: str) -> float:
    """Processor time of a zygote and of what its packages have started."""
    with open("/proc/self/mountinfo") as mounts:
        tree = Tree(find_hierarchies(mounts.read()), siege.bench.host.config.tree_name)
    return (tree.group(f"zygote-{template}").usage().cpu_us or 0) / 1e6


@pytest.mark.parametrize("poisoned_host", [Isolation.STANDARD], indirect=True)
async def test_what_burns_in_a_zygote_has_a_share(poisoned: Siege) -> None:
    """Whatever a package has started in the zygote gets one processor, and leaves the others to everybody else."""
    await _use(poisoned, "burns-in-processes")
    started, before_s = time.monotonic(), _worked_s(poisoned, "burns-in-processes")
    hello_s = await poisoned.bench.hello_s(poisoned.neighbour)
    while time.monotonic() - started < 0.3:
        await poisoned.everybody_answers()
    worked_s = _worked_s(poisoned, "burns-in-processes") - before_s
    assert 0 < worked_s <= 1.2 * (time.monotonic() - started) + 0.2
    # On a machine that is busy otherwise they would get no more without a limit either.
    assert quota_of(poisoned.bench.host.groups()[0].with_name("zygote-burns-in-processes")) == 1000
    assert hello_s < 3
