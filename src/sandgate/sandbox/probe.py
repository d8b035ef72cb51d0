"""What this machine can do for sandboxes, found out by trying instead of by guessing from versions.

``probe()`` answers within a few seconds, leaves nothing behind and never raises; whatever could not be found out is
lacking. Standard library only, so that it can be run before anything else is installed.
"""

import json
import os
import platform
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sandgate.core.errors import MechanismFault
from sandgate.core.states import Isolation
from sandgate.sandbox import apparmor
from sandgate.sandbox.interpreters import find_interpreters
from sandgate_agent import landlock

_DEADLINE_S = 10.0
_DEFAULT_HOST_ID = 1_879_048_192
#: Source: overlayfs documentation: ``userxattr`` came with Linux 5.11.
_OLDEST_KERNEL = (5, 11)
_OLDEST_SQLITE = (3, 37, 0)
_CONTROLLERS = ("memory", "cpu", "pids", "freezer")

_ALL = frozenset(Isolation)
_WALLED = frozenset({Isolation.STANDARD, Isolation.GVISOR})
_NEITHER: frozenset[Isolation] = frozenset()

_PRIVILEGED = "run the container with --privileged and --cgroupns=host, or run sandgate outside of it"


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing that the machine may be able to do.

    ``found`` is what was found, ``needed_for`` what it is for, ``required_by`` the isolation classes that cannot be
    held without it (none: it is only better to have), ``mend`` the command or step that brings it, empty when ``ok``.
    """

    name: str
    ok: bool
    found: str
    needed_for: str
    required_by: frozenset[Isolation]
    mend: str


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything that was found out."""

    abilities: tuple[Ability, ...]

    def missing_for(self, isolation: Isolation) -> tuple[str, ...]:
        """Names of the abilities that the class requires and the machine lacks."""
        return tuple(ability.name for ability in self.abilities if isolation in ability.required_by and not ability.ok)

    @property
    def can_hold_standard(self) -> bool:
        """Whether the ``standard`` class can be held."""
        return not self.missing_for(Isolation.STANDARD)

    @property
    def can_hold_process(self) -> bool:
        """Whether the ``process`` class can be held."""
        return not self.missing_for(Isolation.PROCESS)

    def __str__(self) -> str:
        """What is lacking, for an error message; each with what mends it."""
        lacking = [ability for ability in self.abilities if ability.required_by and not ability.ok]
        return "; ".join(f"{each.name}: {each.found} ({each.mend})" for each in lacking) or "nothing is lacking"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An ability that is tried in a process of its own: what it is for, who requires it, how it is mended."""

    needed_for: str
    required_by: frozenset[Isolation]
    mend: str


_TRIED: Mapping[str, _Wanted] = {
    "root_namespaces": _Wanted("jails of zygotes", _WALLED, _PRIVILEGED),
    "host_ids": _Wanted(
        "a system user for each sandbox",
        _WALLED,
        "set SANDGATE_HOST_ID_BASE to ids that this container has (cat /proc/self/uid_map)",
    ),
    "user_namespaces": _Wanted(
        "walls that user code cannot take down", _WALLED, f"{_PRIVILEGED}; in a chroot none can be made"
    ),
    "namespaces": _Wanted("separate files, processes, network and names", _WALLED, _PRIVILEGED),
    "overlayfs": _Wanted("read-only templates without shared locks", _WALLED, "modprobe overlay"),
    "proc": _Wanted("a /proc of each sandbox's own", _WALLED, _PRIVILEGED),
    "cgroups": _Wanted(
        "limits that hold", _WALLED, "mount -t cgroup2 none /sys/fs/cgroup; in a container: " + _PRIVILEGED
    ),
    "cgroup_memory": _Wanted("the limit of memory", _WALLED, _PRIVILEGED),
    "cgroup_cpu": _Wanted("the limit of CPU", _WALLED, _PRIVILEGED),
    "cgroup_pids": _Wanted("the limit of processes", _WALLED, _PRIVILEGED),
    "cgroup_freezer": _Wanted("pausing environments", _NEITHER, _PRIVILEGED),
    "seccomp": _Wanted(
        "the system call filter", _WALLED, "use a kernel with CONFIG_SECCOMP_FILTER, and no gVisor or old container"
    ),
    "libseccomp": _Wanted("making the system call filter", _WALLED, "apt-get install libseccomp2"),
    "landlock": _Wanted(
        "keeping files from the process class and from what lays out built templates; root file systems of users",
        _NEITHER,
        landlock.MEND,
    ),
}
#: Settings of the kernel that forbid user namespaces or life in them, and the value that does.
_FORBIDDING: Mapping[str, tuple[str, str]] = {
    "user/max_user_namespaces": ("0", "sysctl -w user.max_user_namespaces=65536"),
    "kernel/unprivileged_userns_clone": ("0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    "kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "apt-get install apparmor, with which root allows them to zygotes alone; or for every program: "
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
}
_FORBIDDEN = ("user_namespaces", "namespaces")


def probe(
    extra_folders: Sequence[Path] = (), *, host_id: int = _DEFAULT_HOST_ID, deadline_s: float = _DEADLINE_S
) -> Machine:
    """Try everything. ``extra_folders`` are looked in for interpreters; ``host_id`` is one that sandboxes would use.

    Some ten forks and an interpreter: about 0.1 s, at most ``deadline_s`` and the few seconds of the interpreters.
    """
    # What it finds is remembered, and told of further below.
    looking = threading.Thread(target=find_interpreters, args=(extra_folders,), name="interpreters")
    looking.start()
    try:
        findings = _try_in_process(host_id, deadline_s)
    finally:
        looking.join()
    tried = [_judge(name, wanted, findings.get(name)) for name, wanted in _TRIED.items()]
    return Machine((_root(), _kernel(), *tried, _interpreters(extra_folders), _sqlite()))


def _try_in_process(host_id: int, deadline_s: float) -> Mapping[str, tuple[bool, str]]:
    """What the other process says, as far as it comes by the deadline: (ok, found) by ability."""
    name = f"sandgate-probe-{secrets.token_hex(6)}"
    with _profile(name) as profile:
        return _run(name, [str(host_id), *profile], deadline_s)


@contextmanager
def _profile(name: str) -> Iterator[Sequence[str]]:
    """A profile of AppArmor such as zygotes are under, where they need one and it can be had."""
    if os.geteuid() != 0 or not apparmor.is_restricted():
        yield []
        return
    try:
        apparmor.load(name)
    except MechanismFault:
        yield []
        return
    try:
        yield [name]
    finally:
        with suppress(MechanismFault):
            apparmor.unload(name)


def _run(name: str, arguments: Sequence[str], deadline_s: float) -> Mapping[str, tuple[bool, str]]:
    script = str(Path(__file__).with_name("probe_process.py"))
    try:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and file
            [sys.executable, "-I", "-S", script, name, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return {}
    with process:
        try:
            output, _ = process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired as expired:
            output = expired.output or b""
        finally:
            _end(process, name)
    return dict(filter(None, map(_parse, output.splitlines())))


def _end(process: subprocess.Popen[bytes], name: str) -> None:
    """Leave no process and no control group behind, however far it came."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for controller in _CONTROLLERS:
        for folder in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup") / controller):
            with suppress(OSError):
                (folder / f"{name}-{controller}").rmdir()


def _parse(line: bytes) -> tuple[str, tuple[bool, str]] | None:
    try:
        finding = json.loads(line)
        return str(finding["ability"]), (bool(finding["ok"]), str(finding["found"]))
    except (ValueError, TypeError, KeyError):
        return None


def _judge(name: str, wanted: _Wanted, finding: tuple[bool, str] | None) -> Ability:
    """The ability as it was found; what was not reached is lacking."""
    ok, found = finding or (False, "could not be tried, for lack of what comes before it")
    mend = "" if ok else _find_mend(name, wanted)
    return Ability(name, ok, found, wanted.needed_for, wanted.required_by, mend)


def _find_mend(name: str, wanted: _Wanted) -> str:
    """What brings an ability that is lacking."""
    if os.geteuid() != 0 and (name.startswith("cgroup_") or name in ("root_namespaces", "host_ids")):
        return "run as root"
    if name in _FORBIDDEN:
        for path, (value, command) in _FORBIDDING.items():
            if _read(Path("/proc/sys") / path).strip() == value:
                return command
    return wanted.mend


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _root() -> Ability:
    """The launcher makes namespaces, control groups and other users' processes."""
    ok = os.geteuid() == 0
    found = "root" if ok else f"user {os.geteuid()}"
    return Ability("root", ok, found, "the launcher", _WALLED, "" if ok else "run as root: sudo sandgate serve")


def _kernel() -> Ability:
    release = platform.release()
    numbers = [int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit()]
    ok = platform.system() == "Linux" and tuple(numbers) >= _OLDEST_KERNEL
    mend = "" if ok else "use Linux 5.11 or newer"
    return Ability("kernel", ok, f"{platform.system()} {release}", "overlays in user namespaces", _WALLED, mend)


def _interpreters(extra_folders: Sequence[Path]) -> Ability:
    found = find_interpreters(extra_folders)
    listed = ", ".join(each.full_version for each in found.values()) or "none"
    mend = "" if found else "sandgate template install python-3.13"
    return Ability("interpreters", bool(found), listed, "templates", _ALL, mend)


def _sqlite() -> Ability:
    ok = sqlite3.sqlite_version_info >= _OLDEST_SQLITE
    mend = "" if ok else "use a Python with SQLite 3.37 or newer, or PostgreSQL (SANDGATE_DATABASE_URL)"
    return Ability("sqlite", ok, f"SQLite {sqlite3.sqlite_version}", "state in a file", _NEITHER, mend)
