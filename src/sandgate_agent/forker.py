"""Process 1 of a slot: keeps one child waiting ready, buries it when it has ended, and kills what it left behind.

It never sees a request, code or output: what it does not hold, no later child can inherit. The first forker of an
environment puts up the walls before anything else.
"""

import _signal
import os
from typing import Any, Dict, List, Optional, Sequence, Tuple, Type

from sandgate_agent import calls, child, system, walls, wire
from sandgate_agent.calls import Call
from sandgate_agent.ends import AnyEnds, Ends, Settle

_RETRY_MS = 5
# Source: include/uapi/asm-generic/resource.h
_RLIMITS = ((4, "core"), (1, "file_size"), (7, "open_files"), (8, "locked"), (9, "address_space"))
_OPEN_FILES = 7
# How many ends are remembered: those that a gateway may not have written down when it died.
_MOST_ENDS = 256


class Start:
    """What a forker does before anything else: the same for all that are asked for in the same words."""

    def __init__(self, request: Dict[str, Any], plan: Optional[walls.Plan], filter_: Optional[system.Filter]) -> None:
        """``plan`` is None in the process class."""
        self._folder: Optional[str] = request["folder"]
        self._calls: List[Call] = []
        if plan is not None:
            if not request["joins"]:
                self._calls += plan.environment(request["disk_bytes"], request["inodes"])
            self._calls += plan.slot()
        limits = [(number, request[name]) for number, name in _RLIMITS if request[name] is not None]
        # The kernel counts descriptors that are on their way for the whole user, against this limit of who sends one:
        # where all sandboxes are of one user, a forker must not be bound by what its own children may open.
        self.of_children = [limit for limit in limits if limit[0] == _OPEN_FILES and plan is None]
        self._calls += [system.prepare_limit(*limit) for limit in limits if limit not in self.of_children]
        self._calls += _confinement(plan is not None)
        if filter_ is not None:
            self._calls.append(filter_.install)
        self._calls.append(system.prepare_process_name("sg-forker"))

    def after(self, first: List[Call]) -> "Start":
        """The same, with something to be done before it."""
        other = Start.__new__(Start)
        other._folder, other.of_children, other._calls = self._folder, self.of_children, [*first, *self._calls]
        return other

    def make(self) -> None:
        """Put up the walls and give up, for this process and all that it will fork, whatever a child must not have."""
        if self._folder is not None:
            # Not SIGKILL: there is no namespace to die with it, so that it has to kill what it has started.
            system.prctl(system.PR_SET_PDEATHSIG, _signal.SIGTERM)
            walls.put_up_plain(self._folder)
            child.lay_out(os.getcwd())
        calls.run(self._calls)


def _confinement(standard: bool) -> List[Call]:
    confining: List[Call] = []
    if standard:
        confining += system.prepare_bounding_set_drop()
        confining.append(system.prepare_capabilities((system.CAP_KILL, system.CAP_SETGID, system.CAP_SETUID)))
    else:
        confining.append(system.prepare_prctl(system.PR_SET_CHILD_SUBREAPER, 1))
    confining.append(system.prepare_prctl(system.PR_SET_NO_NEW_PRIVS, 1))
    return confining


class Forker:
    """The life of a slot: one child at a time, numbered."""

    def __init__(self, control: int, standard: bool, fork: Optional[Call], limits: Sequence[Tuple[int, int]]) -> None:
        """``fork`` is None where fork handlers must run, because libraries were preloaded.

        ``limits`` are the children's.
        """
        self._control = control
        self._standard = standard
        self._fork = fork
        self._number = 0
        self._held = False
        # How the last children ended, by their number, the oldest first.
        self._end_messages: Dict[int, bytes] = {}
        self._parent = os.getppid()
        self._pid: Optional[int] = None
        self._signals = system.open_child_signals()
        self._watch = system.Watch(self._signals, control)
        self._burial = system.Burial()
        self._ends = self._make_ends(child.settling(standard, limits))
        # From process 1 this reaches all of the namespace, in one step that no fork can slip through.
        self._kill_namespace = calls.prepare("kill", -1, int(_signal.SIGKILL))

    def _make_ends(self, settle: Settle) -> AnyEnds:
        return Ends(self._control, [self._signals], settle)

    def fork(self) -> bool:
        """Make the next child and send its ends to the gateway; False when there is no process to be had now."""
        self._ends.open()
        try:
            pid = os.fork() if self._fork is None else self._fork()
        except OSError:
            pid = -1
        if pid == 0:
            child.main(self._ends.child)
        if pid < 0:
            self._ends.close()
            return False
        if not self._ends.hand_over(self._number + 1):
            # Nobody has the other side of its socket, so that it ends by itself.
            return False
        self._pid = pid
        self._number += 1
        return True

    def kill_all(self) -> None:
        """Kill everything in the slot but this process."""
        if self._standard:
            # A failure means that there was nobody.
            self._kill_namespace()
        else:
            self._kill_descendants()

    def _kill_descendants(self) -> None:
        # Without a namespace a storm of forks can outrun this; what is stopped first cannot fork any more.
        for _round in range(100):
            found = [pid for pid in walls.descendants(os.getpid()) if pid != self._pid or not system.is_zombie(pid)]
            if not found:
                return
            for number in (_signal.SIGSTOP, _signal.SIGKILL):
                for pid in found:
                    try:
                        os.kill(pid, number)
                    except (ProcessLookupError, PermissionError):
                        continue
            for pid in found:
                if pid != self._pid:
                    system.bury(pid)

    def _bury_rest(self) -> None:
        """Wait for everything that was killed."""
        while self._burial.bury_next() > 0:
            pass

    def _end(self) -> None:
        """The child has ended: so does everything it started; then the gateway is told."""
        self._pid = None
        status, usage = self._burial.status(), self._burial.usage()
        self.kill_all()
        while self._burial.bury_next() > 0:
            left = self._burial.usage()
            usage = usage[0] + left[0], usage[1] + left[1], max(usage[2], left[2])
        message = self._end_messages[self._number] = wire.pack_exited(self._number, status, *usage)
        if len(self._end_messages) > _MOST_ENDS:
            del self._end_messages[next(iter(self._end_messages))]
        os.write(self._control, message)

    def on_signal(self) -> bool:
        """Bury what has ended: orphans silently, the child with a message. False when the zygote is gone."""
        # What does not fit is said again by the next look.
        os.read(self._signals, 1024)
        while True:
            pid = self._burial.bury_ended()
            if pid == self._pid:
                self._end()
            if pid <= 0 or self._pid is None:
                break
        return self._standard or os.getppid() == self._parent

    def on_message(self) -> bool:
        """Do what the gateway says; False when it is gone."""
        message = os.read(self._control, wire.MESSAGE_LIMIT)
        return self._obey(message)

    def _obey(self, message: bytes) -> bool:
        if not message:
            return False
        if message[:1] == wire.RESUME:
            self._resume(message)
            return True
        kind, number = wire.parse_numbered(message)
        # A kill that crossed the message of the child's end on its way must not hit the next child.
        if kind == wire.KILL and number == self._number:
            self.kill_all()
        elif kind == wire.HOLD:
            self._held = True
        elif kind == wire.NEXT:
            self._held = False
        elif kind == wire.RESET:
            self._reset(message)
        return True

    def _reset(self, message: bytes) -> None:
        """Start afresh for another gateway: what runs for the last one is killed, without a word about it."""
        self.kill_all()
        self._bury_rest()
        self._pid = None
        self._held = False
        self._end_messages.clear()
        self._number = 0
        os.write(self._control, message)

    def _resume(self, message: bytes) -> None:
        """Go on for another gateway: of what runs for the last one only that is kept which this one knows of."""
        nonce, numbers = wire.parse_resume(message)
        if self._pid is not None and self._number not in numbers:
            self.kill_all()
            self._bury_rest()
            self._pid = None
        self._held = True
        ends = [self._end_messages[number] for number in numbers if number in self._end_messages]
        os.write(self._control, wire.pack_resumed(nonce, self._number, ends))

    def serve(self) -> None:
        """Keep a child ready, unless told otherwise, until everybody has let go of the slot."""
        while True:
            waits = self._held or self._pid is not None or self.fork()
            signalled, spoken_to = self._watch.wait(-1 if waits else _RETRY_MS)
            if signalled and not self.on_signal():
                return
            if spoken_to and not self.on_message():
                return


def main(
    start: Start,
    standard: bool,
    fork: Optional[Call],
    control: int,
    sync: int,
    kind: Type[Forker] = Forker,
) -> None:
    """Run as a slot's process 1; never returns.

    It starts at the launcher's word, which comes when control group and ids are set.
    """
    try:
        if os.read(sync, 1) != wire.GO:
            os._exit(1)
        try:
            start.make()
        except (OSError, ValueError) as error:
            os.write(sync, str(error).encode("utf-8", "replace")[: wire.MESSAGE_LIMIT])
            os._exit(1)
        os.write(sync, wire.READY)
        os.close(sync)
        forker = kind(control, standard, fork, start.of_children)
        try:
            forker.serve()
        except (BrokenPipeError, ConnectionResetError):
            # Everybody let go in the middle of a message.
            pass
        except (OSError, MemoryError, wire.WireError) as error:
            # The launcher has it in its log, with what the zygote says.
            os.write(2, "sandgate: a forker ended: {!r}\n".format(error).encode())
        forker.kill_all()
    finally:
        os._exit(0)
