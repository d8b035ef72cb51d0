"""The walls of an environment, put up by its own process 1 with powers that hold inside only.

Order matters throughout: what the launcher mounted for the zygote is locked from here on, a mount of ``/proc``
needs another whole ``/proc`` in sight, and only the process namespace that a mount is made in decides whose
processes it shows.
"""

import fcntl
import os
import socket
import struct
from typing import Any, Dict, List

from sandgate_agent import system

USER_ID = 1000
HOME = "/home/user"
WORKSPACE = "/workspace"

_ROOT = "/env"
_EMPTY = "/empty"
_HIDDEN_FOLDERS = ("acpi", "asound", "driver", "scsi")
_HIDDEN_FILES = (
    "interrupts", "kallsyms", "kcore", "key-users", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags",
    "latency_stats", "pagetypeinfo", "sched_debug", "slabinfo", "sysrq-trigger", "timer_list", "timer_stats",
    "vmallocinfo",
)  # fmt: skip
_READ_ONLY_FOLDERS = ("bus", "fs", "irq", "sys")
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x1 | 0x40
_SAFE = system.MS_NOSUID | system.MS_NODEV


def is_standard(request: Dict[str, Any]) -> bool:
    """Whether namespaces are put up, rather than the plain processes of the ``process`` class."""
    return bool(request["standard"])


def clone_flags(request: Dict[str, Any]) -> int:
    """The namespaces that a keeper starts in. Its cgroup namespace comes later: first it must be in its cgroup."""
    if not is_standard(request):
        return 0
    return (
        system.CLONE_NEWUSER
        | system.CLONE_NEWNS
        | system.CLONE_NEWPID
        | system.CLONE_NEWNET
        | system.CLONE_NEWIPC
        | system.CLONE_NEWUTS
    )


def become_root_inside() -> None:
    """Take the mapped id 0: an unprivileged id of the host's that no other environment has."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def put_up(request: Dict[str, Any]) -> None:
    """Build the file system, the host name and the loopback device of an environment and move into it."""
    system.unshare(system.CLONE_NEWCGROUP)
    _mount_root(request)
    _make_tree(request)
    for lower in request["lowers"]:
        _mount_lower(lower, request.get("lower_sources", {}).get(lower, lower))
    system.mount("/dev", _ROOT + "/dev", "", system.MS_BIND | system.MS_REC)
    system.mount(_ROOT + "/run/shm", _ROOT + "/dev/shm", "", system.MS_BIND)
    system.mount("devpts", _ROOT + "/dev/pts", "devpts", _SAFE | system.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    system.mount("proc", _ROOT + "/proc", "proc", _SAFE | system.MS_NOEXEC)
    os.chdir(_ROOT)
    system.pivot_root_here()
    os.chdir(WORKSPACE)
    socket.sethostname(request["hostname"])
    _raise_loopback()


def _mount_root(request: Dict[str, Any]) -> None:
    """A file system in memory, bounded in bytes and in files, private to this environment."""
    options = "size={},nr_inodes={},mode=755".format(request["disk_bytes"], request["inodes"])
    system.mount("sandgate", _ROOT, "tmpfs", _SAFE, options)


def _make_tree(request: Dict[str, Any]) -> None:
    """Folders and links of the root; three of them belong to the user."""
    for folder in [
        "dev",
        "etc",
        "proc",
        "usr",
        "home",
        "run",
        "var/empty",
        *(f.lstrip("/") for f in request["lowers"]),
    ]:
        os.makedirs(_ROOT + "/" + folder, mode=0o755, exist_ok=True)
    for link, target in request["links"].items():
        os.symlink(target, _ROOT + link)
    for folder in (HOME, WORKSPACE):
        os.mkdir(_ROOT + folder, 0o755)
        os.chown(_ROOT + folder, USER_ID, USER_ID)
    for folder in ("/tmp", "/var/tmp", "/run/shm"):
        os.mkdir(_ROOT + folder)
        os.chmod(_ROOT + folder, 0o1777)


def _mount_lower(target: str, source: str) -> None:
    """Show a folder of the template read-only.

    An overlay rather than a bind: a file lock taken on a bind is felt by every environment that has the same one.
    """
    options = "lowerdir={}:{},userxattr".format(source, _EMPTY)
    system.mount("overlay", _ROOT + target, "overlay", _SAFE | system.MS_RDONLY, options)


def _raise_loopback() -> None:
    """Bring up ``lo``, the only network device there is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        request = struct.pack("16sH14x", b"lo", _IFF_UP_RUNNING)
        fcntl.ioctl(control, _SIOCSIFFLAGS, request)


def mount_own_proc() -> None:
    """Show a slot the processes of its own namespace, and of them those of its own user only."""
    system.mount("proc", "/proc", "proc", _SAFE | system.MS_NOEXEC, "hidepid=2")
    for name in _HIDDEN_FILES:
        _cover("/dev/null", "/proc/" + name)
    for name in _HIDDEN_FOLDERS:
        _cover("/var/empty", "/proc/" + name)
    for name in _READ_ONLY_FOLDERS:
        _make_read_only("/proc/" + name)


def _cover(source: str, target: str) -> None:
    """Put something harmless over a path, if this kernel has it."""
    if os.path.lexists(target):
        system.mount(source, target, "", system.MS_BIND)


def _make_read_only(folder: str) -> None:
    """Take away what the owner of a namespace may still write."""
    if os.path.lexists(folder):
        system.mount(folder, folder, "", system.MS_BIND | system.MS_REC)
        flags = system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | _SAFE | system.MS_NOEXEC
        system.mount("", folder, "", flags)


def put_up_plain(request: Dict[str, Any]) -> None:
    """The ``process`` class: a folder of its own, and nothing more."""
    folder = request["folder"]
    os.environ["HOME"] = folder + "/home"
    os.environ["TMPDIR"] = folder + "/tmp"
    os.environ["PWD"] = folder + "/workspace"
    os.chdir(folder + "/workspace")


def descendants(root: int) -> List[int]:
    """Every process below ``root``, by the parents that ``/proc`` names at this moment."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/" + name + "/stat", "rb") as stat:
                    parents[int(name)] = int(stat.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
    found = [root]
    for parent in found:
        found.extend(pid for pid, its_parent in parents.items() if its_parent == parent)
    return found[1:]
