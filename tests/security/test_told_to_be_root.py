"""Sandboxes in which packages of a root file system are installed: told to be root, and with the powers of anybody."""

import io
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sandgate.core.errors import SandboxFailed
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.core.template import Layer
from sandgate.sandbox.base import Sandbox, SandboxSpec
from sandgate.sandbox.interpreters import find_interpreters
from sandgate.sandbox.root_unpacker import unpack
from sandgate.sandbox.zygote_runtime import ZygoteRuntime
from tests.e2e.small_roots import entry, small_root
from tests.runtime.hosts import LauncherHost, launcher_host

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39]
ROOT = "root-0123456789ab"
INTERPRETER = "/usr/local/bin/python3"
# As the builds have it: nothing of the interpreter's own is in its place before this.
COPY = """
import os
for folder, folders, names in os.walk("/opt/base"):
    for name in folders:
        os.makedirs(os.path.join(folder, name)[9:], exist_ok=True)
    for name in names:
        path = os.path.join(folder, name)
        with open(path, "rb") as source, open(path[9:], "wb") as target:
            target.write(source.read())
        os.chmod(path[9:], os.stat(path).st_mode)
"""
STATUS = """
wanted = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
with open("/proc/self/status") as file:
    print([line.split() for line in file if line.split(":")[0] in wanted])
"""
ATTACKS = r"""
import ctypes, errno, json, os, signal, stat
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    return 0 if getattr(libc, name)(*arguments) >= 0 else errno.errorcode[ctypes.get_errno()]
def attempt(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return 0
os.mkdir("/usr/own")
with open("/usr/own/file", "w") as file:
    file.write("x")
os.chown("/usr/own/file", 0, 0)
os.chmod("/usr/own/file", 0o4755)
said = {
    "told": [os.getuid(), os.geteuid(), os.getgid(), os.getegid()],
    "set": [attempt(os.setuid, 0), attempt(os.setgid, 0), attempt(os.setgroups, [0, 27]), attempt(os.setreuid, 0, 0)],
    "owner": [os.stat("/usr/own/file").st_uid, os.stat("/usr/own/file").st_gid],
    "mount": call("mount", b"none", b"/mnt", b"tmpfs", 0, None), "umount": call("umount2", b"/proc", 2),
    "chroot": attempt(os.chroot, "/usr"), "unshare": call("unshare", 0x10000000), "setns": call("setns", 0, 0),
    "device": attempt(os.mknod, "/usr/own/sda", stat.S_IFBLK | 0o666, os.makedev(8, 0)),
    "name": call("sethostname", b"x", 1), "ptrace": call("ptrace", 16, 1, None, None),
    "agent": [attempt(os.kill, 1, number) for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP)],
    "memory": attempt(os.open, "/proc/1/mem", os.O_RDWR), "below": attempt(os.open, "/opt/base/usr/x", 0o101),
    "system": attempt(os.open, "/proc/sys/kernel/core_pattern", os.O_WRONLY),
    "places": [attempt(os.rename, path, path + "x") for path in ("/var/empty", "/proc", "/dev", "/opt", "/var")],
    "removed": [attempt(os.rmdir, path) for path in ("/var/empty", "/opt/base", "/run/shm")],
    "dev": attempt(os.open, "/dev/x", 0o101),
}
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LauncherHost]:
    """A launcher that has a root file system."""
    folder = tmp_path_factory.mktemp("layers")
    tar = small_root(find_interpreters(())["3.9"].prefix, "3.9", [(entry("mnt/x", b"")[0], b"")])
    (folder / ROOT).mkdir()
    unpack(io.BytesIO(tar), folder / ROOT, 1 << 30, 100_000)
    with launcher_host(Isolation.STANDARD, layers_folder=folder) as running:
        yield running


@pytest.fixture
async def runtime(host: LauncherHost) -> AsyncIterator[ZygoteRuntime]:
    """Connected to it."""
    connected = host.runtime()
    await connected.start(lambda _environment_id, _reason: None)
    yield connected
    await connected.stop(keep_sandboxes=True)


async def _create(runtime: ZygoteRuntime, *, changes_root: bool, isolation: Isolation = Isolation.STANDARD) -> Sandbox:
    layer = Layer("", root=ROOT, interpreter=INTERPRETER, changes_root=changes_root)
    name = f"build-apt-{ROOT}" if changes_root else f"build-{ROOT}"
    return await runtime.create(SandboxSpec(make_environment_id(), name, Limits(), 120.0, isolation, layer))


async def _say(sandbox: Sandbox, code: str) -> str:
    ended = await sandbox.execute(ExecutionRequest(code, 60.0)).wait()
    return (ended.stdout + ended.stderr).decode()


def _look(folder: Path) -> list[tuple[str, int, int, int]]:
    """Everything below a folder, with what changes when it is changed."""
    found = []
    for path in (Path(at, name) for at, folders, names in os.walk(folder) for name in (*folders, *names)):
        status = path.lstat()
        found.append((str(path), status.st_mode, status.st_size, status.st_ctime_ns))
    return sorted(found)


async def test_who_is_told_to_be_root_has_the_powers_of_others(runtime: ZygoteRuntime) -> None:
    """The same user, groups, capabilities and filter, by the kernel's own word, as where anything else is built."""
    said = []
    for changes_root in (True, False):
        sandbox = await _create(runtime, changes_root=changes_root)
        assert await _say(sandbox, COPY if changes_root else "") == ""
        said.append(await _say(sandbox, STATUS))
        await runtime.destroy(sandbox.environment_id)
    assert said[0] == said[1]
    assert "['Uid:', '1000', '1000', '1000', '1000']" in said[0]
    assert "['CapBnd:', '0000000000000000']" in said[0]
    assert "['Seccomp:', '2']" in said[0]


async def test_nothing_is_done_that_root_could_do(host: LauncherHost, runtime: ZygoteRuntime) -> None:
    """What is only believed is answered with success, all else is refused; the root file system stays as it was."""
    assert host.config.layers_folder is not None
    before = _look(host.config.layers_folder)
    sandbox = await _create(runtime, changes_root=True)
    assert await _say(sandbox, COPY) == ""
    said = json.loads(await _say(sandbox, ATTACKS))
    assert said == {
        "told": [0] * 4, "set": [0] * 4, "owner": [1000, 1000], "mount": "EPERM", "umount": "EPERM", "chroot": "EPERM",
        "unshare": "EPERM", "setns": "EPERM", "device": "EPERM", "name": "EPERM", "ptrace": "EPERM",
        "agent": ["EPERM"] * 3, "memory": "ENOENT", "below": "EROFS", "system": "EACCES",
        "places": said["places"], "removed": said["removed"], "dev": "EROFS",
    }  # fmt: skip
    assert set(said["places"]) <= {"EPERM", "EBUSY", "EACCES"}
    assert set(said["removed"]) <= {"EPERM", "EBUSY", "EACCES"}
    code = "import os\nprint(os.listdir('/var/empty'), os.path.isdir('/opt/base/usr'))"
    assert await _say(sandbox, code) == "[] True\n"
    assert _look(host.config.layers_folder) == before
    await runtime.destroy(sandbox.environment_id)


async def test_the_agent_goes_on_under_whatever_is_done_there(runtime: ZygoteRuntime) -> None:
    """Its children are the user's from the beginning, and what they leave running ends with them."""
    sandbox = await _create(runtime, changes_root=True)
    assert await _say(sandbox, COPY) == ""
    await _say(sandbox, "import os, signal\nfor n in range(50):\n    os.fork() or os.pause() if n % 2 else 0\n")
    code = "import os\nprint([p for p in os.listdir('/proc') if p.isdigit() and int(p) not in (1, os.getpid())])"
    assert await _say(sandbox, code) == "[]\n"
    await runtime.destroy(sandbox.environment_id)


@pytest.mark.needs_gvisor
async def test_containers_have_no_such_sandboxes(tmp_path: Path) -> None:
    """It is asked for by nobody; who asks all the same gets none that looks like another one."""
    with launcher_host(Isolation.GVISOR, layers_folder=tmp_path) as running:
        connected = running.runtime()
        await connected.start(lambda _environment_id, _reason: None)
        (tmp_path / ROOT / "usr" / "bin").mkdir(parents=True)
        with pytest.raises(SandboxFailed, match="would have no root file system"):
            await _create(connected, changes_root=True, isolation=Isolation.GVISOR)
        await connected.stop(keep_sandboxes=False)
