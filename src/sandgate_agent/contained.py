"""Process 1 of a container of gVisor's: the zygote of the one sandbox that the container is.

It lays out the sandbox's file system and clones a forker for each slot. The kernel in here is gVisor's own: descriptors
come in through its sockets, but none goes out, so that each child is given a socket and pipes that the gateway made.
"""

import json
import os
from typing import Any, Dict, List, Optional, Sequence, Tuple

from sandgate_agent import calls, child, system, walls, wire, zygote
from sandgate_agent.calls import Call
from sandgate_agent.ends import Settle
from sandgate_agent.forker import AnyForker, Start
from sandgate_agent.messages import Letter, close_all

# What the launcher has laid into the container's root.
FOLDER = "/sandgate"
_ROOT = "/env"
_SLOTS = "/slots"
_CHANNEL = 62
_RETRY_MS = 5
_RLIMIT_NPROC = 6
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}  # fmt: skip
_S_IFCHR = 0o020000


class GivenEnds:
    """One child's socket and pipes at a time, made by the gateway; they wait here for a child."""

    def __init__(self, control: int, others: List[int], settle: Settle) -> None:
        """``control`` is the gateway's socket; neither it nor ``others`` are for children."""
        self._control = control
        self._others = others
        self._settle = settle
        self._given: List[int] = []
        # By which the child takes its own.
        self.child: List[Call] = []

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

    def hand_over(self, number: int) -> None:
        """After the fork: keep none, and tell the gateway of the child. Raises ``OSError`` when it is gone."""
        self.drop()
        os.write(self._control, wire.pack_numbered(wire.CHILD, number))


class GivenForker(AnyForker):
    """A forker that makes a child for each set of ends that it is given."""

    def __init__(
        self, control: int, sync: int, signals: int, fork: Optional[Call], limits: Sequence[Tuple[int, int]]
    ) -> None:
        """See :class:`AnyForker`; ``limits`` are the children's."""
        super().__init__(control, sync, signals, True, fork)
        self._ends = GivenEnds(control, [signals], child.settling(True, limits))
        self._letter = Letter(control, wire.MESSAGE_LIMIT, 3)

    def _serve(self) -> None:
        """See :class:`AnyForker`."""
        while True:
            waits = self._held or self._pid != 0 or not self._ends.are_there or self._make_child()
            self._poll.wait(-1 if waits else _RETRY_MS)
            if self._poll.found[system.FOUND_FIRST]:
                self._bury()
            if self._poll.found[system.FOUND_SECOND] and not self._hear():
                return

    def _make_child(self) -> bool:
        """Make the next child; False when there is no process to be had now."""
        pid = self._fork()
        if pid == 0:
            child.main(self._ends.child)
        if pid > 0:
            self._pid = pid
            self._number += 1
            self._ends.hand_over(self._number)
        return pid > 0

    def _bury(self) -> None:
        """Bury what has ended: orphans silently, the child with a message."""
        self._drain()
        buried = self._burial.bury_ended()
        while buried > 0 and buried != self._pid:
            buried = self._burial.bury_ended()
        if buried <= 0:
            return
        self._pid = 0
        ended, used = self._burial.status(), self._burial.usage()
        self._kill_all()
        while self._burial.bury_next() > 0:
            used = self._burial.add(used)
        if self._number > 1:
            self._past.append(bytes(self._end_text))
        wire.pack_exited_into(self._end_text, 0, wire.EXITED, self._number, *ended, *used)
        calls.run((self._say_end,))

    def _hear(self) -> bool:
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

    # It counts none of these, and lets nobody set them.
    OF_USER = ()

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
        self._poll = system.Poll(self._signals, _CHANNEL)
        self._burial = system.Burial()
        self._request = Letter(_CHANNEL, wire.MESSAGE_LIMIT, 2)
        self._plan = _Plan(setup)
        calls.run(self._plan.environment(setup["disk_bytes"], 0))
        self._start = Start({**setup, "joins": True, "folder": None}, self._plan, filter_)
        # gVisor counts processes for the user that they were made by, and the child was made by root.
        self._start.of_children.append((_RLIMIT_NPROC, setup["processes"] - 1))
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
            start = self._start.after([calls.prepare("chroot", path.encode())])
            self._be_forker(start, *ends)
        if pid > 0:
            self._slots[pid] = path
            self._first = self._first or pid
        close_all(ends)

    def _be_forker(self, start: Start, control: int, sync: int) -> None:
        """In the clone; never returns."""
        try:
            os.close(_CHANNEL)
            # Here it tells of the children of the process that opened it, and of no other's.
            os.close(self._signals)
            GivenForker(control, sync, system.open_child_signals(), self._fork, start.of_children).run(start)
        finally:
            os._exit(0)

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
            self._poll.wait(-1)
            if self._poll.found[system.FOUND_FIRST] and not self._bury():
                return
            if not self._poll.found[system.FOUND_SECOND]:
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
