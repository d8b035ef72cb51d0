"""Process 1 of a container of gVisor's: the zygote of the one sandbox that the container is.

It lays out the sandbox's file system and clones a forker for each slot. The kernel in here is gVisor's own: descriptors
come in through its sockets, but none goes out, so that each child is given a socket and pipes that the gateway made.
"""

import json
import os
from typing import Any, Dict, List, Optional

from sandgate_agent import calls, child, system, walls, wire, zygote
from sandgate_agent.calls import Call
from sandgate_agent.ends import AnyEnds, Settle
from sandgate_agent.forker import Forker, Start, main
from sandgate_agent.messages import Letter, close_all

# What the launcher has laid into the container's root.
FOLDER = "/sandgate"
_ROOT = "/env"
_SLOTS = "/slots"
_CHANNEL = 62
_RLIMIT_NPROC = 6
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}  # fmt: skip
_S_IFCHR = 0o020000


class GivenEnds(AnyEnds):
    """Made by the gateway; they wait here for a child."""

    def __init__(self, control: int, others: List[int], settle: Settle) -> None:
        """``control`` is the gateway's socket; neither it nor ``others`` are for children."""
        self._control = control
        self._others = others
        self._settle = settle
        self._given: List[int] = []

    @property
    def are_there(self) -> bool:
        """Whether a child can be made."""
        return bool(self._given)

    def take(self, descriptors: List[int]) -> None:
        """These are for the next child. Raises ``WireError``."""
        self.drop()
        if len(descriptors) != 3:
            close_all(descriptors)
            raise wire.WireError("a child needs a socket and two pipes")
        self._given = descriptors
        kept_from_it = [calls.prepare("close", descriptor) for descriptor in (self._control, *self._others)]
        self.child = [*kept_from_it, *self._settle(*descriptors)]

    def drop(self) -> None:
        """Let go of those that no child has had."""
        given, self._given = self._given, []
        close_all(given)

    def open(self) -> None:
        """See :class:`AnyEnds`: they are open."""

    def hand_over(self, number: int) -> bool:
        """See :class:`AnyEnds`."""
        self.drop()
        os.write(self._control, wire.pack_numbered(wire.CHILD, number))
        return True

    def close(self) -> None:
        """See :class:`AnyEnds`: they are for the next try."""


class GivenForker(Forker):
    """A forker that makes a child for each set of ends that it is given."""

    _ends: GivenEnds

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._letter = Letter(self._control, wire.MESSAGE_LIMIT, 3)

    def _make_ends(self, settle: Settle) -> GivenEnds:
        return GivenEnds(self._control, [self._signals], settle)

    def fork(self) -> bool:
        """Make the next child, if there is anything to make it with."""
        return super().fork() if self._ends.are_there else True

    def on_message(self) -> bool:
        """Do what the gateway says; False when it is gone."""
        message, given = self._letter.receive()
        if message[:1] == wire.ENDS:
            self._ends.take(given)
            return True
        close_all(given)
        if message[:1] in (wire.RESET, wire.RESUME):
            self._ends.drop()
        goes_on = self._obey(message)
        # Nothing is made that was not asked for.
        self._held = False
        return goes_on


class _Plan(walls.Plan):
    """The walls as gVisor can put them up.

    It has no overlays of its own file systems and no mount namespaces: each slot has a root of its own, which shows the
    same files, and the ``/proc`` of its own processes.
    """

    def __init__(self, setup: Dict[str, Any]) -> None:
        self._lowers = setup["lowers"]
        self._build = [*walls.tree(setup), *_devices()]
        self._slot = [
            system.prepare_mount("proc", "/proc", "proc", walls.PROC),
            calls.prepare("chdir", walls.WORKSPACE.encode()),
        ]

    def environment(self, disk_bytes: int, inodes: int) -> List[Call]:  # noqa: ARG002 - gVisor counts none
        """See :class:`walls.Plan`. The number of files is bounded by the sandbox's memory only."""
        options = "size={},mode=755".format(disk_bytes)
        return [
            system.prepare_mount("sandgate", _ROOT, "tmpfs", walls.SAFE, options),
            system.prepare_mount("slots", _SLOTS, "tmpfs", walls.SAFE, "size=1048576,mode=700"),
            *self._build,
        ]

    def root(self, path: str) -> List[Call]:
        """A root for a slot: the files of the sandbox, and what it sees read-only."""
        return [
            calls.prepare("mkdir", path.encode(), 0o755),
            system.prepare_mount(_ROOT, path, "", system.MS_BIND),
            *(system.prepare_mount(low, path + low, "", system.MS_BIND | system.MS_RDONLY) for low in self._lowers),
            system.prepare_mount("/dev/pts", path + "/dev/pts", "", system.MS_BIND),
            system.prepare_mount(_ROOT + "/run/shm", path + "/dev/shm", "", system.MS_BIND),
        ]


def _devices() -> List[Call]:
    made = []
    for name, (major, minor) in _DEVICES.items():
        path = "{}/dev/{}".format(_ROOT, name).encode()
        made.append(calls.prepare("mknod", path, 0o666 | _S_IFCHR, os.makedev(major, minor)))
        made.append(calls.prepare("chmod", path, 0o666))
    made += [calls.prepare("symlink", to.encode(), (_ROOT + "/dev/" + name).encode()) for name, to in _LINKS.items()]
    made += [calls.prepare("mkdir", (_ROOT + "/dev/" + name).encode(), 0o755) for name in ("pts", "shm")]
    return made


class ContainedZygote:
    """Clones a forker for every request of the launcher; ends with the first of them."""

    def __init__(self, setup: Dict[str, Any], filter_: Optional[system.Filter]) -> None:
        self._fork = None if setup["preload"] else system.prepare_light_fork(system.find_thread_number())
        self._signals = system.open_child_signals()
        self._watch = system.Watch(self._signals, _CHANNEL)
        self._burial = system.Burial()
        self._request = Letter(_CHANNEL, wire.MESSAGE_LIMIT, 2)
        self._plan = _Plan(setup)
        calls.run(self._plan.environment(setup["disk_bytes"], 0))
        self._start = Start({**setup, "joins": True, "folder": None}, self._plan, filter_)
        self._start.of_children.append((_RLIMIT_NPROC, setup["processes"]))
        self._slots: Dict[int, str] = {}
        self._first: Optional[int] = None
        self._made = 0

    def clone(self, ends: List[int]) -> None:
        """Clone a forker; when none can be made the launcher finds that out by the end of the channel."""
        self._made += 1
        path = "{}/{}".format(_SLOTS, self._made)
        try:
            calls.run(self._plan.root(path))
            pid = system.clone(walls.NEW_SLOT)
        except OSError as error:
            os.write(2, "sandgate: nothing can be cloned: {}\n".format(error).encode())
            self._remove(path)
            pid = -1
        if pid == 0:
            os.close(_CHANNEL)
            os.close(self._signals)
            start = self._start.after([calls.prepare("chroot", path.encode())])
            main(start, True, self._fork, ends[0], ends[1], GivenForker)
        if pid > 0:
            self._slots[pid] = path
            self._first = self._first or pid
        close_all(ends)

    def _remove(self, path: str) -> None:
        """Take a slot's root away."""
        calls.prepare("umount2", path.encode(), system.MNT_DETACH)()
        calls.prepare("rmdir", path.encode())()

    def _bury(self) -> bool:
        """False when the forker that holds the sandbox has ended."""
        os.read(self._signals, 1024)
        while True:
            pid = self._burial.bury_ended()
            if pid <= 0:
                return True
            if pid == self._first:
                return False
            path = self._slots.pop(pid, None)
            if path is not None:
                self._remove(path)

    def serve(self) -> None:
        """Until the launcher is gone, or the sandbox."""
        while True:
            signalled, asked = self._watch.wait()
            if signalled and not self._bury():
                return
            if not asked:
                continue
            message, ends = self._request.receive()
            if not message:
                return
            if len(ends) != 2:
                close_all(ends)
                continue
            self.clone(ends)


def run() -> None:
    """Run as the container's process 1, with the launcher's socket as standard input."""
    os.dup2(0, _CHANNEL, inheritable=False)
    os.close(0)
    os.open("/dev/null", os.O_RDONLY)
    with open(FOLDER + "/setup.json") as file:
        setup = json.load(file)
    with open(FOLDER + "/filter", "rb") as program:
        filter_ = system.Filter(program.read())
    system.set_process_name("sg-zygote")
    zygote.preload(setup["preload"])
    child.rehearse()
    child.prepare_interpreter(setup)
    contained = ContainedZygote(setup, filter_)
    zygote.freeze()
    os.write(_CHANNEL, wire.READY)
    contained.serve()
    os._exit(0)
