"""Tries what sandboxes need, in a process of its own: run as a script by :mod:`sandgate.sandbox.probe`.

Standard library only, and no other module of sandgate: it is started as ``python -I -S probe_process.py NAME ID
[PROFILE]``. Each finding is a line of JSON on standard output, written as soon as it is known, so that a step that
hangs hides nothing that came before. All that it mounts is in namespaces that end with it, and it removes the control
groups that it makes.

The walls are tried as the product puts them up: root makes a mount and a process namespace with a ``/proc`` of its own,
becomes an unprivileged user, and that one makes the user namespace and everything inside it.
"""

import ctypes
import json
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Source: include/uapi/linux/sched.h, mount.h, prctl.h, seccomp.h, filter.h, landlock.h.
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_NAMESPACES = {"ipc": 0x08000000, "net": 0x40000000, "uts": 0x04000000, "cgroup": 0x02000000}
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 16384, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_SECCOMP_ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
# Source: arch/*/tables/syscall.tbl; the number is the same on every architecture.
_NR_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_CREATE_RULESET_VERSION = 1

_SCRATCH = "/tmp"  # noqa: S108 - a mount point in a namespace of its own, nothing is written on the host
_CONTROLLERS = ("memory", "cpu", "pids", "freezer")

_libc = ctypes.CDLL(None, use_errno=True)


def _say(ability: str, ok: bool, found: str) -> None:
    """One finding, in one write, from whichever of the processes here."""
    line = json.dumps({"ability": ability, "ok": ok, "found": found}) + "\n"
    os.write(1, line.encode())


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _unshare(flags: int, what: str) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), what)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    data = options.encode() or None
    call = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data)
    _check(call, f"mount {kind or source}")


def _prctl(option: int, value: int, pointer: object = None) -> None:
    nothing = ctypes.c_ulong(0)
    _check(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), pointer, nothing, nothing), f"prctl {option}")


@contextmanager
def _finding(ability: str, found: str) -> Iterator[None]:
    """The ability is there if the block ends well; otherwise what went wrong is the finding."""
    try:
        yield
    except OSError as error:
        _say(ability, False, error.strerror or str(error))
        raise
    _say(ability, True, found)


def _in_child(work: Callable[[], None]) -> int:
    """Do the work in a forked child and answer the child's process id; its exit code is 0 when it went well."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        work()
        code = 0
    except OSError:
        code = 2  # Was said where it happened.
    finally:
        os._exit(code)


def _wait(pid: int) -> bool:
    """Whether the child ended well."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _try_filter() -> None:
    """Install a system call filter that lets everything through."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    with _finding("seccomp", "filters can be installed"):
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        program = Program(1, _SECCOMP_ALLOW_ALL)
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program))


def _try_libseccomp() -> None:
    class Version(ctypes.Structure):
        _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))

    try:
        library = ctypes.CDLL("libseccomp.so.2")
        library.seccomp_version.restype = ctypes.POINTER(Version)
        version = library.seccomp_version().contents
    except (OSError, AttributeError):
        _say("libseccomp", False, "libseccomp.so.2 cannot be loaded")
    else:
        _say("libseccomp", True, f"libseccomp {version.major}.{version.minor}.{version.micro}")


def _try_landlock() -> None:
    nothing, size = ctypes.c_void_p(0), ctypes.c_size_t(0)
    asked = ctypes.c_uint(_LANDLOCK_CREATE_RULESET_VERSION)
    version = _libc.syscall(ctypes.c_long(_NR_LANDLOCK_CREATE_RULESET), nothing, size, asked)
    if version > 0:
        _say("landlock", True, f"Landlock ABI {version}")
    else:
        _say("landlock", False, f"no Landlock: {os.strerror(ctypes.get_errno())}")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _find_controllers() -> tuple[str, Mapping[str, str]]:
    """Which kind of control groups there is, and the mount of each controller. Source: proc_pid_mountinfo(5)."""
    first: dict[str, str] = {}
    second: dict[str, str] = {}
    for line in _read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = [*right.split(" "), "", "", ""][:3]
        mount = left.split(" ")[4].replace("\\040", " ")
        if kind == "cgroup":
            first.update({name: mount for name in options.split(",") if name in _CONTROLLERS})
        elif kind == "cgroup2":
            # Every group of version 2 can be frozen; that is no controller there.
            there = [*_read(f"{mount}/cgroup.controllers").split(), "freezer"]
            second.update({name: mount for name in there if name in _CONTROLLERS})
    kinds = {(False, False): "none", (True, False): "v1", (False, True): "v2", (True, True): "hybrid"}
    return kinds[bool(first), bool(second)], {**second, **first}


def _try_control_group(controller: str, mount: str, name: str) -> None:
    """Make a group, look for the controller's files in it, remove it."""
    folder = f"{mount}/{name}-{controller}"
    is_second = os.path.exists(f"{mount}/cgroup.controllers")
    with _finding(f"cgroup_{controller}", f"{'v2' if is_second else 'v1'}, writable at {mount}"):
        os.mkdir(folder)
        os.rmdir(folder)
        # On version 2 the controllers have to be handed down to groups below.
        if is_second and controller != "freezer" and not os.access(f"{mount}/cgroup.subtree_control", os.W_OK):
            raise OSError(0, f"{mount}/cgroup.subtree_control is read-only")


def _try_control_groups(name: str) -> None:
    kind, mounts = _find_controllers()
    _say("cgroups", kind != "none", f"control groups: {kind}")
    for controller in _CONTROLLERS:
        if controller not in mounts:
            _say(f"cgroup_{controller}", False, f"no hierarchy holds {controller}")
            continue
        try:
            _try_control_group(controller, mounts[controller], name)
        except OSError:
            continue


def _write_maps(pid: int, host_id: int | None) -> None:
    """Map id 0 of the user namespace of ``pid``: to ``host_id`` when root does it, to one's own otherwise."""
    if host_id is None:
        Path(f"/proc/{pid}/setgroups").write_text("deny")
    Path(f"/proc/{pid}/gid_map").write_text(f"0 {os.getgid() if host_id is None else host_id} 1")
    Path(f"/proc/{pid}/uid_map").write_text(f"0 {os.getuid() if host_id is None else host_id} 1")


def _leave_root(host_id: int) -> None:
    """Become the unprivileged user that a sandbox would be."""
    with _finding("host_ids", f"processes can run as user {host_id}"):
        os.setgroups([])
        os.setresgid(host_id, host_id, host_id)
        os.setresuid(host_id, host_id, host_id)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # Changing the user has cleared it.


def _try_inside() -> None:
    """As process 1 of a process namespace: a fresh ``/proc`` and an overlay, as an environment has them."""
    _mount("", "/", "", _MS_REC | _MS_PRIVATE)
    _mount("probe", _SCRATCH, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=64k")
    for folder in ("empty", "merged", "proc"):
        os.mkdir(f"{_SCRATCH}/{folder}")
    with _finding("overlayfs", "read-only overlays can be mounted in a user namespace"):
        options = f"lowerdir=/usr:{_SCRATCH}/empty,userxattr"
        _mount("overlay", f"{_SCRATCH}/merged", "overlay", _MS_NOSUID | _MS_NODEV | _MS_RDONLY, options)
    with _finding("proc", "a private /proc can be mounted"):
        flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        _mount("proc", f"{_SCRATCH}/proc", "proc", flags, "hidepid=2")


def _try_namespaces() -> None:
    """Every kind of namespace, one after another, and then life inside them."""
    missing = []
    for name, flags in {"mount": _CLONE_NEWNS, **_NAMESPACES, "pid": _CLONE_NEWPID}.items():
        try:
            _unshare(flags, name)
        except OSError as error:
            missing.append(str(error.strerror))
    if missing:
        _say("namespaces", False, "; ".join(missing))
        raise OSError(0, "no namespaces")
    _say("namespaces", True, "mount, ipc, net, uts, cgroup and pid namespaces can be made")
    if not _wait(_in_child(_try_inside)):
        raise OSError(0, "no life inside")


def _enter_profile(profile: str) -> None:
    """Where AppArmor limits user namespaces, what makes them is under a profile that allows them."""
    if profile:
        with open("/proc/thread-self/attr/apparmor/current", "w") as attribute:
            attribute.write(f"changeprofile {profile}")


def _enter_user_namespace(asks: int, answers: int, host_id: int | None, profile: str) -> None:
    """In the child: make the namespace, have it mapped from outside, go on inside."""
    if host_id is not None:
        with _finding("root_namespaces", "root can make mount and process namespaces"):
            _unshare(_CLONE_NEWNS, "unshare")
            _mount("", "/", "", _MS_REC | _MS_PRIVATE)
            _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        _enter_profile(profile)
        _leave_root(host_id)
    with _finding("user_namespaces", "an unprivileged user can make a user namespace"):
        _unshare(_CLONE_NEWUSER, "unshare")
        os.write(asks, b"?")
        if os.read(answers, 1) != b"!":
            raise OSError(0, "the namespace could not be mapped")
        os.setresuid(0, 0, 0)
    _try_namespaces()


def _try_walls(host_id: int | None, profile: str) -> None:
    """Everything that needs a user namespace; this process stays outside and maps it. None: without root."""
    if host_id is not None:
        try:
            _unshare(_CLONE_NEWPID, "unshare")
        except OSError as error:
            _say("root_namespaces", False, str(error.strerror))
            raise
    asked, asks = os.pipe()
    answers, answer = os.pipe()

    def child() -> None:
        os.close(asked)
        os.close(answer)
        _enter_user_namespace(asks, answers, host_id, profile)

    pid = _in_child(child)
    os.close(asks)
    try:
        if os.read(asked, 1) == b"?":
            _write_maps(pid, host_id)
            os.write(answer, b"!")
    finally:
        os.close(answer)
        _wait(pid)


def main(name: str, host_id: int, profile: str = "") -> int:
    """Try everything; ``name`` is what control groups that are made for it are called, ``host_id`` an unused user.

    ``profile`` is one of AppArmor, for processes that make user namespaces.
    """
    _try_libseccomp()
    _try_landlock()
    _wait(_in_child(_try_filter))
    _try_control_groups(name)
    _wait(_in_child(lambda: _try_walls(host_id if os.geteuid() == 0 else None, profile)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
