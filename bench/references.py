"""What sandgate is compared with: the bare interpreter, bubblewrap, runc, and a loop of forks.

Each is started as leanly as this machine can: ``posix_spawn`` of the program itself, output to /dev/null, no shell.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CODE = "print('Hello, World!')"
FORK_LOOP = """
import os, time
started = time.perf_counter()
for _ in range({count}):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
print({count} / (time.perf_counter() - started))
"""


class ReferenceUnavailable(Exception):
    """This machine cannot run the reference; the message says why."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The interpreter behind the template, as it stands on the host."""

    path: str
    prefix: str


def find_interpreter(path: str) -> Interpreter:
    """Where an interpreter and its library are. Raises ``ReferenceUnavailable`` when it does not start."""
    program = "import os, sys; print(os.path.realpath(sys.executable)); print(os.path.realpath(sys.base_prefix))"
    done = subprocess.run([path, "-I", "-c", program], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReferenceUnavailable(f"{path} does not start: {done.stderr.strip()}")
    executable, prefix = done.stdout.split()
    return Interpreter(executable, prefix)


def spawn(arguments: Sequence[str]) -> int:
    """Start a program with its output thrown away; answers its process id."""
    streams = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    return os.posix_spawn(arguments[0], list(arguments), os.environ, file_actions=streams)


def finish(pid: int, arguments: Sequence[str]) -> None:
    """Wait for a program. Raises ``ReferenceUnavailable`` when it failed."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        raise ReferenceUnavailable(f"{Path(arguments[0]).name} ended with exit code {status}")


def run_once(arguments: Sequence[str]) -> float:
    """Milliseconds from the start of a program to its end."""
    started = time.perf_counter()
    finish(spawn(arguments), arguments)
    return (time.perf_counter() - started) * 1000


def bare(interpreter: Interpreter) -> list[str]:
    """The interpreter with no isolation at all."""
    return [interpreter.path, "-c", CODE]


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise ReferenceUnavailable(f"{name} is not installed (package {package})")
    return found


def _usr_links() -> list[str]:
    """The names in / that lead into /usr on this machine."""
    return [name for name in ("bin", "sbin", "lib", "lib32", "lib64") if Path("/", name).is_symlink()]


def bwrap(interpreter: Interpreter) -> list[str]:
    """The interpreter in bubblewrap with every namespace and a read-only root."""
    arguments = [_program("bwrap", "bubblewrap"), "--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr"]
    for name in _usr_links():
        arguments += ["--symlink", f"usr/{name}", f"/{name}"]
    arguments += ["--ro-bind", interpreter.prefix, interpreter.prefix]
    return [*arguments, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", *bare(interpreter)]


class Runc:
    """The interpreter in a container of runc, from a bundle that binds the host's /usr read-only."""

    PROGRAM = "runc"
    OPTIONS: Sequence[str] = ()

    def __init__(self, interpreter: Interpreter, folder: Path) -> None:
        self._program = _program(self.PROGRAM, self.PROGRAM)
        self._folder = folder
        self._count = 0
        self._make_bundle(interpreter)

    def arguments(self) -> list[str]:
        """The command of the next container; every container needs a name of its own."""
        self._count += 1
        bundle, root = self._folder / "bundle", self._folder / self.PROGRAM
        name = f"sandgate-bench-{os.getpid()}-{self._count}"
        return [self._program, "--root", str(root), *self.OPTIONS, "run", "--bundle", str(bundle), name]

    def _make_bundle(self, interpreter: Interpreter) -> None:
        rootfs = self._folder / "bundle" / "rootfs"
        for name in ("usr", "proc", "dev", "tmp", interpreter.prefix.lstrip("/")):
            (rootfs / name).mkdir(parents=True, exist_ok=True)
        for name in _usr_links():
            (rootfs / name).symlink_to(f"usr/{name}")
        config = _oci_config(interpreter)
        (rootfs.parent / "config.json").write_text(json.dumps(config), encoding="utf-8")


class Runsc(Runc):
    """The same in a container of gVisor's ``runsc``, on the platform that sandgate would take."""

    PROGRAM = "runsc"
    OPTIONS = ("--network=none", "--ignore-cgroups", "--platform=ptrace")


def _bind(path: str) -> dict[str, Any]:
    return {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro", "nosuid", "nodev"]}


def _oci_config(interpreter: Interpreter) -> dict[str, Any]:
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]},
        _bind("/usr"),
        *([] if interpreter.prefix == "/usr" else [_bind(interpreter.prefix)]),
    ]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": bare(interpreter),
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "bench",
        "mounts": mounts,
        "linux": {"namespaces": [{"type": name} for name in ("pid", "network", "ipc", "uts", "mount")]},
    }


def fork_loop(interpreter: Interpreter, count: int) -> float:
    """Forks a second of an interpreter that does nothing else."""
    program = FORK_LOOP.format(count=count)
    done = subprocess.run([interpreter.path, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout)
