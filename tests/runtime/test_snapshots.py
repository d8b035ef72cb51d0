"""All that code can change in a sandbox, read at one moment and laid out in another, whatever it is."""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sandgate.core.errors import ArchiveInvalid, DiskFull, SandboxFailed, SandgateError, SnapshotTooLarge
from sandgate.core.execution import ExecutionRequest, FileOperation
from sandgate.core.files import parse_answer
from sandgate.core.intake import Intake
from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus
from sandgate.environments.file_channels import Channel
from sandgate.sandbox.base import Sandbox, SandboxApart
from tests.runtime.file_client import MODULES, send
from tests.runtime.hosts import Bench, LauncherHost, until

TREE = """
import os, socket
os.makedirs('/workspace/a/b/c')
open('/workspace/a/b/c/f', 'w').write('deep')
os.symlink('/etc/passwd', '/workspace/outside')
os.symlink('/proc/1/root/etc/shadow', '/tmp/far')
os.symlink('gone', '/workspace/dangling')
os.mkfifo('/tmp/pipe', 0o640)
socket.socket(socket.AF_UNIX).bind('/tmp/sock')
open('/home/user/h', 'w').write('home')
os.link('/home/user/h', '/workspace/hard')
for name, mode in (('closed', 0), ('runs', 0o755), ('suid', 0o4755), ('sgid', 0o2755)):
    open('/workspace/' + name, 'w').write(name)
    os.chmod('/workspace/' + name, mode)
os.mkdir('/workspace/dir')
open('/workspace/dir/in', 'w').write('1')
os.chmod('/workspace/dir', 0)
os.mkdir('/workspace/empty', 0o700)
with open('/workspace/sparse', 'wb') as file:
    file.truncate(40 << 20)
    file.seek(10 << 20)
    file.write(b'x')
open('/dev/shm/m', 'w').write('shared')
open('/var/tmp/v', 'w').write('v')
open('/workspace/' + 'n' * 255, 'w').close()
open(b'/workspace/\\xff\\xfe\\n', 'w').close()
os.chmod('/workspace', 0o750)
os.utime('/workspace/runs', (1e9, 1e9 + 0.5))
os.utime('/home/user', (1e9, 1e9))
"""
LOOK = """
import os
from zlib import crc32
for top in ('/home/user', '/workspace', '/tmp', '/var/tmp', '/dev/shm'):
    print(top, oct(os.stat(top).st_mode), int(os.stat(top).st_mtime) if top == '/home/user' else '')
    for folder, folders, files in os.walk(top):
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            told = [repr(path), oct(status.st_mode)]
            if os.path.islink(path): told.append(os.readlink(path))
            elif os.path.isfile(path):
                told += [status.st_size, status.st_nlink, status.st_mtime if name == 'runs' else '']
                if os.access(path, os.R_OK): told.append(crc32(open(path, 'rb').read()))
            print(*told)
print(os.stat('/workspace/sparse').st_blocks < 2000 if os.path.exists('/workspace/sparse') else '')
os.chmod('/workspace/dir', 0o700); print(open('/workspace/dir/in').read())
"""
TOPS = ("home/user", "workspace", "tmp", "var/tmp", "run/shm")
# What no snapshot holds.
LEFT_OUT = ("/tmp/sock",)


@asynccontextmanager
async def _begun(place: Sandbox | SandboxApart, **arguments: Any) -> AsyncIterator[Channel]:
    intake = Intake()
    named = {"tops": TOPS, "most_entries": 10_000, "most_bytes": 1 << 30, "is_alone": True, **arguments}
    files = FileOperation("snapshot", named, None, MODULES["snapshot"])
    channel = Channel(place.execute(ExecutionRequest("", 60, sink=intake, files=files)), intake)
    try:
        await channel.answer()
        yield channel
    finally:
        channel.close()


async def _rest(channel: Channel) -> tuple[bytes, Mapping[str, Any]]:
    content = bytearray()
    while part := await channel.part():
        content += part
    return bytes(content), parse_answer(await channel.record())


async def _snapshot(place: Sandbox | SandboxApart, **arguments: Any) -> tuple[bytes, Mapping[str, Any]]:
    async with _begun(place, **arguments) as channel:
        return await _rest(channel)


async def restore(sandbox: Sandbox, content: bytes, **caps: int) -> Mapping[str, Any]:
    """Lay out an archive by a process within the walls."""
    return await send(
        sandbox, "restore", content, **{"tops": TOPS, "most_entries": 10_000, "most_bytes": 1 << 30, **caps}
    )


async def _look(bench: Bench, sandbox: Sandbox) -> list[str]:
    ran = await bench.run(sandbox, LOOK)
    assert ran.status is ExecutionStatus.COMPLETED, ran.stderr
    return [line for line in ran.stdout.decode().splitlines() if not any(name in line for name in LEFT_OUT)]


async def test_it_is_as_it_was(walled: Bench) -> None:
    """Links, empty and closed folders, odd names, modes, times, other names of files, pipes, what is sparse; but not
    sockets, nor what gives away powers. What another template has put there and this one lacks is gone.
    """
    first, second = await walled.make(), await walled.make()
    assert (await walled.run(first, TREE)).exit_code == 0
    await walled.run(second, "open('/workspace/of-the-template', 'w').close()")
    content, told = await _snapshot(first)
    assert (told["skipped"], told["changed"]) == (1, False)
    assert 40 * MIB < len(content) < 42 * MIB
    await restore(second, content)
    before = [
        line.replace("0o104755", "0o100755").replace("0o102755", "0o100755") for line in await _look(walled, first)
    ]
    assert await _look(walled, second) == before
    again, _told = await _snapshot(first)
    assert len(again) == len(content)


@pytest.mark.needs_root_namespaces
async def test_nothing_else_runs_meanwhile(standard: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What forks and writes all the time stands still as a whole, and goes on; what is asked meanwhile waits."""
    sandbox = await standard.make()
    busy = sandbox.execute(ExecutionRequest(STORM, 60))
    await _until_busy(standard, sandbox)
    apart = await sandbox.standstill.begin_but()
    first, told = await _snapshot_in(apart)
    assert told["skipped"] == 0
    asked = asyncio.ensure_future(standard.run(sandbox, "print('on')"))
    numbers = _numbers(first)
    # One process made all of them: the last to be written is one more than the one before.
    assert max(numbers.values()) - min(numbers.values()) <= 1
    assert not asked.done()
    apart.close()
    await sandbox.standstill.end()
    assert (await asked).stdout == b"on\n"
    for _whole_round in range(2):
        await _until_written(standard, sandbox)
    async with _begun(sandbox, is_alone=False) as channel:
        # It looks again when all has been taken from it.
        await _until_written(standard, sandbox)
        moving, told = await _rest(channel)
    assert told["changed"]
    assert min(_numbers(moving).values()) > max(numbers.values())
    # It answers when all of it is dead, however long the kernel takes.
    monkeypatch.setattr("sandgate.sandbox.execution._CONFIRM_S", 60.0)
    busy.cancel()
    await busy.wait()
    _still, told = await _snapshot(sandbox, is_alone=False)
    assert not told["changed"]


STORM = """
import os, time
for n in range(8): open(f'/workspace/{n}', 'w').write('0'.rjust(9))
files = [os.open(f'/workspace/{n}', os.O_WRONLY) for n in range(8)]
open('/workspace/large', 'w').truncate(4 << 20)
open('/tmp/busy', 'w').close()
count = 0
while True:
    count += 1
    for file in files: os.pwrite(file, str(count).rjust(9).encode(), 0)
    if os.fork() == 0: os._exit(0)
    os.wait()
"""


CHANGES = {
    "a new file": "open('/tmp/new', 'w').close()",
    "another content": "open('f', 'r+').write('b')",
    "permissions": "import os; os.chmod('f', 0o600)",
    "a file that goes": "import os; os.unlink('f')",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.few_on_gvisor(change=["a new file", "another content"])
async def test_what_changes_meanwhile_is_told(walled: Bench, change: str) -> None:
    """Where nothing is stopped, by whoever reads the files."""
    sandbox = await walled.make()
    made = await walled.run(sandbox, "open('f', 'w').write('a')\nopen('large', 'w').truncate(4 << 20)")
    assert made.exit_code == 0
    async with _begun(sandbox, is_alone=False) as channel:
        # It looks again when all has been taken from it.
        assert (await walled.run(sandbox, CHANGES[change])).exit_code == 0
        _content, told = await _rest(channel)
    assert told["changed"]
    _content, told = await _snapshot(sandbox, is_alone=False)
    assert not told["changed"]


async def _until_written(bench: Bench, sandbox: Sandbox) -> None:
    code = "import time\nread = lambda: open('0').read()\nn = read()\nwhile read() == n: time.sleep(0.002)"
    assert (await bench.run(sandbox, code)).exit_code == 0


async def _until_busy(bench: Bench, sandbox: Sandbox) -> None:
    ran = await bench.run(sandbox, "import os, time\nwhile not os.path.exists('/tmp/busy'): time.sleep(0.002)")
    assert ran.exit_code == 0


async def _snapshot_in(apart: SandboxApart) -> tuple[bytes, Mapping[str, Any]]:
    async with asyncio.timeout(60):
        return await _snapshot(apart)


def _numbers(content: bytes) -> dict[str, int]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        names = [name for name in archive.getnames() if name.startswith("workspace/") and name[10:].isdigit()]
        return {name: int(archive.extractfile(name).read()) for name in names}  # type: ignore[union-attr]


@pytest.mark.needs_root_namespaces
async def test_only_one_place_is_apart_and_it_goes_with_its_sandbox(
    standard: Bench, standard_host: LauncherHost
) -> None:
    """Another one is refused, all goes on when the first is closed, and a sandbox that is ended ends it."""
    sandbox = await standard.make()
    before = len(standard_host.forkers())
    apart = await sandbox.standstill.begin_but()
    assert len(standard_host.forkers()) == before + 1
    with pytest.raises(SandboxFailed):
        await sandbox.standstill.begin_but()
    apart.close()
    await sandbox.standstill.end()
    await until(lambda: len(standard_host.forkers()) == before)
    # More than is on its way when the sandbox ends.
    assert (await standard.run(sandbox, "open('big', 'w').truncate(60 << 20); print(1)")).stdout == b"1\n"
    apart = await sandbox.standstill.begin_but()
    async with _begun(apart) as channel:
        await standard.runtime.destroy(sandbox.environment_id)
        with pytest.raises(SandgateError):
            await _rest(channel)
    apart.close()
    await until(lambda: len(standard_host.forkers()) <= before)


MANY = """
for n in range(3000): open(f'/tmp/{n}', 'w').close()
open('/workspace/big', 'w').truncate(200 << 20)
"""


async def test_hostile_trees_are_bounded(walled: Bench) -> None:
    """Too many entries, too many bytes, also of a file that takes no room; whether or not all else stands still."""
    sandbox = await walled.make(limits=Limits(disk_bytes=64 * MIB))
    await walled.run(
        sandbox, "for n in range(3000): open(f'/tmp/{n}', 'w').close()\nopen('/workspace/big', 'w').truncate(200 << 20)"
    )
    for caps in ({"most_entries": 2000}, {"most_bytes": 100 << 20}):
        for is_alone in (True, False):
            with pytest.raises(SnapshotTooLarge):
                await _snapshot(sandbox, is_alone=is_alone, **caps)
    deep = "import os\nos.chdir('/workspace')\nfor _ in range(30): os.mkdir('d' * 200); os.chdir('d' * 200)"
    assert (await walled.run(sandbox, deep)).exit_code == 0
    content, told = await _snapshot(sandbox)
    # What has no path that could be laid out is counted.
    assert told["skipped"] >= 1
    second = await walled.make(limits=Limits(disk_bytes=64 * MIB))
    await restore(second, content)
    assert (await walled.run(second, "import os; print(os.stat('/workspace/big').st_size)")).stdout == b"209715200\n"


HOSTILE = {
    "elsewhere": ("etc/cron.d", None),
    "upwards": ("workspace/../../etc/x", None),
    "absolute": ("/workspace/x", None),
    "through a link": ("workspace/l/x", "/tmp"),
    "a top": ("workspace", None),
    "a device": ("workspace/dev", b"3"),
}


def hostile_archive(kind: str) -> bytes:
    """One of them."""
    name, other = HOSTILE[kind]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        if isinstance(other, str):
            link = tarfile.TarInfo("workspace/l")
            link.type, link.linkname = tarfile.SYMTYPE, other
            archive.addfile(link)
        entry = tarfile.TarInfo(name)
        entry.size = 1
        if isinstance(other, bytes):
            entry.type, entry.size = other, 0
        archive.addfile(entry, io.BytesIO(b"x"))
    return out.getvalue()


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.few_on_gvisor(kind=["through a link"])
async def test_hostile_archives_reach_nothing_else(walled: Bench, kind: str) -> None:
    """What no sandbox of ours has written is refused by whoever lays it out, within the walls."""
    sandbox = await walled.make()
    with pytest.raises(ArchiveInvalid):
        await restore(sandbox, hostile_archive(kind))


async def test_what_does_not_fit_is_told(walled: Bench) -> None:
    """By the file system that it is laid out in, and by the caps."""
    first, second = await walled.make(), await walled.make(limits=Limits(disk_bytes=16 * MIB))
    await walled.run(first, "import os; open('/workspace/big', 'wb').write(os.urandom(30 << 20))")
    content, _told = await _snapshot(first)
    with pytest.raises(DiskFull):
        await restore(second, content)
    with pytest.raises(SandgateError):
        await restore(await walled.make(), content, most_bytes=1 << 20)
