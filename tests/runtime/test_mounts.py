"""Mounts of the host's, given to a sandbox that is complete: whose its files are, what holds, and what is refused."""

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandgate.sandbox.base import Sandbox
from sandgate.sandbox.launcher import mounts
from sandgate.sandbox.launcher.attaching import Namespaces, Wanted, attach
from sandgate.sandbox.launcher.reactor import Reactor
from tests.runtime.hosts import Bench

pytestmark = pytest.mark.needs_root_namespaces

_SEE = """
import os
found = os.stat({path!r})
answer = [found.st_uid, found.st_gid, sorted(os.listdir({path!r}))]
"""
_TRY = """
def tried(call):
    try:
        call()
    except OSError as error:
        return error.errno
answer = {calls}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the user inside, with a file; nobody else may look into the folder above."""
    made = tmp_path / "given"
    made.mkdir()
    (made / "file").write_text("from outside")
    for path in (made, made / "file"):
        os.chown(path, 1000, 1000)
    return made


def give(bench: Bench, *wanted: Wanted, limit_s: float = 20.0, forker: int = -1) -> str | None:
    """Attach to the newest sandbox; why it could not be done, if so."""
    pid = forker if forker > 0 else bench.host.forkers()[-1]
    pidfd = os.pidfd_open(pid)
    namespaces = Namespaces.of(pid, pidfd)
    os.close(pidfd)
    reactor, said = Reactor(), list[str | None]()
    attach(reactor, namespaces, wanted, limit_s, said.append)
    namespaces.close()

    def look() -> None:
        # All given back: the process has been buried.
        if reactor.allowance.held:
            reactor.call_later(0.002, look)
        else:
            reactor.stop()

    look()
    reactor.run()
    return said[0]


async def see(bench: Bench, sandbox: Sandbox, path: str) -> object:
    """Owner, group and names of a folder inside."""
    return await bench.ask(sandbox, _SEE.format(path=path))


async def tried(bench: Bench, sandbox: Sandbox, *calls: str) -> object:
    """What each call inside fails with, None for one that does not."""
    code = _TRY.format(calls="[" + ", ".join(f"tried(lambda: {call})" for call in calls) + "]")
    return await bench.ask(sandbox, f"import os, ctypes\n{code}")


async def test_whose_files_they_are(standard: Bench, folder: Path) -> None:
    """What is of user 1000 on the disk is of the user inside, both ways, and in slots that are added later."""
    sandbox = await standard.make()
    assert await standard.works(sandbox)

    assert give(standard, Wanted("/mnt/deep/given", False, lambda: mounts.bind(folder))) is None

    assert await see(standard, sandbox, "/mnt/deep/given") == [1000, 1000, ["file"]]
    waits = sandbox.execute(standard.request("import time; time.sleep(60)"))
    assert await standard.ask(sandbox, "answer = open('/mnt/deep/given/file').read()") == "from outside"
    waits.cancel()
    await standard.ask(sandbox, "answer = open('/mnt/deep/given/new', 'w').write('from inside')")
    made = (folder / "new").stat()
    assert (made.st_uid, made.st_gid) == (1000, 1000)
    assert (folder / "new").read_text() == "from inside"


async def test_two_sandboxes_with_one_folder(standard: Bench, folder: Path) -> None:
    """Each sees the other's files as its own, though their users differ outside."""
    for mode in ("w", "a"):
        sandbox = await standard.make()
        assert give(standard, Wanted("/given", False, lambda: mounts.bind(folder))) is None
        await standard.ask(sandbox, f"answer = open('/given/both', {mode!r}).write('x')")
    assert (folder / "both").read_text() == "xx"


async def test_what_is_read_only(standard: Bench, folder: Path) -> None:
    """Nothing of it can be written, made, removed, or made writable again."""
    sandbox = await standard.make()
    assert give(standard, Wanted("/given", True, lambda: mounts.bind(folder))) is None
    libc = "ctypes.CDLL(None, use_errno=True)"
    remount = f"answer = {libc}.mount(None, b'/given', None, 0x1020, None), {libc}.umount2(b'/given', 2)"
    assert await tried(
        standard, sandbox,
        "open('/given/file', 'a')", "open('/given/new', 'w')", "os.unlink('/given/file')", "os.chmod('/given', 0o777)",
    ) == [errno.EROFS, errno.EROFS, errno.EROFS, errno.EROFS]  # fmt: skip
    assert await standard.ask(sandbox, f"import ctypes\n{remount}") == [-1, -1]
    assert (folder / "file").read_text() == "from outside"


async def test_no_power_through_a_file(standard: Bench, folder: Path) -> None:
    """A set-uid program is an ordinary one, and a device is none."""
    program = folder / "program"
    shutil.copyfile("/usr/bin/id", program)
    os.chown(program, 0, 0)
    program.chmod(0o4755)
    os.mknod(folder / "zero", 0o20666, os.makedev(1, 5))
    sandbox = await standard.make()
    assert give(standard, Wanted("/given", False, lambda: mounts.bind(folder))) is None
    ran = "import subprocess; answer = subprocess.run(['/given/program', '-u'], capture_output=True, text=True).stdout"
    assert await standard.ask(sandbox, ran) == "1000\n"
    assert await tried(standard, sandbox, "open('/given/zero', 'rb')") == [errno.EACCES]


@pytest.mark.parametrize("path", ["/proc", "/proc/sys", "/usr", "/usr/new", "/etc", "/dev/shm", "/dev/new", "/bin"])
async def test_what_is_mounted_is_not_covered(standard: Bench, folder: Path, path: str) -> None:
    """What the walls are made of stays in sight, and nothing is made below it."""
    sandbox = await standard.make()
    said = give(standard, Wanted(path, False, lambda: mounts.bind(folder)))
    assert said is not None
    assert said.startswith(f"nothing can be mounted at {path}: ")
    assert await standard.works(sandbox)


async def test_links_that_were_laid_out(standard: Bench, folder: Path) -> None:
    """No link is followed, and a file is no place for a mount."""
    sandbox = await standard.make()
    await standard.ask(
        sandbox,
        "import os; os.symlink('/tmp', '/workspace/link'); open('/workspace/file', 'w'); answer = 0",
    )
    for path in ("/workspace/link", "/workspace/link/below", "/workspace/file"):
        said = give(standard, Wanted(path, False, lambda: mounts.bind(folder)))
        assert said is not None
        assert said.startswith(f"nothing can be mounted at {path}: ")
    assert await standard.ask(sandbox, "import os; answer = os.listdir('/tmp')") == []


def _mount(place: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "none", place], check=True)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A file system whose later mounts the kernel tells to its copies, as those of most hosts are."""
    place = tmp_path / "shared"
    place.mkdir()
    _mount(place)
    try:
        subprocess.run(["mount", "--make-shared", place], check=True)
        (place / "below").mkdir()
        yield place
    finally:
        subprocess.run(["umount", "--recursive", place], check=True)


async def test_later_mounts_of_the_host_stay_outside(standard: Bench, shared: Path) -> None:
    """One below a folder that was given would be a way out, and writable below what is read-only."""
    sandbox = await standard.make()
    assert give(standard, Wanted("/given", True, lambda: mounts.bind(shared))) is None
    _mount(shared / "below")
    (shared / "below" / "secret").touch()
    assert await standard.ask(sandbox, "import os; answer = os.listdir('/given/below')") == []
    assert await tried(standard, sandbox, "open('/given/below/new', 'w')") == [errno.EROFS]


async def test_what_cannot_be_made(standard: Bench, tmp_path: Path) -> None:
    """The reason is told, and the sandbox is as it was."""
    sandbox = await standard.make()
    said = give(standard, Wanted("/given", False, lambda: mounts.bind(tmp_path / "missing")))
    assert said is not None
    assert "No such file" in said
    assert await standard.works(sandbox)


async def test_what_takes_too_long(standard: Bench) -> None:
    """It is given up at its time limit."""
    sandbox = await standard.make()

    def never() -> int:
        signal.pause()
        return -1

    assert give(standard, Wanted("/given", False, never), limit_s=0.05) == "it took more than 0.05 seconds"
    assert await standard.works(sandbox)
