"""Disks of sandboxes that are images: what they hold, what bounds them, and that nothing of them is left."""

import contextlib
import errno
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus, Isolation
from sandgate.sandbox.launcher import images
from sandgate.sandbox.launcher.disks import Disks
from tests.runtime.hosts import Bench, LauncherHost, launcher_host, start_launcher, until

pytestmark = pytest.mark.needs_root_namespaces

_LIMITS = Limits(memory_bytes=64 * MIB, disk_bytes=128 * MIB, inodes=4096)
_FILL = """
import os
fd = os.open('/workspace/big', os.O_CREAT | os.O_WRONLY)
answer = 0
try:
    while answer < 1 << 30: answer += os.write(fd, b'x' * (1 << 20))
except OSError as error:
    answer = [error.errno, answer]
"""
_MANY = """
import os
answer = 0
try:
    while answer < 100_000:
        open('/tmp/%d' % answer, 'w').close()
        answer += 1
except OSError as error:
    answer = [error.errno, answer]
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LauncherHost]:
    """A launcher that keeps them on the disk."""
    with launcher_host(Isolation.STANDARD, disks_folder=tmp_path_factory.mktemp("on") / "disks") as made:
        yield made


@pytest.fixture
async def on_disk(host: LauncherHost) -> AsyncIterator[Bench]:
    """A runtime of it."""
    made = Bench(host, host.runtime())
    await made.runtime.start(made.on_end)
    yield made
    for environment_id in made.made:
        await made.runtime.destroy(environment_id)
    await made.runtime.stop(keep_sandboxes=True)


def devices(folder: Path) -> set[str]:
    """The loop devices that are in use for files of a folder."""
    found = set()
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if file.read_text().startswith(f"{folder}/"):
                found.add(file.parent.parent.name)
    return found


def blanks(host: LauncherHost) -> list[str]:
    """What there is in the folder."""
    assert host.config.disks_folder is not None
    return sorted(os.listdir(host.config.disks_folder))


async def test_files_are_no_memory(on_disk: Bench) -> None:
    """More is written than there is memory; each byte is on the disk, and read again."""
    sandbox = await on_disk.make(limits=_LIMITS)
    code = """
with open('/workspace/big', 'wb') as file:
    for number in range(100): file.write(bytes([number]) * (1 << 20))
with open('/workspace/big', 'rb') as file:
    answer = all(file.read(1 << 20) == bytes([number]) * (1 << 20) for number in range(100))
"""
    assert await on_disk.ask(sandbox, code) is True
    used = await sandbox.usage()
    assert used.disk_bytes is not None
    assert used.disk_bytes >= 100 * MIB
    assert used.out_of_memory_kills == 0
    assert used.memory_bytes is not None
    assert used.memory_bytes <= 64 * MIB


async def test_a_disk_is_the_environments_own(on_disk: Bench) -> None:
    """Its files belong to its users, its root is nobody's to take down, and a neighbour has another one."""
    one, two = await on_disk.make(limits=_LIMITS), await on_disk.make(limits=_LIMITS)
    await on_disk.ask(one, "answer = open('/workspace/x', 'w').write('mine')")
    look = """
import os
(mount,) = [line.split() for line in open('/proc/self/mountinfo') if line.split()[4] == '/']
owners = [os.stat(path).st_uid for path in ('/', '/workspace', '/home/user', '/tmp')]
answer = [mount[-3], sorted(set(mount[5].split(',')) & {'nosuid', 'nodev'}), owners, os.listdir('/workspace')]
"""
    assert await on_disk.ask(one, look) == ["ext4", ["nodev", "nosuid"], [0, 1000, 1000, 0], ["x"]]
    assert await on_disk.ask(two, look) == ["ext4", ["nodev", "nosuid"], [0, 1000, 1000, 0], []]


async def test_it_is_bounded(on_disk: Bench) -> None:
    """In bytes and in files, near to what was asked for; a neighbour goes on."""
    sandbox, neighbour = await on_disk.make(limits=_LIMITS), await on_disk.make(limits=_LIMITS)
    number, written = await on_disk.ask(sandbox, _FILL)
    assert number == errno.ENOSPC
    assert 0.98 * _LIMITS.disk_bytes <= written <= _LIMITS.disk_bytes
    number, made = await on_disk.ask(neighbour, _MANY)
    assert number == errno.ENOSPC
    assert 0.9 * _LIMITS.inodes <= made <= 1.1 * _LIMITS.inodes
    for each in (sandbox, neighbour):
        assert await on_disk.works(each)


@pytest.mark.parametrize(
    ("size_mb", "inodes", "least_part"), [(1, 1000, 0.87), (5, 65_536, 0.97), (777, 10_000, 0.999), (4096, 10**6, 0.99)]
)
def test_no_disk_is_larger_than_was_asked_for(tmp_path: Path, size_mb: int, inodes: int, least_part: float) -> None:
    """Nor much smaller, also where the next block would begin another group of blocks, with tables of its own."""
    mount = Disks(tmp_path / "disks").mount(size_mb * MIB, inodes)
    found = os.fstatvfs(mount)
    os.close(mount)
    assert least_part * size_mb * MIB <= found.f_bavail * found.f_frsize <= size_mb * MIB


def test_of_all_who_need_a_blank_one_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As spares do, that are made at once when a server starts."""
    tried, sizes = tmp_path / "tried", Disks(tmp_path / "disks")
    make = images.make_file_system

    def note(image: int, options: Sequence[str], owner: int) -> None:
        with tried.open("a") as file:
            file.write("x")
        make(image, options, owner)

    monkeypatch.setattr(images, "make_file_system", note)
    os.close(sizes.mount(16 * MIB, 1000))
    alone = len(tried.read_text())
    processes = []
    for _number in range(4):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(sizes.mount(16 * MIB, 1001))
                status = 0
            finally:
                os._exit(status)
        processes.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in processes] == [0] * 4
    assert len(tried.read_text()) <= 2 * alone + 2


def test_a_disk_that_no_image_holds_is_refused(tmp_path: Path) -> None:
    """Rather than one that is much smaller, or larger."""
    with pytest.raises(OSError, match="no disk of 1048576 bytes for 1000000 files"):
        Disks(tmp_path / "disks").mount(MIB, 1_000_000)
    assert os.listdir(tmp_path / "disks") == []


async def test_nothing_is_left(on_disk: Bench) -> None:
    """A disk has no name, and goes with its environment; what is kept are blank ones, one for each size."""
    folder = on_disk.host.config.disks_folder
    assert folder is not None
    # Those of the tests before may still be let go of, and their numbers given again.
    await until(lambda: not devices(folder))
    sandbox = await on_disk.make(limits=_LIMITS)
    there = blanks(on_disk.host)
    assert len(devices(folder)) == 1
    assert f"blank-{_LIMITS.disk_bytes}-{_LIMITS.inodes}.img" in there
    await on_disk.runtime.destroy(sandbox.environment_id)
    await until(lambda: not devices(folder))
    await on_disk.make(limits=replace(_LIMITS, disk_bytes=64 * MIB))
    assert len(blanks(on_disk.host)) == len(there) + 1


async def test_executions_side_by_side(on_disk: Bench) -> None:
    """Slots that come later have the same files; volumes are mounted there as elsewhere."""
    sandbox = await on_disk.make(limits=_LIMITS)
    waits = sandbox.execute(on_disk.request("open('/workspace/a', 'w').write('x'); import time; time.sleep(60)"))
    assert await on_disk.ask(sandbox, "import os\nwhile not os.path.exists('/workspace/a'): pass\nanswer = 1") == 1
    waits.cancel()
    assert (await waits.wait()).status is ExecutionStatus.CANCELLED


async def test_spares_and_a_launcher_that_is_killed(tmp_path: Path) -> None:
    """Spares have disks already; one of another size is made anew. Nothing outlives the launcher."""
    folder = tmp_path / "disks"
    with launcher_host(Isolation.STANDARD, spares=2, most_spares=2, disks_folder=folder) as host:
        bench = Bench(host, host.runtime())
        await bench.runtime.start(bench.on_end)
        await bench.runtime.destroy((await bench.make()).environment_id)
        await until(lambda: len(host.groups()) == 2 and len(host.processes()) >= 4)
        spares = set(host.forkers())
        larger = await bench.make(limits=Limits(disk_bytes=300 * MIB))
        assert spares <= set(host.forkers())
        seen = "import os; found = os.statvfs('/'); answer = found.f_blocks * found.f_frsize >> 20"
        assert 300 <= await bench.ask(larger, seen) <= 320
        taken = await bench.make(limits=Limits(memory_bytes=300 * MIB))
        assert spares & set(host.forkers())
        assert 256 <= await bench.ask(taken, seen) <= 275
        host.process.send_signal(signal.SIGKILL)
        host.process.wait(60)
        await until(lambda: not devices(folder))
        assert all(name.startswith("blank-") for name in os.listdir(folder))
        (folder / "blank-1-1.img.7.new").touch()
        host.process = start_launcher(host.config)
        assert all(name.endswith(".img") for name in os.listdir(folder))
        await until(lambda: len(bench.ended) == 2)
        assert await bench.works(await bench.make())
        await bench.runtime.stop(keep_sandboxes=False)
