"""The walls of an environment, put up by its own process 1 with powers that hold inside only.

Order matters throughout: what the launcher mounted for the zygote is locked from here on, a mount of ``/proc``
needs another whole ``/proc`` in sight, and only the process namespace that a mount is made in decides whose
processes it shows.
"""

import _socket
import fcntl
import os
from typing import Any, Dict, List

from sandgate_agent import system

USER_ID = 1000
HOME = "/home/user"
WORKSPACE = "/workspace"
HOST_NAME = "sandbox"

# The cgroup namespace comes later: first the process must be in its cgroup.
NEW_ENVIRONMENT = (
    system.CLONE_NEWUSER
    | system.CLONE_NEWNS
    | system.CLONE_NEWPID
    | system.CLONE_NEWNET
    | system.CLONE_NEWIPC
    | system.CLONE_NEWUTS
)
NEW_SLOT = system.CLONE_NEWNS | system.CLONE_NEWPID

_ROOT = "/env"
_EMPTY = "/empty"
_FOLDERS = ("dev", "etc", "home", "proc", "run", "usr", "var", "var/empty")
_OPEN_FOLDERS = ("/tmp", "/var/tmp", "/run/shm")
_HIDDEN_FOLDERS = ("acpi", "asound", "driver", "scsi")
_HIDDEN_FILES = (
    "interrupts", "kallsyms", "kcore", "key-users", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags",
    "latency_stats", "pagetypeinfo", "sched_debug", "slabinfo", "sysrq-trigger", "timer_list", "timer_stats",
    "vmallocinfo",
)  # fmt: skip
_READ_ONLY_FOLDERS = ("bus", "fs", "irq", "sys")
_SIOCSIFFLAGS = 0x8914
# struct ifreq of "lo" with IFF_UP and IFF_RUNNING.
_LOOPBACK_UP = b"lo".ljust(16, b"\0") + b"\x41\x00".ljust(24, b"\0")
_SAFE = system.MS_NOSUID | system.MS_NODEV


def _parents(path: str) -> List[str]:
    """The folders on the way to ``path`` and itself, outermost first, without the leading slash."""
    parts = path.strip("/").split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]


class Plan:
    """Everything about an environment's walls that is the same for all of a template, made once in the zygote.

    The proc file system of the zygote shows which of the files to hide this kernel has.
    """

    def __init__(self, setup: Dict[str, Any]) -> None:
        """``setup``: ``lowers``, the folders to show read-only, and ``links``, the links of the root (path: target)."""
        folders = list(_FOLDERS)
        for lower in setup["lowers"]:
            folders.extend(folder for folder in _parents(lower) if folder not in folders)
        self.folders = [_ROOT + "/" + folder for folder in folders]
        self.links = [(target, _ROOT + link) for link, target in setup["links"].items()]
        # An overlay rather than a bind: a file lock taken on a bind is felt by everybody who has the same one.
        self.mounts = [
            system.prepare_mount(
                "overlay",
                _ROOT + lower,
                "overlay",
                _SAFE | system.MS_RDONLY,
                "lowerdir={}:{},userxattr".format(lower, _EMPTY),
            )
            for lower in setup["lowers"]
        ]
        proc_flags = _SAFE | system.MS_NOEXEC
        self.mounts += [
            system.prepare_mount("/dev", _ROOT + "/dev", "", system.MS_BIND | system.MS_REC),
            system.prepare_mount(_ROOT + "/run/shm", _ROOT + "/dev/shm", "", system.MS_BIND),
            # Its terminals are devices, so that it is the one mount that shows some; the host has few of them.
            system.prepare_mount(
                "devpts",
                _ROOT + "/dev/pts",
                "devpts",
                system.MS_NOSUID | system.MS_NOEXEC,
                "newinstance,ptmxmode=0666,mode=620,max=64",
            ),
            system.prepare_mount("proc", _ROOT + "/proc", "proc", proc_flags),
        ]
        self.slot_mounts = [system.prepare_mount("proc", "/proc", "proc", proc_flags, "hidepid=2")]
        self._hide("/dev/null", _HIDDEN_FILES)
        self._hide("/var/empty", _HIDDEN_FOLDERS)
        for name in _READ_ONLY_FOLDERS:
            folder = "/proc/" + name
            if os.path.isdir(folder):
                again = system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | proc_flags
                self.slot_mounts.append(system.prepare_mount(folder, folder, "", system.MS_BIND | system.MS_REC))
                self.slot_mounts.append(system.prepare_mount("", folder, "", again))

    def _hide(self, source: str, names: "tuple[str, ...]") -> None:
        for name in names:
            if os.path.lexists("/proc/" + name):
                self.slot_mounts.append(system.prepare_mount(source, "/proc/" + name, "", system.MS_BIND))

    def put_up(self, disk_bytes: int, inodes: int) -> None:
        """Build the file system, the host name and the loopback device of an environment and move into it."""
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        system.unshare(system.CLONE_NEWCGROUP)
        # Private to this environment, in memory, bounded in bytes and in files.
        system.mount("sandgate", _ROOT, "tmpfs", _SAFE, "size={},nr_inodes={},mode=755".format(disk_bytes, inodes))
        self._make_tree()
        for mount in self.mounts:
            mount()
        os.chdir(_ROOT)
        system.pivot_root_here()
        _socket.sethostname(HOST_NAME)
        _forget_shared_memory()
        control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
        fcntl.ioctl(control, _SIOCSIFFLAGS, _LOOPBACK_UP)
        control.close()

    def _make_tree(self) -> None:
        """Folders and links of the root; two of them belong to the user."""
        for folder in self.folders:
            os.mkdir(folder, 0o755)
        for target, link in self.links:
            os.symlink(target, link)
        for folder in (HOME, WORKSPACE):
            os.mkdir(_ROOT + folder, 0o755)
            os.chown(_ROOT + folder, USER_ID, USER_ID)
        for folder in _OPEN_FOLDERS:
            os.mkdir(_ROOT + folder)
            os.chmod(_ROOT + folder, 0o1777)

    def put_up_slot(self) -> None:
        """Show a slot the processes of its own namespace, and of them those of its own user only."""
        for mount in self.slot_mounts:
            mount()
        os.chdir(WORKSPACE)


def _forget_shared_memory() -> None:
    """Let System V segments end with the last process that uses them, or one execution fills memory for all later ones.

    An older kernel keeps this switch for the host's root, and then the segments stay until the environment ends.
    """
    try:
        switch = os.open("/proc/sys/kernel/shm_rmid_forced", os.O_WRONLY)
    except OSError:
        return
    os.write(switch, b"1")
    os.close(switch)


def enter(namespaces: List[int]) -> None:
    """Join an environment that is there; the user namespace comes first, and with it the power to enter the rest."""
    for descriptor in namespaces:
        system.enter_namespace(descriptor)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def put_up_plain(folder: str) -> None:
    """The ``process`` class: a folder of its own, and nothing more."""
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
