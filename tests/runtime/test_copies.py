"""Files that go from sandbox to sandbox: all of them, as they are, and nothing else, whatever code does meanwhile."""

import asyncio
import os
from pathlib import Path

import pytest

from sandgate.core.errors import ArchiveInvalid, DiskFull, SandboxFailed, SnapshotTooLarge, StoreUnavailable
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import make_volume_id
from sandgate.core.limits import MIB, Limits
from sandgate.core.volume import MountedVolume
from sandgate.sandbox.base import Sandbox
from tests.runtime.hosts import Bench, LauncherHost, until
from tests.runtime.test_snapshots import HOSTILE, LOOK, TOPS, TREE, hostile_archive, restore

pytestmark = pytest.mark.needs_root_namespaces

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


async def _copy(bench: Bench, first: Sandbox, second: Sandbox, entries: int = 10_000, size: int = 1 << 30) -> bool:
    async with asyncio.timeout(30):
        return await bench.runtime.copies.copy(first.environment_id, second.environment_id, TOPS, entries, size)


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
    assert used.processes in (0, 1)


# Folder, link and pipe take each other's place all the time, and so do files.
_SWAP = """
import os
os.chdir('/workspace')
os.mkdir('mine'); open('mine/own', 'w').write('own'); os.mkdir('deep'); os.mkdir('deep/er')
for n in range(200): open(f'deep/er/{n}', 'w').write('own' * 3000)
os.symlink('/etc', 'link'); os.symlink('/etc/passwd', 'file-link'); os.mkfifo('pipe'); open('plain', 'w').write('own')
os.rename('mine', 'x'); os.rename('plain', 'y')
open('/tmp/busy', 'w').close()
while True:
    for one, other in (('x', 'mine'), ('link', 'x')): os.rename(one, other)
    for one, other in (('y', 'plain'), ('file-link', 'y')): os.rename(one, other)
    for one, other in (('x', 'link'), ('mine', 'x')): os.rename(one, other)
    for one, other in (('y', 'file-link'), ('pipe', 'y'), ('y', 'pipe'), ('plain', 'y')): os.rename(one, other)
    os.rename('deep/er', 'er'); os.rename('er', 'deep/er')
    for n in range(0, 200, 50): os.truncate(f'deep/er/{n}', n); os.truncate(f'deep/er/{n}', 9000)
"""
_FOUND = """
import os, stat
answer = []
for at, folders, files in os.walk('/workspace'):
    for name in folders + files:
        path = os.path.join(at, name)
        kind = os.lstat(path).st_mode
        if stat.S_ISREG(kind): answer += [path] * bool(open(path, 'rb').read().strip(b'own\\0'))
        elif not (stat.S_ISDIR(kind) or stat.S_ISLNK(kind) or stat.S_ISFIFO(kind)): answer.append(path)
        if stat.S_ISDIR(kind) and set(os.listdir(path)) - {'own', 'er', *map(str, range(200))}: answer.append(path)
"""


async def test_what_is_swapped_meanwhile_leads_nowhere(standard: Bench) -> None:
    """Of code that is not stopped nothing is followed or waited for: what comes is its own, or nothing."""
    first = await standard.make(limits=Limits(concurrent_executions=2))
    swapping = first.execute(ExecutionRequest(_SWAP, 60))
    wait = "import os, time\nwhile not os.path.exists('/tmp/busy'): time.sleep(0.002)"
    assert (await standard.run(first, wait)).exit_code == 0
    for _round in range(6):
        second = await standard.make()
        assert await _copy(standard, first, second)
        assert await standard.ask(second, _FOUND) == []
    assert not swapping._result.done()  # type: ignore[attr-defined]
    swapping.cancel()
    await swapping.wait()


async def test_nothing_is_left_when_one_of_them_ends(standard: Bench, standard_host: LauncherHost) -> None:
    """The new one takes what copies along; the old one's files stay as long as they are copied, and no longer."""
    limits = Limits(disk_bytes=600 * MIB, memory_bytes=700 * MIB, file_size_bytes=600 * MIB)
    first = await standard.make(limits=limits)
    big = "file = open('/workspace/big', 'wb')\nfor _ in range(300): file.write(bytes(1 << 20))"
    assert (await standard.run(first, big)).exit_code == 0
    second, third = await standard.make(limits=limits), await standard.make(limits=limits)
    # What works for the launcher is its child, as zygotes are.
    there = len(standard_host.zygotes())
    to_second, to_third = (asyncio.ensure_future(_copy(standard, first, each)) for each in (second, third))
    await until(lambda: len(standard_host.zygotes()) == there + 2)
    await standard.runtime.destroy(second.environment_id)
    with pytest.raises(SandboxFailed, match="it was deleted"):
        await to_second
    await standard.runtime.destroy(first.environment_id)
    assert await to_third
    assert (await standard.run(third, "import os; print(os.stat('/workspace/big').st_size >> 20)")).stdout == b"300\n"
    with pytest.raises(SandboxFailed, match="no such sandbox"):
        await _copy(standard, first, third)
    assert len(standard_host.zygotes()) == there


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
        told = await copies.pack(first.environment_id, file.fileno(), TOPS, 10_000, 1 << 30)
        size = os.fstat(file.fileno()).st_size
        assert (told["skipped"], told["files"] > 10, told["bytes"] < size < told["bytes"] + MIB) == (1, True, True)
        assert (await standard.run(second, "open('/workspace/of-the-template', 'w').close()")).exit_code == 0
        await copies.unpack(second.environment_id, file.fileno(), TOPS, 10_000, 1 << 30)
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
                await copies.pack(first.environment_id, file.fileno(), TOPS, entries, size)
            file.truncate(0)
            os.lseek(file.fileno(), 0, os.SEEK_SET)
        await copies.pack(first.environment_id, file.fileno(), TOPS, 10_000, 1 << 30)
        small = await standard.make(limits=Limits(disk_bytes=16 * MIB))
        with pytest.raises(DiskFull):
            await copies.unpack(small.environment_id, file.fileno(), TOPS, 10_000, 1 << 30)
    for path, refusal in (("/dev/null", SandboxFailed), (str(tmp_path / "archive"), StoreUnavailable)):
        only_read = os.open(path, os.O_RDONLY)
        with pytest.raises(refusal):
            await copies.pack(first.environment_id, only_read, TOPS, 10_000, 1 << 30)
        os.close(only_read)


@pytest.mark.parametrize("kind", HOSTILE)
async def test_hostile_archives_reach_nothing_else(standard: Bench, kind: str, tmp_path: Path) -> None:
    """What no sandbox of ours has written is refused, within the walls."""
    (tmp_path / "archive").write_bytes(hostile_archive(kind))
    second = await standard.make()
    with (tmp_path / "archive").open("rb") as file, pytest.raises(ArchiveInvalid):
        await standard.runtime.copies.unpack(second.environment_id, file.fileno(), TOPS, 10_000, 1 << 30)
