"""Files that go from sandbox to sandbox: all of them, as they are, and nothing else, whatever code does meanwhile."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandgate.core.errors import (
    ArchiveInvalid,
    DiskFull,
    FilesUnavailable,
    SandboxFailed,
    SnapshotTooLarge,
    StoreUnavailable,
)
from sandgate.core.ids import make_volume_id
from sandgate.core.limits import MIB, Limits
from sandgate.core.volume import MountedVolume
from sandgate.sandbox.base import Sandbox
from sandgate.sandbox.launcher.cgroup import Group, GroupLimits, Tree
from sandgate.sandbox.launcher.file_work import MOST_AT_ONCE
from sandgate.sandbox.launcher.hierarchies import find_hierarchies
from tests.runtime.hosts import Bench, LauncherHost, until
from tests.runtime.test_snapshots import HOSTILE, LOOK, TOPS, TREE, hostile_archive, restore

pytestmark = pytest.mark.needs_root_namespaces

_LIMIT_S = 120.0
_OTHERS = """
import os
os.setxattr('/workspace/runs', 'user.k', bytes(range(256)))
os.setxattr('/workspace/empty', 'user.d', b'1')
os.mkfifo('/workspace/fifo', 0)
os.mkdir('/workspace/sticky'); os.chmod('/workspace/sticky', 0o1770)
os.chmod('/workspace/closed', 0)
for n in range(64): os.pwrite(os.open('/workspace/holes', os.O_RDWR | os.O_CREAT), b'y' * 9000, n * 40960)
os.truncate('/workspace/holes', 250 << 20)
"""
_LOOK_AT_OTHERS = """
import os
holes = os.stat('/workspace/holes')
file = os.open('/workspace/holes', os.O_RDONLY)
answer = [
    list(os.getxattr('/workspace/runs', 'user.k')), list(os.getxattr('/workspace/empty', 'user.d')),
    oct(os.lstat('/workspace/fifo').st_mode), oct(os.stat('/workspace/sticky').st_mode), oct(os.stat('/tmp').st_mode),
    oct(os.stat('/workspace/closed').st_mode), holes.st_size, holes.st_blocks,
    sum(os.pread(file, 64 * 40960, 0)), os.lseek(file, 63 * 40960 + 12288, os.SEEK_HOLE),
    {os.lstat(os.path.join(at, n)).st_uid for at, folders, files in os.walk('/workspace') for n in folders + files}
    == {1000},
]
"""


@asynccontextmanager
async def _still(sandbox: Sandbox) -> AsyncIterator[None]:
    """It stands still meanwhile, as whoever copies from it has to see to."""
    await sandbox.standstill.begin()
    try:
        yield
    finally:
        # It may have ended.
        with suppress(SandboxFailed):
            await sandbox.standstill.end()


async def _copy(bench: Bench, first: Sandbox, second: Sandbox, entries: int = 10_000, size: int = 1 << 30) -> bool:
    async with asyncio.timeout(120), _still(first):
        return await _copy_still(bench, first, second, entries, size)


async def _copy_still(
    bench: Bench, first: Sandbox, second: Sandbox, entries: int = 10_000, size: int = 1 << 30
) -> bool:
    return await bench.runtime.copies.copy(first.environment_id, second.environment_id, TOPS, entries, size, _LIMIT_S)


async def _pack(bench: Bench, sandbox: Sandbox, file: int, entries: int = 10_000, size: int = 1 << 30) -> Any:
    async with asyncio.timeout(120), _still(sandbox):
        return await bench.runtime.copies.pack(sandbox.environment_id, file, TOPS, entries, size, _LIMIT_S)


async def _look(bench: Bench, sandbox: Sandbox) -> list[str]:
    ran = await bench.run(sandbox, LOOK)
    assert ran.exit_code == 0, ran.stderr
    return [line for line in ran.stdout.decode().splitlines() if "/tmp/sock" not in line]


async def test_it_is_as_it_was(standard: Bench) -> None:
    """Links, closed folders, odd names, modes, times, other names of files, pipes, what is sparse; attributes, too.

    Neither sockets nor what gives away powers; and what was there before is gone.
    """
    first, second = await standard.make(), await standard.make()
    assert (await standard.run(first, TREE)).exit_code == 0
    assert (await standard.run(second, "import os; os.makedirs('/workspace/of-the-template/x')")).exit_code == 0
    assert await _copy(standard, first, second)
    before = [
        line.replace("0o104755", "0o100755").replace("0o102755", "0o100755") for line in await _look(standard, first)
    ]
    assert await _look(standard, second) == before


async def test_attributes_holes_and_owners_stay(standard: Bench) -> None:
    """Also those of folders; a large file with a few pages takes a few pages, and everything is the user's."""
    first, second = await standard.make(), await standard.make()
    assert (await standard.run(first, TREE + _OTHERS)).exit_code == 0
    assert await _copy(standard, first, second, size=2 * MIB)
    expected = await standard.ask(first, _LOOK_AT_OTHERS)
    assert expected[-1]
    assert await standard.ask(second, _LOOK_AT_OTHERS) == expected
    # What is written to one is its own.
    assert (await standard.run(second, "open('/workspace/runs', 'w').write('other')")).exit_code == 0
    assert (await standard.run(first, "print(open('/workspace/runs').read())")).stdout == b"runs\n"


async def test_what_is_too_much_is_refused(standard: Bench) -> None:
    """Entries and bytes; depth beyond any path is left out, and is no reason to fail."""
    first = await standard.make()
    many = "for n in range(2500): open(f'/tmp/{n}', 'w').close()\nopen('/workspace/big', 'wb').write(bytes(9 << 20))"
    deep = "import os\nos.chdir('/workspace')\nfor _ in range(30): os.mkdir('d' * 200); os.chdir('d' * 200)"
    levels = "import os\nos.chdir('/tmp')\nfor _ in range(2000): os.mkdir('d'); os.chdir('d')"
    for code in (many, deep, levels):
        assert (await standard.run(first, code)).exit_code == 0
    for entries, size in ((1500, 1 << 30), (10_000, 8 << 20)):
        with pytest.raises(SnapshotTooLarge):
            await _copy(standard, first, await standard.make(), entries, size)
    second = await standard.make()
    assert await _copy(standard, first, second)
    answer = await standard.ask(second, "import os; answer = sum(1 for _ in os.walk('/workspace'))")
    assert 10 < answer < 20


async def test_room_and_memory_are_those_of_the_new_one(standard: Bench) -> None:
    """What does not fit is refused by its file system; what does is counted with it, and with nobody else."""
    first = await standard.make()
    assert (await standard.run(first, "open('/workspace/big', 'wb').write(bytes(30 << 20))")).exit_code == 0
    small = await standard.make(limits=Limits(disk_bytes=16 * MIB))
    with pytest.raises(SandboxFailed, match="No space left"):
        await _copy(standard, first, small)
    second = await standard.make()
    before = await second.usage()
    assert await _copy(standard, first, second)
    used = await second.usage()
    assert (used.disk_bytes or 0) - (before.disk_bytes or 0) >= 30 * MIB
    assert (used.memory_bytes or 0) >= 30 * MIB > 10 * (before.memory_bytes or 0)
    # The child that waits for code; what copied is gone.
    async with asyncio.timeout(60):
        while (used.processes or 0) > 1:
            used = await second.usage()


@pytest.fixture
def slow_packing(standard_host: LauncherHost) -> Iterator[Group]:
    """The group of what packs, which has little of the processor meanwhile."""
    group = Tree(find_hierarchies(Path("/proc/self/mountinfo").read_text()), standard_host.config.tree_name).group(
        "packing"
    )
    group.change(GroupLimits(None, _LITTLE_CPU, None))
    yield group
    group.change(GroupLimits(None, 1000, MOST_AT_ONCE))


# What fills a sandbox is counted with it.
_LITTLE_CPU = 50
# The least that the kernel takes: in two seconds nobody packs 300 MiB with it.
_LEAST_CPU = 10
_ROOM = Limits(disk_bytes=600 * MIB, memory_bytes=700 * MIB, file_size_bytes=600 * MIB)
_SLOW_ROOM = replace(_ROOM, cpu_millis=_LITTLE_CPU)
_BIG = """
import os
os.mkdir('/workspace/a', 0)
os.mkdir('/workspace/b')
for n in range(300): open(f'/workspace/b/{n}', 'wb').write(bytes(1 << 20))
"""


async def _make_big(bench: Bench) -> Sandbox:
    first = await bench.make(limits=_ROOM)
    assert (await bench.run(first, _BIG)).exit_code == 0
    return first


async def test_nothing_is_left_when_one_of_them_ends(standard: Bench, standard_host: LauncherHost) -> None:
    """The new one takes what copies along, and so does the old one; neither ends what goes to others before that."""
    first = await _make_big(standard)
    second, third = await standard.make(limits=_SLOW_ROOM), await standard.make(limits=_SLOW_ROOM)
    # What works for the launcher is its child, as zygotes are.
    there = len(standard_host.zygotes())
    async with _still(first):
        to_second, to_third = (asyncio.ensure_future(_copy_still(standard, first, each)) for each in (second, third))
        await until(lambda: len(standard_host.zygotes()) == there + 2)
        await standard.runtime.destroy(second.environment_id)
        with pytest.raises(SandboxFailed, match="it was deleted"):
            await to_second
        await until(lambda: len(standard_host.zygotes()) == there + 1)
        assert not to_third.done()
        await standard.runtime.destroy(first.environment_id)
        with pytest.raises(FilesUnavailable, match="it was deleted"):
            await to_third
        await until(lambda: len(standard_host.zygotes()) == there)
    with pytest.raises(SandboxFailed, match="no such sandbox"):
        await _copy_still(standard, first, third)


async def test_what_does_not_stand_still_is_not_read(standard: Bench, tmp_path: Path) -> None:
    """Whoever asks for it has to see to that before: none of it may go on, nor be about to stop."""
    first, second = await standard.make(), await standard.make()
    with (tmp_path / "archive").open("w+b") as file:

        async def assert_refused() -> None:
            with pytest.raises(SandboxFailed, match="does not stand still"):
                await _copy_still(standard, first, second)
            with pytest.raises(SandboxFailed, match="does not stand still"):
                await standard.runtime.copies.pack(first.environment_id, file.fileno(), TOPS, 10_000, 1 << 30, _LIMIT_S)
            assert os.fstat(file.fileno()).st_size == 0

        await assert_refused()
        apart = await first.standstill.begin_but()
        await assert_refused()
        apart.close()
        await first.standstill.end()
        assert await _copy(standard, first, second)


async def test_what_reads_ends_when_it_goes_on(
    standard: Bench, standard_host: LauncherHost, tmp_path: Path, slow_packing: Group
) -> None:
    """Nothing is copied or packed of two moments; whoever waits for it is told, and all is left as it was."""
    first, second = await _make_big(standard), await standard.make(limits=_SLOW_ROOM)
    there = len(standard_host.zygotes())
    with (tmp_path / "archive").open("w+b") as file:
        async with _still(first):
            reading = [
                asyncio.ensure_future(_copy_still(standard, first, second)),
                asyncio.ensure_future(
                    standard.runtime.copies.pack(first.environment_id, file.fileno(), TOPS, 10_000, 1 << 30, _LIMIT_S)
                ),
            ]
            await until(lambda: len(standard_host.zygotes()) == there + 2)
            await until(lambda: os.fstat(file.fileno()).st_size > MIB)
        for each in reading:
            with pytest.raises(SandboxFailed, match="it goes on again"):
                await each
        await until(lambda: len(standard_host.zygotes()) == there)
    # It was read before what takes its time, and is closed.
    assert await standard.ask(first, "import os\nanswer = oct(os.stat('/workspace/a').st_mode)") == "0o40000"


@pytest.mark.parametrize("waits", [True, False])
async def test_what_is_not_done_in_time_is_given_up(
    waits: bool, standard: Bench, standard_host: LauncherHost, tmp_path: Path, slow_packing: Group
) -> None:
    """Whether or not somebody waits for it, and though its sandbox stands still for as long as it likes."""
    first = await _make_big(standard)
    there = len(standard_host.zygotes())
    slow_packing.change(GroupLimits(None, _LEAST_CPU, None))
    limit_s = 0.2 if waits else 2.0
    with (tmp_path / "archive").open("w+b") as file:
        async with _still(first):
            packing = asyncio.ensure_future(
                standard.runtime.copies.pack(first.environment_id, file.fileno(), TOPS, 10_000, 1 << 30, limit_s)
            )
            if waits:
                with pytest.raises(SandboxFailed, match=r"took more than 0\.2 seconds"):
                    await packing
            else:
                # Where this process was kept from looking for so long, it is over.
                await until(lambda: len(standard_host.zygotes()) > there or packing.done())
                packing.cancel()
                with pytest.raises((asyncio.CancelledError, SandboxFailed)):
                    await packing
            await until(lambda: len(standard_host.zygotes()) == there)
            assert slow_packing.pids() == set()


async def test_what_packs_is_counted_and_bounded(
    standard: Bench, standard_host: LauncherHost, tmp_path: Path, slow_packing: Group
) -> None:
    """With all that packs, for its sandbox stands still; and for itself. One sandbox has one, and one that fills it."""
    first, second = await _make_big(standard), await standard.make(limits=_SLOW_ROOM)
    pack = standard.runtime.copies.pack
    with (tmp_path / "one").open("w+b") as one, (tmp_path / "other").open("w+b") as other:
        async with _still(first):
            packing = asyncio.ensure_future(pack(first.environment_id, one.fileno(), TOPS, 10_000, 1 << 30, _LIMIT_S))
            await until(slow_packing.pids)
            (pid,) = slow_packing.pids()
            await until(lambda: _limit_of(pid, "Max cpu time") == "121")
            # And 128 MiB with a KiB for each entry, beyond what the launcher has.
            assert 138 * MIB < int(_limit_of(pid, "Max data size")) < 400 * MIB
            anew = asyncio.ensure_future(pack(first.environment_id, other.fileno(), TOPS, 10_000, 1 << 30, _LIMIT_S))
            with pytest.raises(SandboxFailed, match="packed anew"):
                await packing
            filling = [_copy_still(standard, first, second) for _each in range(2)]
            filled, refused = await asyncio.gather(*filling, return_exceptions=True)
            assert filled is True
            assert "being filled already" in str(refused)
            slow_packing.change(GroupLimits(None, 1000, None))
            assert (await anew)["bytes"] == 300 * MIB
    assert slow_packing.pids() == set()


def _limit_of(pid: int, name: str) -> str:
    """The soft limit of a process. Source: proc_pid_limits(5)."""
    (line,) = (each for each in Path(f"/proc/{pid}/limits").read_text().splitlines() if each.startswith(name))
    return line.removeprefix(name).split()[0]


async def test_what_is_mounted_in_it_is_not_copied(standard: Bench) -> None:
    """Of a volume only the folder that it is at."""
    if standard.runtime.volumes.lack:
        pytest.skip(standard.runtime.volumes.lack)
    first = await standard.make_with(MountedVolume(make_volume_id(), "data", "/workspace/data", False, 32 * MIB))
    second = await standard.make()
    assert (await standard.run(first, "open('/workspace/data/f', 'w').close(); open('g', 'w').close()")).exit_code == 0
    assert await _copy(standard, first, second)
    code = "import os; answer = [sorted(os.listdir('/workspace')), os.listdir('/workspace/data')]"
    assert await standard.ask(second, code) == [["data", "g"], []]


async def test_archives_hold_all_of_it(standard: Bench, tmp_path: Path) -> None:
    """Written and laid out from outside as from within; the two are of one form."""
    first, second, third = [await standard.make() for _each in range(3)]
    assert (await standard.run(first, TREE)).exit_code == 0
    copies = standard.runtime.copies
    with (tmp_path / "archive").open("w+b") as file:
        told = await _pack(standard, first, file.fileno())
        size = os.fstat(file.fileno()).st_size
        assert (told["skipped"], told["files"] > 10, told["bytes"] < size < told["bytes"] + MIB) == (1, True, True)
        assert (await standard.run(second, "open('/workspace/of-the-template', 'w').close()")).exit_code == 0
        await copies.unpack(second.environment_id, file.fileno(), TOPS, 10_000, 1 << 30, _LIMIT_S)
        before = [
            line.replace("0o104755", "0o100755").replace("0o102755", "0o100755")
            for line in await _look(standard, first)
        ]
        assert await _look(standard, second) == before
        await restore(third, (tmp_path / "archive").read_bytes())
    assert await _look(standard, third) == before


async def test_archives_are_bounded(standard: Bench, tmp_path: Path) -> None:
    """In bytes, entries and by the disk; what has no room outside is the server's trouble; pipes are no files."""
    first, copies = await standard.make(), standard.runtime.copies
    many = "import os\nfor n in range(300): open(f'/tmp/{n}', 'w').close()\n"
    many += "open('/workspace/big', 'wb').write(os.urandom(20 << 20))"
    assert (await standard.run(first, many)).exit_code == 0
    with (tmp_path / "archive").open("w+b") as file:
        for entries, size in ((200, 1 << 30), (10_000, 8 << 20), (10_000, 20 << 20)):
            with pytest.raises(SnapshotTooLarge):
                await _pack(standard, first, file.fileno(), entries, size)
            file.truncate(0)
            os.lseek(file.fileno(), 0, os.SEEK_SET)
        await _pack(standard, first, file.fileno())
        small = await standard.make(limits=Limits(disk_bytes=16 * MIB))
        with pytest.raises(DiskFull):
            await copies.unpack(small.environment_id, file.fileno(), TOPS, 10_000, 1 << 30, _LIMIT_S)
    for path, refusal in (("/dev/null", SandboxFailed), (str(tmp_path / "archive"), StoreUnavailable)):
        only_read = os.open(path, os.O_RDONLY)
        with pytest.raises(refusal):
            await _pack(standard, first, only_read)
        os.close(only_read)


@pytest.mark.parametrize("kind", HOSTILE)
async def test_hostile_archives_reach_nothing_else(standard: Bench, kind: str, tmp_path: Path) -> None:
    """What no sandbox of ours has written is refused, within the walls."""
    (tmp_path / "archive").write_bytes(hostile_archive(kind))
    second = await standard.make()
    with (tmp_path / "archive").open("rb") as file, pytest.raises(ArchiveInvalid):
        await standard.runtime.copies.unpack(second.environment_id, file.fileno(), TOPS, 10_000, 1 << 30, _LIMIT_S)
