"""Process 1 of a slot: keeps one child waiting ready, buries it when it has ended, and kills what it left behind.

It never sees a request, code or output: what it does not hold, no later child can inherit. The first forker of an
environment puts up the walls before anything else.
"""

import _signal
import ctypes
import errno
import os
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Sequence, Tuple

from sandgate_agent import calls, child, landlock, system, walls, wire
from sandgate_agent.calls import Call
from sandgate_agent.ends import Ends

# How long until it is tried again to have a child; where there is no room for its ends, twice as long each time.
_RETRY_MS, _MOST_RETRY_MS = 5, 500
# Places in what a poll has found.
_SIGNALLED, _SPOKEN_TO = system.FOUND_FIRST, system.FOUND_SECOND
# Source: include/uapi/asm-generic/errno.h
_ETOOMANYREFS = 109
# What others have now, and give back: descriptors, memory.
_LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN)
# Source: include/uapi/asm-generic/resource.h
_RLIMITS = ((4, "core"), (1, "file_size"), (7, "open_files"), (8, "locked"), (9, "address_space"))
_OPEN_FILES = 7
# How many ends are remembered beside the last one.
_MOST_PAST = 256


class Start:
    """What a forker does before anything else: the same for all that are asked for in the same words."""

    def __init__(self, request: Dict[str, Any], plan: Optional[walls.Plan], filter_: Optional[system.Filter]) -> None:
        """``plan`` is None in the process class."""
        self._folder: Optional[str] = request["folder"]
        # How many of the descriptors that come with it are namespaces, and files of control groups.
        self.namespaces: int = request.get("namespaces", 0)
        self.entries: int = request.get("entries", 0)
        self._calls: List[Call] = []
        if plan is not None:
            if not request["joins"]:
                self._calls += plan.environment(request["disk_bytes"], request["inodes"])
            self._calls += plan.slot() if request["joins"] else plan.first_slot()
        limits = [(number, request[name]) for number, name in _RLIMITS if request[name] is not None]
        # The kernel counts descriptors that are on their way for the whole user, against this limit of who sends one:
        # where all sandboxes are of one user, a forker must not be bound by what its own children may open.
        self.of_children = [limit for limit in limits if limit[0] == _OPEN_FILES and plan is None]
        self._calls += [system.prepare_limit(*limit) for limit in limits if limit not in self.of_children]
        if plan is not None:
            self._calls += [system.prepare_limit(*limit) for limit in plan.OF_USER]
        self._calls += _confinement(plan is not None)
        # Without Landlock the class does without: it promises nothing to anybody.
        if self._folder is not None and landlock.find_version():
            self._calls.append(landlock.Fence(self._folder).put_up)
        if filter_ is not None:
            self._calls.append(filter_.install)
        self._calls.append(system.prepare_process_name("sg-forker"))

    def after(self, first: List[Call]) -> "Start":
        """The same, with something to be done before it."""
        other = Start.__new__(Start)
        other._folder, other.of_children, other._calls = self._folder, self.of_children, [*first, *self._calls]
        other.namespaces, other.entries = self.namespaces, self.entries
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


def _fork_with_handlers() -> int:
    """As a call is: a failure is less than 0."""
    try:
        return os.fork()
    except OSError:
        return -1


class _NoRoom(Exception):
    """There is none for the ends of the next child."""


class AnyForker:
    """What all forkers have in common: made for descriptors of certain numbers, run by the process that has them."""

    def __init__(self, control: int, sync: int, signals: int, standard: bool, fork: Optional[Call]) -> None:
        """``control`` leads to the gateway, ``sync`` to the launcher; ``signals`` tells of children.

        ``fork`` is None where fork handlers must run, because libraries were preloaded.
        """
        self._control = control
        self._standard = standard
        self._fork = fork or _fork_with_handlers
        self._number = 0
        self._held = False
        # 0 while there is no child.
        self._pid = 0
        self._poll = system.Poll(signals, control)
        self._drain = system.prepare_drain(signals)
        self._burial = system.Burial()
        # Kills everything in the slot but this process. From process 1 a signal reaches all of the namespace, in one
        # step that no fork can slip through; a failure means that there was nobody.
        kill_namespace = calls.prepare("kill", -1, int(_signal.SIGKILL))
        self._kill_all = kill_namespace if standard else self._kill_descendants
        # How earlier children ended: those whose end a gateway may not have written down when it died.
        self._past: Deque[bytes] = deque(maxlen=_MOST_PAST)
        self._end_text = ctypes.create_string_buffer(wire.EXITED_BYTES)
        self._say_end = calls.prepare("write", control, self._end_text, wire.EXITED_BYTES)
        self._sync = sync
        self._word = ctypes.create_string_buffer(1)
        self._await_word = calls.prepare("read", sync, self._word, 1)
        self._say_ready = (calls.prepare("write", sync, wire.READY, 1), calls.prepare("close", sync))

    def run(self, start: Start) -> None:
        """Start at the launcher's word, which comes when control group and ids are set, and serve to the end."""
        if self._await_word() != 1 or bytes(self._word) != wire.GO:
            return
        try:
            start.make()
        except (OSError, ValueError) as error:
            os.write(self._sync, str(error).encode("utf-8", "replace")[: wire.MESSAGE_LIMIT])
            return
        calls.run(self._say_ready)
        try:
            self._serve()
        except (BrokenPipeError, ConnectionResetError):
            # Everybody let go in the middle of a message.
            pass
        except (OSError, MemoryError, wire.WireError) as error:
            # The launcher has it in its log, with what the zygote says.
            os.write(2, "sandgate: a forker ended: {!r}\n".format(error).encode())
        self._kill_all()

    def _serve(self) -> None:
        """Have children, one at a time, until everybody has let go of the slot."""
        raise NotImplementedError

    def _kill_descendants(self) -> int:
        # Without a namespace a storm of forks can outrun this; what is stopped first cannot fork any more.
        for _round in range(100):
            found = [pid for pid in walls.descendants(os.getpid()) if pid != self._pid or not system.is_zombie(pid)]
            if not found:
                return 0
            for number in (_signal.SIGSTOP, _signal.SIGKILL):
                for pid in found:
                    try:
                        os.kill(pid, number)
                    except (ProcessLookupError, PermissionError):
                        continue
            for pid in found:
                if pid != self._pid:
                    self._burial.bury_orphan(pid)
        return 0

    def _obey(self, message: bytes) -> bool:
        """Do what the gateway says; False when it is gone."""
        if not message:
            return False
        if message[:1] == wire.RESUME:
            self._resume(message)
            return True
        kind, number = wire.parse_numbered(message)
        # A kill that crossed the message of the child's end on its way must not hit the next child.
        if kind == wire.KILL and number == self._number:
            self._kill_all()
        elif kind == wire.INTERRUPT:
            self._interrupt(message, number)
        elif kind == wire.HOLD:
            self._held = True
        elif kind == wire.NEXT:
            self._held = False
        elif kind == wire.RESET:
            self._reset(message)
        return True

    def _interrupt(self, message: bytes, number: int) -> None:
        """What the child began with a group of its own is not meant: that is how it is put in the background."""
        if self._pid and number == self._number:
            try:
                os.kill(-self._pid, _signal.SIGINT)
            except (ProcessLookupError, PermissionError):
                # It has not come to its group yet, or has ended.
                pass
        os.write(self._control, message)

    def _resume(self, message: bytes) -> None:
        """Go on for another gateway: of what runs for the last one only that is kept which this one knows of."""
        nonce, numbers = wire.parse_resume(message)
        if self._pid and self._number not in numbers:
            self._kill_child()
        self._held = True
        texts = [text for text in (*self._past, bytes(self._end_text)) if text[:1] == wire.EXITED]
        ends = {wire.parse_exited(text).number: text for text in texts}
        os.write(
            self._control,
            wire.pack_resumed(nonce, self._number, [ends[number] for number in numbers if number in ends]),
        )

    def _kill_child(self) -> None:
        """Without a word about it."""
        self._kill_all()
        while self._burial.bury_next() > 0:
            pass
        self._burial.orphans = None
        self._pid = 0

    def _reset(self, message: bytes) -> None:
        """Start afresh for another gateway: what runs for the last one is killed."""
        self._kill_child()
        self._held = False
        self._number = 0
        self._past.clear()
        ctypes.memset(self._end_text, 0, wire.EXITED_BYTES)
        os.write(self._control, message)


class Forker(AnyForker):
    """The life of a slot: one child at a time, numbered."""

    def __init__(
        self,
        control: int,
        sync: int,
        signals: int,
        standard: bool,
        fork: Optional[Call],
        limits: Sequence[Tuple[int, int]],
    ) -> None:
        """See :class:`AnyForker`; ``limits`` are the children's."""
        super().__init__(control, sync, signals, standard, fork)
        self._ends = Ends(control, [signals], child.settling(standard, limits))

    def _serve(self) -> None:
        """See :class:`AnyForker`."""
        parent = None if self._standard else os.getppid()
        pause_ms, lacked_after = _RETRY_MS, -1
        while True:
            try:
                if not self._keep_children(parent):
                    return
                self._ends.prepare()
                self._ends.close()
            except _NoRoom:
                self._ends.drop()
                pause_ms = min(2 * pause_ms, _MOST_RETRY_MS) if self._number == lacked_after else _RETRY_MS
                lacked_after = self._number
                if not self._wait_for_room(parent, pause_ms):
                    return

    def _wait_for_room(self, parent: Optional[int], limit_ms: int) -> bool:
        """So long, or until there is something to be done; False as :meth:`_keep_children`."""
        self._poll.wait(limit_ms)
        spoken_to = self._poll.found[_SPOKEN_TO]
        if self._poll.found[_SIGNALLED]:
            self._drain()
            while self._burial.bury_ended() > 0:
                self._burial.note_orphan()
            if parent is not None and os.getppid() != parent:
                return False
        return not spoken_to or self._obey(os.read(self._control, wire.MESSAGE_LIMIT))

    def _keep_children(self, parent: Optional[int]) -> bool:
        """Keep a child ready, unless told otherwise, until all have let go or ``parent`` has ended.

        True when descriptors have other numbers. One function, and locals: all else is a page to copy after each fork.
        """
        ends, burial, be_child = self._ends, self._burial, child.main
        opening, numbers, usual, opened, settling = ends.opening, ends.numbers, ends.usual, ends.opened, ends.child
        giving_up, handed_over, send, put_number = ends.giving_up, ends.handed_over, ends.letter.send, ends.put_number
        fork, wait, found, drain = self._fork, self._poll.wait, self._poll.found, self._drain
        bury_ended, bury_any, status, usage = burial.bury_ended, burial.bury_any, burial.status, burial.usage
        pack_end, end_text, say_end, kind = wire.pack_exited_into, self._end_text, self._say_end, wire.EXITED
        number, held, pid, control, remember = self._number, self._held, self._pid, self._control, self._past.append
        while True:
            if not pid and not held:
                for call in opening:
                    if call() < 0:
                        raise self._find_lack(call, number)
                if bytes(numbers) != usual:
                    self._number, self._held, self._pid = number, held, pid
                    return True
                for call in opened:
                    if call() < 0:
                        raise calls.failure(call)
                pid = fork()
                if pid == 0:
                    be_child(settling)
                put_number(number + 1)
                for call in giving_up:
                    call()
                if pid > 0 and send() < 0:
                    pid = self._check_sending()
                for call in handed_over:
                    call()
                number, pid = (number + 1, pid) if pid > 0 else (number, 0)
            wait(-1 if pid or held else _RETRY_MS)
            if found[_SIGNALLED]:
                drain()
                buried = bury_ended()
                while buried > 0 and buried != pid:
                    burial.note_orphan()
                    buried = bury_ended()
                if buried > 0:
                    # So ends all that the child has started; then the gateway is told.
                    pid, ended, used = 0, status(), usage()
                    left = bury_any()
                    if left >= 0:
                        used = self._end_left(left, used)
                    used = used if burial.orphans is None else burial.take_orphans(used)
                    if number > 1:
                        remember(bytes(end_text))
                    pack_end(end_text, 0, kind, number, *ended, *used)
                    if say_end() < 0:
                        raise calls.failure(say_end)
                if parent is not None and os.getppid() != parent:
                    return False
            if found[_SPOKEN_TO]:
                self._number, self._held, self._pid = number, held, pid
                if not self._obey(os.read(control, wire.MESSAGE_LIMIT)):
                    return False
                number, held, pid = self._number, self._held, self._pid

    def _end_left(self, left: int, used: system.Usage) -> system.Usage:
        """Kill what a child has left behind; what all of them used. ``left`` is who was buried already, or 0.

        All of it are children of this process, or below one. Without any there is nobody to be killed, and nothing
        is to be done: a signal to everybody has the kernel look at each process of the machine.
        """
        used = self._burial.add(used) if left else used
        self._kill_all()
        while self._burial.bury_next() > 0:
            used = self._burial.add(used)
        return used

    def _find_lack(self, call: Call, number: int) -> Exception:
        """What a call has failed of that was to open the ends of a child; ``number`` is that of the last one."""
        error = calls.failure(call)
        if error.errno not in _LACKS:
            return error
        self._number, self._held, self._pid = number, False, 0
        return _NoRoom()

    def _check_sending(self) -> int:
        """No child. Raises ``OSError`` unless too many descriptors of this user are on their way already.

        Then nobody has the other side of the child's socket, so that it ends by itself.
        """
        error = calls.failure(self._ends.letter.send)
        if error.errno != _ETOOMANYREFS:
            raise error
        return 0
