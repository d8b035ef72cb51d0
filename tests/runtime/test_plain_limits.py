"""What the process class holds although it has no walls: limits that the kernel keeps for a single process."""

import pytest

from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus, Isolation
from tests.runtime.hosts import Bench, launcher_host, until

LIMITS = Limits(memory_bytes=32 * MIB, file_size_bytes=16 * MIB, open_files=128)

TRIED = {
    "a large file": (
        "import errno\nf = open('large', 'wb')\ntry: f.truncate((16 << 20) + 1)\n"
        "except OSError as e: print(errno.errorcode[e.errno])",
        "EFBIG\n",
    ),
    "a large file of a shell's": (
        "import os, subprocess\nsubprocess.run(['/bin/sh', '-c', 'head -c 20000000 /dev/zero > large 2>/dev/null'])\n"
        "print(os.path.getsize('large') <= 16 << 20)",
        "True\n",
    ),
    "many descriptors": (
        "import errno, os\ntry:\n    while True: os.dup(0)\nexcept OSError as e: print(errno.errorcode[e.errno])\n",
        "EMFILE\n",
    ),
    "much memory": ("try: bytearray(2 << 30)\nexcept MemoryError as e: print('MemoryError')", "MemoryError\n"),
    "higher limits": (
        "import resource\nfor n in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS):\n"
        "    try: resource.setrlimit(n, (1 << 40, 1 << 40))\n    except ValueError: print('no')",
        "no\n" * 3,
    ),
    "a core dump": ("import resource; print(resource.getrlimit(resource.RLIMIT_CORE))", "(1, 1)\n"),
    "privileges": ("print('NoNewPrivs:\\t1' in open('/proc/self/status').read())", "True\n"),
}


@pytest.mark.parametrize("name", TRIED)
async def test_limit(name: str, process: Bench) -> None:
    """Going over it is an error to the code that does, and the next execution has the same again."""
    code, said = TRIED[name]
    sandbox = await process.make(limits=LIMITS)
    for _round in range(2):
        ran = await process.run(sandbox, code)
        assert (ran.status, ran.stdout.decode(), ran.stderr) == (ExecutionStatus.COMPLETED, said, b""), sandbox.failure
    assert await process.works(sandbox)


async def test_descriptors_of_other_sandboxes_do_not_count() -> None:
    """The kernel counts those that are on their way for the user that all share: three for each one that waits."""
    waiting = LIMITS.open_files // 3 + 8
    with launcher_host(Isolation.PROCESS, spares=waiting) as host:
        bench = Bench(host, host.runtime())
        await bench.runtime.start(bench.on_end)
        sandbox = await bench.make(limits=LIMITS)
        # Spares have the template's limits, and are made once one with them was asked for.
        await bench.make()
        await until(lambda: len(host.forkers()) == waiting + 2)
        for _other in range(3):
            assert await bench.works(await bench.make(limits=LIMITS))
        assert await bench.works(sandbox)
        assert "a forker ended" not in host.log()
        await bench.runtime.stop(keep_sandboxes=False)


async def test_a_file_of_the_size_of_the_disk(process: Bench) -> None:
    """Is the largest, where no limit of its own is set for files."""
    sandbox = await process.make(limits=Limits(memory_bytes=32 * MIB, disk_bytes=16 * MIB))
    code, said = TRIED["a large file"]
    ran = await process.run(sandbox, code)
    assert (ran.stdout.decode(), ran.stderr) == (said, b"")


async def test_packages_that_code_installs(process: Bench) -> None:
    """Their programs are found where this environment has them; a distribution's refusal to pip holds out here."""
    code = "import os\nlast = os.environ['PATH'].split(':')[-1]\n"
    code += "answer = [last == os.environ['HOME'] + '/.local/bin', 'PIP_BREAK_SYSTEM_PACKAGES' in os.environ]"
    assert await process.ask(await process.make(), code) == [True, False]
