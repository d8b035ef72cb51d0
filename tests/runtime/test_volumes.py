"""Volumes of real sandboxes: what lasts, what is shared, what is full, and what is left of them."""

import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sandgate.core.errors import SandboxFailed
from sandgate.core.ids import VolumeId, make_volume_id
from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus, Isolation
from sandgate.core.volume import MountedVolume
from sandgate.sandbox.base import Sandbox
from sandgate.sandbox.launcher import images
from sandgate.sandbox.launcher.images import Shelf
from tests.runtime.conftest import WALLED
from tests.runtime.hosts import Bench, LauncherHost, launcher_host, start_launcher, until

pytestmark = pytest.mark.needs_root_namespaces

_SIZE = 32 * MIB
_TRY = """
import errno, os
def tried(call):
    try:
        call()
    except OSError as error:
        return error.errno
answer = [{calls}]
"""


def a_volume(path: str = "/data", *, read_only: bool = False, volume_id: VolumeId | None = None) -> MountedVolume:
    """A volume that is new unless it has an id."""
    return MountedVolume(volume_id or make_volume_id(), "data", path, read_only, _SIZE)


def at(volume: MountedVolume, path: str, *, read_only: bool = False) -> MountedVolume:
    """The same somewhere else."""
    return a_volume(path, read_only=read_only, volume_id=volume.volume_id)


def devices_of(host: LauncherHost) -> Sequence[str]:
    """What loop devices have of a launcher's volumes."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(backing.read_text().strip())
        except OSError:
            continue
    return [path for path in found if path.startswith(str(host.config.volumes_folder))]


async def tried(bench: Bench, sandbox: Sandbox, *calls: str) -> list[int | None]:
    """What each call inside fails with, None for one that does not."""
    wanted = ", ".join(f"tried(lambda: {call})" for call in calls)
    return list(await bench.ask(sandbox, _TRY.format(calls=wanted)))


async def test_files_last(walled: Bench) -> None:
    """Another sandbox, of another user of the host's, finds what one wrote, as its own, and writes on."""
    volume = a_volume()
    first = await walled.make_with(volume)
    await walled.ask(first, "import os; os.mkdir('/data/deep'); answer = open('/data/deep/file', 'w').write('one')")
    await walled.runtime.destroy(first.environment_id)

    second = await walled.make_with(at(volume, "/workspace/found/it"))
    code = "answer = open('/workspace/found/it/deep/file', 'a+'); answer.write(' two'); answer.seek(0)"
    assert await walled.ask(second, f"{code}; answer = answer.read()") == "one two"
    seen = "import os; answer = [os.getuid(), os.stat('found/it/deep/file').st_uid, os.listdir('found/it')]"
    assert await walled.ask(second, seen) == [1000, 1000, ["deep"]]


@pytest.mark.parametrize("isolation", WALLED)
async def test_a_spare_is_given_volumes(isolation: Isolation) -> None:
    """One that was made beforehand has them like any other, and so has the child that waited in it."""
    with launcher_host(isolation, spares=2, most_spares=2, gvisor_spares=1) as host:
        bench = Bench(host, host.runtime())
        await bench.runtime.start(bench.on_end)
        await bench.runtime.destroy((await bench.make()).environment_id)
        await until(lambda: len(host.agents()) == (1 if bench.on_gvisor else 2))
        before = set(host.agents())
        sandbox = await bench.make_with(a_volume())
        assert await bench.ask(sandbox, "import os; answer = os.path.ismount('/data')") is True
        assert before & set(host.agents())
        await bench.runtime.stop(keep_sandboxes=False)


async def test_two_at_once(walled: Bench) -> None:
    """What one writes the other reads; the last one takes the mount with it."""
    volume = a_volume()
    one, two = [await walled.make_with(volume) for _each in range(2)]
    await walled.ask(one, "answer = open('/data/x', 'w').write('shared')")
    assert await walled.ask(two, "answer = open('/data/x').read()") == "shared"
    assert len([path for path in devices_of(walled.host) if volume.volume_id in path]) == 1
    await walled.runtime.destroy(one.environment_id)
    assert await walled.ask(two, "answer = open('/data/x').read()") == "shared"
    await walled.runtime.destroy(two.environment_id)
    await until(lambda: not devices_of(walled.host))


async def test_what_holds_between_two(walled: Bench) -> None:
    """Locks of files and named pipes do, but for gVisor, which keeps both to itself."""
    volume = a_volume()
    one, two = [await walled.make_with(volume) for _each in range(2)]
    hold = """
import fcntl, os, time
os.mkfifo('/data/pipe')
file = open('/data/x', 'w')
fcntl.flock(file, fcntl.LOCK_EX)
open('/data/held', 'w').close()
time.sleep(60)
"""
    holder = one.execute(walled.request(hold))
    code = """
import fcntl, os, stat, time
while not os.path.exists('/data/held'): time.sleep(0.01)
try: answer = [fcntl.flock(open('/data/x'), fcntl.LOCK_EX | fcntl.LOCK_NB)]
except BlockingIOError: answer = ['held']
answer.append(os.path.exists('/data/pipe'))
"""
    assert await walled.ask(two, code) == ([None, False] if walled.on_gvisor else ["held", True])
    holder.cancel()


async def test_slots_that_come_later(walled: Bench) -> None:
    """Executions that run side by side have the volume, too."""
    sandbox = await walled.make_with(a_volume())
    waits = sandbox.execute(walled.request("open('/data/a', 'w').write('x'); import time; time.sleep(60)"))
    assert await walled.ask(sandbox, "import os\nwhile not os.path.exists('/data/a'): pass\nanswer = 1") == 1
    waits.cancel()


async def test_read_only(walled: Bench) -> None:
    """Where one reads only, nothing can be changed, whoever else writes."""
    volume = a_volume()
    writer = await walled.make_with(volume)
    reader = await walled.make_with(at(volume, "/data", read_only=True))
    await walled.ask(writer, "answer = open('/data/x', 'w').write('kept')")
    calls = [
        "open('/data/x', 'a')", "open('/data/y', 'w')", "os.unlink('/data/x')", "os.chmod('/data/x', 0o777)",
        "os.utime('/data/x')", "os.truncate('/data/x', 0)", "os.mkdir('/data/z')", "os.symlink('a', '/data/l')",
    ]  # fmt: skip
    assert await tried(walled, reader, *calls) == [errno.EROFS] * len(calls)
    assert await walled.ask(reader, "answer = open('/data/x').read()") == "kept"


async def test_full(walled: Bench) -> None:
    """No more than its size is taken, by bytes or by files; everybody else goes on, and so does it."""
    volume = a_volume()
    sandbox, neighbour = await walled.make_with(volume), await walled.make_with(a_volume())
    fill = """
import os
fd = os.open('/data/big', os.O_CREAT | os.O_WRONLY)
answer = 0
try:
    while answer < 1 << 30: answer += os.write(fd, bytes(1 << 20))
    os.fsync(fd)
except OSError as error:
    answer = [error.errno, answer]
"""
    number, written = await walled.ask(sandbox, fill)
    assert number == errno.ENOSPC
    assert written <= _SIZE
    used = (await walled.runtime.volumes.measure([volume.volume_id]))[volume.volume_id]
    assert _SIZE // 2 < used <= _SIZE
    assert await walled.ask(neighbour, "answer = open('/data/x', 'w').write('x' * 100000)") == 100000
    files = """
import os
os.unlink('/data/big')
answer = 0
try:
    while answer < 1_000_000:
        open('/data/%d' % answer, 'w').close()
        answer += 1
except OSError as error:
    answer = [error.errno, answer]
"""
    number, made = await walled.ask(sandbox, files)
    assert number == errno.ENOSPC
    assert 1000 < made <= _SIZE // 4096
    assert await walled.works(sandbox)


async def test_no_power_comes_with_it(walled: Bench) -> None:
    """A file that says set-uid lends nothing, not even that of the root inside; devices cannot be made."""
    sandbox = await walled.make_with(a_volume())
    code = """
import os, shutil, subprocess
shutil.copy('/usr/bin/id', '/data/id')
os.chmod('/data/id', 0o6755)
answer = subprocess.run(['/data/id', '-u'], capture_output=True, text=True).stdout.strip()
"""
    assert await walled.ask(sandbox, code) == "1000"
    assert await tried(
        walled, sandbox,
        "os.mknod('/data/d', 0o20666, os.makedev(1, 3))", "os.chown('/data/id', 0, 0)", "os.rename('/data', '/x')",
        "os.rmdir('/data')",
    ) == [errno.EPERM, errno.EPERM, errno.EACCES, errno.EACCES]  # fmt: skip
    flags = "answer = [l.split()[3:6] for l in open('/proc/self/mountinfo') if ' /data ' in l]"
    (mount,) = await walled.ask(sandbox, flags)
    # gVisor shows no flags of a mount that its file server has.
    assert {"rw"} if walled.on_gvisor else {"rw", "nosuid", "nodev"} <= set(mount[2].split(","))


@pytest.mark.needs_gvisor
async def test_files_are_nobodys_memory(gvisor: Bench) -> None:
    """What the kernel keeps of them ends no process; what is taken beside it does."""
    small = Limits(memory_bytes=64 * MIB, disk_bytes=16 * MIB, file_size_bytes=512 * MIB)
    sandbox = await gvisor.make(limits=small)
    large = MountedVolume(make_volume_id(), "large", "/data", False, 512 * MIB)
    await gvisor.runtime.volumes.mount(sandbox.environment_id, [large])
    code = """
import os
with open('/data/x', 'wb') as file:
    for _each in range(320): file.write(bytes(1 << 20))
answer = os.stat('/data/x').st_size >> 20
"""
    assert await gvisor.ask(sandbox, code) == 320
    assert ((await sandbox.usage()).memory_bytes or 0) > 150 * MIB
    greedy = await gvisor.run(sandbox, "held = []\nwhile True: held.append(bytes(range(256)) * 4096)")
    assert greedy.status is ExecutionStatus.OUT_OF_MEMORY
    assert await gvisor.works(sandbox)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the host's."""
    file = tmp_path / "secret"
    file.write_text("the host's")
    return file


async def test_links_lead_nowhere_else(walled: Bench, secret: Path) -> None:
    """Whoever follows one that somebody wrote stays inside."""
    volume = a_volume()
    writer, reader = await walled.make_with(volume), await walled.make_with(volume)
    links = {
        "up": "../" * 20 + str(secret),
        "host": str(secret),
        "one": "/proc/1/root" + str(secret),
        "own": "/etc/passwd",
    }
    await walled.ask(writer, f"import os; answer = [os.symlink(to, '/data/' + name) for name, to in {links}.items()]")
    calls = [f"open('/data/{name}')" for name in ("up", "host", "one")]
    assert set(await tried(walled, reader, *calls)) <= {errno.ENOENT, errno.EACCES}
    assert "user:x:1000" in await walled.ask(reader, "answer = open('/data/own').read()")


async def test_a_way_that_is_led_elsewhere(walled: Bench) -> None:
    """When code has laid a link on the way to a volume, no later slot has anything else covered."""
    sandbox = await walled.make_with(a_volume("/workspace/deep/data"))
    code = "import os, time; os.rename('deep', 'moved'); os.symlink('/etc', 'deep'); open('moved/data/x', 'w').close()"
    first = sandbox.execute(walled.request(f"{code}; open('laid', 'w').close(); time.sleep(1)"))
    look = """
import os
while not os.path.exists('laid'): pass
answer = [os.listdir('moved/data'), os.path.exists('/etc/data')]
"""
    assert await walled.ask(sandbox, look) == [["x"], False]
    first.cancel()


async def test_a_file_that_shrinks_under_who_has_it_mapped(walled: Bench) -> None:
    """Is the end of a process, and of nothing else."""
    volume = a_volume()
    one, two = [await walled.make_with(volume) for _each in range(2)]
    code = """
import mmap, os, time
file = open('/data/x', 'w+b')
file.truncate(1 << 20)
there = mmap.mmap(file.fileno(), 1 << 20)
open('/data/mapped', 'w').close()
while os.fstat(file.fileno()).st_size: time.sleep(0.01)
print(there[1 << 19])
"""
    mapped = one.execute(walled.request(code))
    cut = """
import os, time
while not os.path.exists('/data/mapped'): time.sleep(0.01)
answer = os.truncate('/data/x', 0)
"""
    await walled.ask(two, cut)
    ran = await mapped.wait()
    assert (ran.status, ran.stdout) == (ExecutionStatus.FAILED, b"")
    assert await walled.works(one)
    assert await walled.works(two)


async def test_what_would_be_covered(walled: Bench) -> None:
    """A folder that holds something is not hidden, such as one on the way to an interpreter."""
    prefix = Path(walled.host.config.templates[-1].prefix)
    if prefix.is_relative_to("/usr"):
        pytest.skip("the interpreter is in /usr")
    with pytest.raises(SandboxFailed, match="nothing can be mounted at"):
        await walled.make_with(a_volume(str(prefix.parent)))


async def test_removed(walled: Bench) -> None:
    """Nothing is left of it on the disk; one that is made under the same id later is empty."""
    volume = a_volume()
    keeper = walled.runtime.volumes
    await keeper.make(volume.volume_id, _SIZE)
    sandbox = await walled.make_with(volume)
    await walled.ask(sandbox, "answer = open('/data/x', 'w').write('x')")
    await walled.runtime.destroy(sandbox.environment_id)
    await keeper.remove(volume.volume_id)
    folder = walled.host.config.volumes_folder
    assert folder is not None
    assert not [name for name in os.listdir(folder) if volume.volume_id in name]
    await keeper.remove(volume.volume_id)
    again = await walled.make_with(volume)
    assert await walled.ask(again, "import os; answer = os.listdir('/data')") == []


@pytest.fixture(params=WALLED)
def own_host(request: pytest.FixtureRequest) -> Iterator[LauncherHost]:
    """A launcher that may be killed."""
    with launcher_host(request.param) as host:
        yield host


async def test_a_launcher_that_is_killed(own_host: LauncherHost) -> None:
    """Nothing stays mounted, and what was synced is there for the next one."""
    bench = Bench(own_host, own_host.runtime())
    await bench.runtime.start(bench.on_end)
    volume = a_volume()
    sandbox = await bench.make_with(volume)
    code = "import os; f = open('/data/x', 'w'); f.write('kept'); f.flush(); os.fsync(f.fileno()); answer = 1"
    await bench.ask(sandbox, code)
    own_host.process.send_signal(signal.SIGKILL)
    own_host.process.wait(60)
    await until(lambda: not devices_of(own_host))
    own_host.process = start_launcher(own_host.config)
    await until(lambda: bench.ended)
    again = await bench.make_with(volume)
    assert await bench.ask(again, "answer = open('/data/x').read()") == "kept"
    await bench.runtime.stop(keep_sandboxes=True)


def test_a_folder_that_is_not_roots(tmp_path: Path) -> None:
    """Who could change what is in it could have any file of the host's mounted."""
    folder = tmp_path / "volumes"
    folder.mkdir(mode=0o700)
    os.chown(folder, 1000, 1000)
    with pytest.raises(PermissionError):
        Shelf(folder).make("vol-0123456789abcdef", _SIZE)
    os.chown(folder, 0, 0)
    os.symlink("/etc/hostname", folder / "vol-0123456789abcdef.img")
    with pytest.raises(OSError, match="symbolic links"):
        Shelf(folder).mount("vol-0123456789abcdef", _SIZE)


def test_whoever_makes_one_may_be_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of a volume that was not finished: no file, and no program that works on it."""
    folder, told = tmp_path / "volumes", tmp_path / "told"
    program = tmp_path / "mkfs.ext4"
    program.write_text(f"#!/bin/sh\necho $$ > {told}.new && mv {told}.new {told}\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(images, "PROGRAMS", f"{tmp_path}:{images.PROGRAMS}")
    pid = os.fork()
    if pid == 0:
        try:
            Shelf(folder).make("vol-0123456789abcdef", _SIZE)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 60
    while not told.exists() and time.monotonic() < deadline:
        time.sleep(0.005)  # waits: for the program to be started
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    working = Path(f"/proc/{told.read_text().strip()}")
    while working.exists() and time.monotonic() < deadline:
        time.sleep(0.005)  # waits: for the kernel to end it
    assert not working.exists()
    assert os.listdir(folder) == []


def test_file_systems_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a file that is not finished has another name, which one who was killed may have left."""
    monkeypatch.setattr(images, "make_nameless", lambda _folder: None)
    folder = tmp_path / "volumes"
    folder.mkdir(mode=0o700)
    (folder / f"vol-0123456789abcdef.img.{os.getpid()}{images.DRAFT}").touch()
    Shelf(folder).make("vol-0123456789abcdef", _SIZE)
    assert os.listdir(folder) == ["vol-0123456789abcdef.img"]


async def test_other_classes(process: Bench) -> None:
    """They say why they have none."""
    with pytest.raises(SandboxFailed, match="no mounts of their own"):
        await process.make_with(a_volume())
