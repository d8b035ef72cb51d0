"""What forks of one parent could have in common, and what one execution could leave to the next in memory."""

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from sandgate.core.states import ExecutionStatus, Isolation
from tests.runtime.hosts import Bench, LauncherHost, find_templates, launcher_host

pytestmark = pytest.mark.needs_root_namespaces

_HOSTS = {"standard": "standard_host", "preloaded": "preloaded_host", "gvisor": "preloaded_gvisor_host"}
PRELOAD = ("random", "uuid", "tempfile", "secrets", "json", "no_such_module_anywhere")


@pytest.fixture(scope="module")
def preloaded_host() -> Iterator[LauncherHost]:
    """A launcher whose zygotes have imported what draws random numbers."""
    templates = tuple(replace(template, preload=PRELOAD) for template in find_templates())
    with launcher_host(Isolation.STANDARD, templates=templates) as host:
        yield host


@pytest.fixture(scope="module")
def preloaded_gvisor_host() -> Iterator[LauncherHost]:
    """The same, of the gvisor class."""
    templates = tuple(replace(template, preload=PRELOAD) for template in find_templates())
    with launcher_host(Isolation.GVISOR, templates=templates) as host:
        yield host


@pytest.fixture(params=["standard", "preloaded", pytest.param("gvisor", marks=pytest.mark.needs_gvisor)])
async def forks(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A runtime with and without preloaded libraries; gVisor's are slow to start, so that it has them always."""
    host: LauncherHost = request.getfixturevalue(_HOSTS[request.param])
    runtime = host.runtime()
    made = Bench(host, runtime)
    await runtime.start(made.on_end)
    yield made
    for environment_id in made.made:
        await runtime.destroy(environment_id)
    await runtime.stop(keep_sandboxes=True)


DRAWS = """
import os, random, secrets, sys, tempfile, uuid
answer = [
    random.random(), random.Random().random(), random.SystemRandom().random(), str(uuid.uuid4()), str(uuid.uuid1()),
    next(tempfile._get_candidate_names()), tempfile.mkdtemp(), secrets.token_hex(8), os.urandom(8).hex(),
    os.getrandom(8).hex(),
]
"""


async def test_random_numbers(forks: Bench) -> None:
    """No two executions draw the same, in one environment or in several."""
    sandboxes = [await forks.make() for _each in range(2)]
    drawn = [await forks.ask(sandbox, DRAWS) for sandbox in sandboxes for _round in range(3)]
    for column in zip(*drawn, strict=True):
        assert len(set(column)) == len(drawn)


async def test_random_numbers_of_children(forks: Bench) -> None:
    """Whatever an execution forks itself draws what a fork of a bare interpreter would draw."""
    code = (
        "import os, random\nread, write = os.pipe()\nif os.fork() == 0:\n"
        "    os.write(write, str(random.random()).encode())\n"
        "    os._exit(0)\nos.wait()\nanswer = [float(os.read(read, 99)), random.random()]"
    )
    first, second = await forks.ask(await forks.make(), code)
    assert first != second


SCAN = """
import re
def scan(head, tail):
    found = 0
    with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            start, end = (int(x, 16) for x in span.split('-'))
            if rights[0] != 'r' or '[v' in line: continue
            memory.seek(start)
            try: block = memory.read(end - start)
            except OSError: continue
            for hit in re.finditer(re.escape(head), block):
                found += block[hit.end():hit.end() + len(tail)] == tail
            del block
    return found
"""


def _pieces() -> tuple[bytes, bytes]:
    return secrets.token_hex(8).encode(), secrets.token_hex(8).encode()


@pytest.mark.parametrize("version", [pytest.param("3.9", marks=pytest.mark.needs_python39), None])
@pytest.mark.few_on_gvisor(version=[None])
async def test_memory_of_the_last_execution(version: str | None, forks: Bench) -> None:
    """Neither code nor output nor variables of an execution are in the memory of the next one; its files are."""
    sandbox = await forks.make(version)
    code, value, printed = _pieces(), _pieces(), _pieces()
    first = (
        f"# {(code[0] + code[1]).decode()}\nimport sys\nvalue = {value[0]!r} + bytes({list(value[1])})\n"
        "kept = [value] * 9\n"
        f"print(({printed[0]!r} + bytes({list(printed[1])})).decode())\nimport builtins\nbuiltins.kept = kept\n"
        "open('kept', 'wb').write(value)\n"
    )
    ran = await forks.run(sandbox, first)
    assert (ran.status, ran.stdout.strip()) == (ExecutionStatus.COMPLETED, printed[0] + printed[1])
    control = _pieces()
    # Each second half is written as numbers, so that only a whole one that was put together is found.
    asked = [(head, list(tail)) for head, tail in (control, code, value, printed)]
    look = SCAN + (
        f"made = {control[0]!r} + bytes({list(control[1])})\n"
        f"answer = [scan(head, bytes(tail)) for head, tail in {asked!r}] + [open('kept', 'rb').read().decode()]\n"
        "import builtins\nanswer += [hasattr(builtins, 'kept'), 'kept' in globals()]"
    )
    for _round in range(2):
        seen, *unseen, kept, built_in, is_global = await forks.ask(sandbox, look)
        assert seen >= 1
        assert unseen == [0, 0, 0]
        assert kept.encode() == value[0] + value[1]
        assert (built_in, is_global) == (False, False)


async def test_memory_of_a_neighbour(forks: Bench) -> None:
    """Nothing of a neighbour's that runs at the same moment, or ran before, is in an execution's memory."""
    sandbox, neighbour = await forks.make(), await forks.make()
    secret = _pieces()
    await forks.ask(neighbour, f"x = {secret[0]!r} + bytes({list(secret[1])})\nanswer = 1")
    assert await forks.ask(sandbox, SCAN + f"answer = scan({secret[0]!r}, bytes({list(secret[1])}))") == 0


async def test_changes_of_modules_end_with_their_execution(forks: Bench) -> None:
    """What code does to the interpreter it runs in is gone with it."""
    sandbox = await forks.make()
    spoil = (
        "import builtins, json, os, random, signal, sys\nbuiltins.print = None\njson.dumps = None\nrandom.seed(1)\n"
        "os.environ['X'] = 'x'\nos.umask(0o777)\nos.chdir('/tmp')\nsys.path.insert(0, '/tmp')\n"
        "sys.setrecursionlimit(50)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "sys.modules['math'] = None\nsys.stdout.close()\n"
    )
    assert (await forks.run(sandbox, spoil)).exit_code == 0
    look = (
        "import math, os, random, signal, sys\nanswer = [os.environ.get('X'), os.getcwd(), sys.path[0], os.umask(0),\n"
        "  sys.getrecursionlimit(), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL]"
    )
    assert await forks.ask(sandbox, look) == [None, "/workspace", "/workspace", 0o22, 1000, True]


async def test_modules_in_the_work_folder(forks: Bench) -> None:
    """Files named like modules of the library are the code's own affair: they break neither the report nor the next."""
    sandbox = await forks.make()
    names = (
        "json",
        "traceback",
        "linecache",
        "threading",
        "os",
        "signal",
        "random",
        "tempfile",
        "io",
        "codecs",
        "struct",
    )
    write = f"for n in {names!r}: open(n + '.py', 'w').write('raise SystemExit(9)')"
    assert (await forks.run(sandbox, write)).exit_code == 0
    ran = await forks.run(sandbox, "print('on')\n1 / 0")
    assert (ran.stdout, ran.exit_code) == (b"on\n", 1)
    assert ran.error is not None
    assert ran.error.name == "ZeroDivisionError"
    assert "1 / 0" in ran.error.traceback


async def test_locks(forks: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that all environments are shown is felt in its own environment only."""
    hold = (
        "import fcntl, os, signal\nf = open('/usr/bin/env', 'rb')\nfcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "open('held', 'w').close()\nsignal.pause()"
    )
    take = (
        "import fcntl\ntry: fcntl.flock(open('/usr/bin/env', 'rb'), fcntl.LOCK_EX | fcntl.LOCK_NB); answer = True\n"
        "except BlockingIOError: answer = False"
    )
    sandbox, neighbour = await forks.make(), await forks.make()
    holding = sandbox.execute(forks.request(hold))
    await forks.run(sandbox, "import os, time\nwhile not os.path.exists('held'): time.sleep(0.002)")
    assert await forks.ask(sandbox, take) is False
    assert await forks.ask(neighbour, take) is True
    # It answers when all of it is dead, however long the kernel takes.
    monkeypatch.setattr("sandgate.sandbox.execution._CONFIRM_S", 20.0)
    holding.cancel()
    await holding.wait()
    assert await forks.ask(sandbox, take) is True
