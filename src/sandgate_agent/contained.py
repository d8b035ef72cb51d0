"""Process 1 of a container of gVisor's: the zygote of the one sandbox that the container is.

It lays out the sandbox's file system and clones a forker for each slot. The kernel in here is gVisor's own: descriptors
come in through its sockets, but none goes out, so that each child is given a socket and pipes that the gateway made.
"""

import _signal
import errno
import gc
import json
import os
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

from sandgate_agent import calls, child, greedy, process_worker, relay, system, walls, whole, wire, zygote
from sandgate_agent.calls import Call
from sandgate_agent.ends import Settle
from sandgate_agent.forker import AnyForker, Start
from sandgate_agent.messages import Letter, close_all
from sandgate_agent.showing import Volumes

# What the launcher has laid into the container's root.
FOLDER = "/sandgate"
_ROOT = "/env"
_SLOTS = "/slots"
_CHANNEL = 62
_RETRY_MS = 5
_PAUSE_US = 500
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
        self._pause = calls.prepare("usleep", _PAUSE_US)

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
            self._burial.note_orphan()
            buried = self._burial.bury_ended()
        if buried <= 0:
            return
        self._pid = 0
        ended = self._burial.status()
        used = self._end_rest(self._burial.usage())
        used = self._burial.take_orphans(used)
        if self._number > 1:
            self._past.append(bytes(self._end_text))
        wire.pack_exited_into(self._end_text, 0, wire.EXITED, self._number, *ended, *used)
        calls.run((self._say_end,))

    def _end_rest(self, used: system.Usage) -> system.Usage:
        """End and bury whatever is left, and add up what it used.

        In gVisor a kill of everybody is no single step, so that what is forked meanwhile slips through.
        """
        while True:
            found = self._kill_all() >= 0
            buried = self._burial.bury_ended()
            while buried > 0:
                used = self._burial.add(used)
                buried = self._burial.bury_ended()
            if buried < 0 and not found:
                return used
            self._pause()

    def _kill_child(self) -> None:
        """See :class:`AnyForker`."""
        self._end_rest(self._burial.usage())
        self._burial.orphans = None
        self._pid = 0

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


class ContainedPlan(walls.Plan):
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
            walls.prepare_beginning(setup),
        ]

    def environment(self, disk_bytes: Optional[int], inodes: int) -> List[Call]:
        """See :class:`walls.Plan`."""
        if disk_bytes is None:
            # To the kernel no size would be no bound.
            raise ValueError("a container brings no files of its own")
        return [
            _prepare_files(disk_bytes, inodes),
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


def _prepare_files(disk_bytes: int, inodes: int) -> Call:
    """What mounts the sandbox's files; a gVisor that counts no files bounds them by the sandbox's memory only."""
    bytes_only = "size={},mode=755".format(disk_bytes)
    options = ["{},nr_inodes={}".format(bytes_only, inodes), bytes_only]
    bounded, other = (system.prepare_mount("sandgate", _ROOT, "tmpfs", walls.SAFE, each) for each in options)

    def mount() -> int:
        return 0 if bounded() >= 0 else other()

    return mount


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

    def __init__(self, setup: Dict[str, Any], filter_: system.Filter) -> None:
        self._fork = None if setup["preload"] else system.prepare_light_fork(system.find_thread_number())
        self._signals = system.open_child_signals()
        self._poll = system.Poll(self._signals, _CHANNEL)
        self._burial = system.Burial()
        self._request = Letter(_CHANNEL, wire.MESSAGE_LIMIT, 2)
        self._plan = ContainedPlan(setup)
        calls.run(self._plan.environment(setup["disk_bytes"], setup["inodes"]))
        self._start = Start({**setup, "joins": True, "folder": None}, self._plan, filter_)
        # gVisor counts processes for the user that they were made by, and the child was made by root.
        self._start.of_children.append((_RLIMIT_NPROC, setup["processes"] - 1))
        self._slots: Dict[int, str] = {}
        self._volumes = Volumes()
        self._first: Optional[int] = None
        self._made = 0
        self._forget_segments = greedy.prepare_forgetting()
        self._of_relay = relay.prepare(filter_)
        self._relays: Set[int] = set()

    def clone(self, ends: List[int]) -> None:
        """Clone a forker; when none can be made the launcher finds that out by the end of the channel."""
        self._made += 1
        path = "{}/{}".format(_SLOTS, self._made)
        try:
            calls.run(self._plan.root(path))
            self._volumes.show(path)
            # In a mount namespace of its own, which newer ones of gVisor have, it would not see what is shown later.
            pid = system.clone(system.CLONE_NEWPID)
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
            role = GivenForker(control, sync, system.open_child_signals(), self._fork, start.of_children)
            # A collection writes to all that it looks at: that of a child is for what its code has made.
            gc.freeze()
            role.run(start)
        finally:
            os._exit(0)

    def _begin_relay(self, control: int) -> None:
        """Fork what carries connections; when it cannot be made the launcher is told by the end of its channel."""
        try:
            pid = system.clone(0)
        except OSError as error:
            os.write(2, "sandgate: no relay can be made: {}\n".format(error).encode())
            return
        if pid:
            self._relays.add(pid)
            return
        try:
            os.close(_CHANNEL)
            os.close(self._signals)
            calls.run(self._of_relay)
            relay.Relay(control).run()
        except (OSError, MemoryError, wire.WireError) as error:
            # The launcher has it in its log.
            os.write(2, "sandgate: a relay ended: {!r}\n".format(error).encode())
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
            self._relays.discard(pid)
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
            if message == wire.FREE:
                self._free()
            elif message == wire.LOOK:
                self._look()
            elif message[:1] == wire.SHOW:
                self._show(message)
            elif message == wire.RELAY and len(ends) == 1:
                self._begin_relay(*ends)
            elif len(ends) == 2:
                self.clone(ends)
                continue
            close_all(ends)

    def _show(self, message: bytes) -> None:
        """Show a volume to every slot, and say whether that went well."""
        number, read_only = divmod(wire.parse_numbered(message[: wire.NUMBERED_BYTES])[1], 2)
        failed = 0
        try:
            path = os.fsdecode(message[wire.NUMBERED_BYTES :])
            self._volumes.add(number, bool(read_only), path, list(self._slots.values()))
        except OSError as error:
            failed = error.errno or errno.EIO
        os.write(_CHANNEL, wire.pack_numbered(wire.SHOW, failed))

    def _look(self) -> None:
        """Tell what the sandbox holds, without those that are here for its sake."""
        own = {1, *self._slots, *self._relays}
        processes = sum(name.isdigit() and int(name) not in own for name in os.listdir("/proc"))
        disk = os.statvfs(_ROOT)
        # An older gVisor counts no files.
        inodes = disk.f_files - disk.f_ffree if disk.f_files else None
        os.write(_CHANNEL, wire.pack_held(processes, (disk.f_blocks - disk.f_bfree) * disk.f_frsize, inodes))

    def _free(self) -> None:
        """End the process that holds the most memory, and say so before anybody else can learn of it."""
        if self._forget_segments():
            os.write(_CHANNEL, wire.pack_numbered(wire.FREE, wire.OF_NOBODY))
            return
        found = greedy.rank({1, *self._slots, *self._relays}, greedy.resident_bytes(1))
        os.write(_CHANNEL, wire.pack_numbered(wire.FREE, wire.OF_ONE if found else wire.NOTHING))
        for _bytes, pid in found[:1]:
            try:
                os.kill(pid, _signal.SIGKILL)
            except ProcessLookupError:
                # It was about to end anyway.
                return


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
    whole.put_in_place()
    process_worker.kernel_signals = False
    zygote.preload(setup["preload"])
    child.rehearse()
    child.prepare_interpreter(setup)
    contained = ContainedZygote(setup, filter_)
    zygote.freeze()
    os.write(_CHANNEL, wire.READY)
    contained.serve()
    os._exit(0)
