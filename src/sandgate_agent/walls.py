"""The walls of an environment, put up by its own process 1 with powers that hold inside only.

Order matters throughout: what the launcher mounted for the zygote is locked from here on, a mount of ``/proc``
needs another whole ``/proc`` in sight, and only the process namespace that a mount is made in decides whose
processes it shows.
"""

import os
from typing import Any, Dict, List, Optional, Tuple

from sandgate_agent import calls, system
from sandgate_agent.calls import Call

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
_HIDDEN_FOLDERS = ("acpi", "asound", "driver", "pressure", "scsi")
_HIDDEN_FILES = (
    "bootconfig", "cmdline", "interrupts", "kallsyms", "kcore", "key-users", "keys", "kmsg", "kpagecgroup",
    "kpagecount", "kpageflags", "latency_stats", "locks", "pagetypeinfo", "sched_debug", "slabinfo", "sysrq-trigger",
    "timer_list", "timer_stats", "vmallocinfo",
)  # fmt: skip
_READ_ONLY_FOLDERS = ("bus", "fs", "irq", "sys")
_SIOCSIFFLAGS = 0x8914
_AF_INET, _SOCK_DGRAM = 2, 2
# struct ifreq of "lo" with IFF_UP and IFF_RUNNING.
_LOOPBACK_UP = b"lo".ljust(16, b"\0") + b"\x41\x00".ljust(24, b"\0")
SAFE = system.MS_NOSUID | system.MS_NODEV
PROC = SAFE | system.MS_NOEXEC


def _parents(path: str) -> List[str]:
    """The folders on the way to ``path`` and itself, outermost first, without the leading slash."""
    parts = path.strip("/").split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]


class Plan:
    """Everything about an environment's walls, prepared in the zygote.

    The proc file system of the zygote shows which of the files to hide this kernel has.
    """

    # Signals that wait, and bytes of message queues: what an environment may have of what is counted for a user.
    # Source of the numbers: include/uapi/asm-generic/resource.h
    OF_USER: Tuple[Tuple[int, int], ...] = ((11, 8192), (12, 262_144))

    def __init__(self, setup: Dict[str, Any]) -> None:
        """``setup``: ``lowers``, the folders to show read-only, and ``links``, the links of the root (path: target).

        And ``open``, further folders of the user's; ``shared``, folders that everybody may put things into; and
        ``below``, the folder that those of ``lowers`` are shown in instead of in their own places.
        """
        self._build = [*tree(setup), *_mounts(setup["lowers"], setup.get("below", "")), *_moving_in()]
        masks = _masks(setup)
        # Where it is counted apart from other slots is nothing that code should see.
        self._slot = [calls.prepare("unshare", system.CLONE_NEWCGROUP), _proc("/proc"), *masks]
        # The one that is there shows the processes of the first slot; masks must not lie on it itself.
        self._first_slot = [system.prepare_mount("/proc", "/proc", "", system.MS_BIND), *masks]

    def environment(self, disk_bytes: Optional[int], inodes: int) -> List[Call]:
        """Build the file system, the host name and the loopback device of an environment and move into it.

        ``disk_bytes`` None: what it is to be built in is there already.
        """
        root: List[Call] = []
        if disk_bytes is not None:
            # Private to this environment, in memory, bounded in bytes and in files.
            options = "size={},nr_inodes={},mode=755".format(disk_bytes, inodes)
            root.append(system.prepare_mount("sandgate", _ROOT, "tmpfs", SAFE, options))
        return [*system.prepare_identity(0), calls.prepare("unshare", system.CLONE_NEWCGROUP), *root, *self._build]

    def first_slot(self) -> List[Call]:
        """What :meth:`slot` does, in the process namespace that the environment was made in."""
        return self._first_slot

    def slot(self) -> List[Call]:
        """Show a slot the processes of its own namespace, and of them those of its own user only."""
        return self._slot


def tree(setup: Dict[str, Any]) -> List[Call]:
    """Folders and links of the root; two of them, and those that are ``open``, belong to the user.

    Those that are ``bare`` have nothing in them.
    """
    folders = list(_FOLDERS)
    given, shared = setup.get("open", ()), setup.get("shared", ())
    above = [os.path.dirname(link) for link in setup["links"] if link.count("/") > 1]
    lowers = [setup.get("below", "") + lower for lower in setup["lowers"]]
    for lower in [*lowers, *setup.get("bare", ()), *given, *shared, *above]:
        folders.extend(folder for folder in _parents(lower) if folder and folder not in folders)
    made = [calls.prepare("mkdir", "{}/{}".format(_ROOT, folder).encode(), 0o755) for folder in folders]
    for link, target in setup["links"].items():
        made.append(calls.prepare("symlink", target.encode(), (_ROOT + link).encode()))
    # One on the way to an interpreter is there already.
    missing = [folder for folder in (HOME, WORKSPACE, *_OPEN_FOLDERS) if folder.strip("/") not in folders]
    made += [calls.prepare("mkdir", (_ROOT + folder).encode(), 0o755) for folder in missing]
    users = [(_ROOT + folder).encode() for folder in (HOME, WORKSPACE, *given)]
    made += [calls.prepare("chown", folder, USER_ID, USER_ID) for folder in users]
    made += [calls.prepare("chmod", (_ROOT + folder).encode(), 0o1777) for folder in (*_OPEN_FOLDERS, *shared)]
    return made


def _mounts(lowers: List[str], below: str) -> List[Call]:
    """What is attached to the root."""
    return [
        # An overlay rather than a bind: a file lock taken on a bind is felt by everybody who has the same one.
        *(
            system.prepare_mount(
                "overlay",
                _ROOT + below + lower,
                "overlay",
                SAFE | system.MS_RDONLY,
                "lowerdir={}:{},userxattr".format(lower, _EMPTY),
            )
            for lower in lowers
        ),
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
        _proc(_ROOT + "/proc"),
    ]


def _moving_in() -> List[Call]:
    """The new root, its host name and its loopback device."""
    return [
        *system.prepare_pivot_root(_ROOT),
        calls.prepare("sethostname", HOST_NAME.encode(), len(HOST_NAME)),
        _forget_shared_memory,
        # Descriptor 0, closed just before, is the lowest and therefore the one that is opened next.
        calls.prepare("close", 0),
        calls.prepare("socket", _AF_INET, _SOCK_DGRAM, 0),
        calls.prepare("ioctl", 0, _SIOCSIFFLAGS, _LOOPBACK_UP),
        calls.prepare("close", 0),
        calls.prepare("open", b"/dev/null", os.O_RDONLY),
    ]


def _proc(folder: str) -> Call:
    """Of its own processes each user sees only his own."""
    return system.prepare_mount("proc", folder, "proc", PROC, "hidepid=2")


def find_folder(setup: Dict[str, Any]) -> str:
    """Where code begins: in the folder that a root file system names, when that is one that sandboxes see."""
    folder: str = setup.get("folder", "")
    seen = any(folder == lower or folder.startswith(lower + "/") for lower in setup.get("lowers", ()))
    return folder if seen and os.path.isdir(folder) else WORKSPACE


def prepare_beginning(setup: Dict[str, Any]) -> Call:
    """Begin there. What looks for the folder in a variable finds it from now on."""
    folder = os.environ["PWD"] = find_folder(setup)
    return calls.prepare("chdir", folder.encode())


def _masks(setup: Dict[str, Any]) -> List[Call]:
    """What is not for a slot on a ``/proc`` that lies over a whole one, and where it begins."""
    mounts = []
    for source, names in (("/dev/null", _HIDDEN_FILES), ("/var/empty", _HIDDEN_FOLDERS)):
        there = [name for name in names if os.path.lexists("/proc/" + name)]
        mounts += [system.prepare_mount(source, "/proc/" + name, "", system.MS_BIND) for name in there]
    for name in _READ_ONLY_FOLDERS:
        folder = "/proc/" + name
        if os.path.isdir(folder):
            again = system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | PROC
            mounts.append(system.prepare_mount(folder, folder, "", system.MS_BIND | system.MS_REC))
            mounts.append(system.prepare_mount("", folder, "", again))
    return [*mounts, prepare_beginning(setup)]


def _forget_shared_memory() -> int:
    """Let System V segments end with the last process that uses them, or one execution fills memory for all later ones.

    An older kernel keeps this switch for the host's root, and then the segments stay until the environment ends.
    """
    try:
        switch = os.open("/proc/sys/kernel/shm_rmid_forced", os.O_WRONLY)
    except OSError:
        return 0
    os.write(switch, b"1")
    os.close(switch)
    return 0


def enter(namespaces: List[int]) -> None:
    """Join an environment that is there; the user namespace comes first, and with it the power to enter the rest."""
    for descriptor in namespaces:
        system.enter_namespace(descriptor)
    calls.run(system.prepare_identity(0))


def put_up_plain(folder: str) -> None:
    """The ``process`` class: a folder of its own, and nothing more."""
    os.environ["HOME"] = folder + "/home"
    os.environ["PATH"] = ":".join(filter(None, (os.environ["PATH"], folder + "/home/.local/bin")))
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
