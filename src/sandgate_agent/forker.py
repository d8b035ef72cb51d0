"""Process 1 of a slot: keeps one child waiting ready, buries it when it has ended, and kills what it left behind.

It never sees a request, code or output: what it does not hold, no later child can inherit. The first forker of an
environment puts up the walls before anything else.
"""

import _signal
import _socket
import os
import resource
import select
from typing import Any, Dict, Optional

from sandgate_agent import child, descriptors, system, walls, wire

_RETRY_MS = 5
_RLIMITS = (
    (resource.RLIMIT_CORE, "core"),
    (resource.RLIMIT_FSIZE, "file_size"),
    (resource.RLIMIT_NOFILE, "open_files"),
    (resource.RLIMIT_MEMLOCK, "locked"),
    (resource.RLIMIT_AS, "address_space"),
)


def _confine(request: Dict[str, Any], standard: bool, filter_: Any) -> None:
    """Give up, for this process and all that it will fork, whatever a child must not have."""
    for number, name in _RLIMITS:
        value = request[name]
        if value is not None:
            resource.setrlimit(number, (value, value))
    if standard:
        system.drop_bounding_set()
        system.keep_capabilities((system.CAP_KILL, system.CAP_SETGID, system.CAP_SETUID))
    else:
        system.prctl(system.PR_SET_CHILD_SUBREAPER, 1)
    system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
    if filter_ is not None:
        filter_.install()


class Forker:
    """The life of a slot: one child at a time, numbered."""

    def __init__(self, control: int, standard: bool, thread_number: Optional[int]) -> None:
        """``thread_number`` is None where fork handlers must run, because libraries were preloaded."""
        self._descriptor = control
        self._control = _socket.socket(fileno=control)
        self._standard = standard
        self._thread_number = thread_number
        self._number = 0
        self._parent = os.getppid()
        self._pid: Optional[int] = None
        self._signals = system.open_child_signals()

    def fork(self) -> bool:
        """Make the next child and send its ends to the gateway; False when there is no process to be had now."""
        outer, inner = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        stdout, stdout_inside = os.pipe()
        stderr, stderr_inside = os.pipe()
        # The child, of another identity, may open them by name; the gateway opens them anew for flags of its own.
        os.fchmod(stdout, 0o666)
        os.fchmod(stderr, 0o666)
        try:
            pid = os.fork() if self._thread_number is None else system.light_fork(self._thread_number)
        except OSError:
            pid = -1
        if pid == 0:
            for descriptor in (self._descriptor, self._signals, outer.fileno(), stdout, stderr):
                os.close(descriptor)
            child.main(self._standard, inner.fileno(), stdout_inside, stderr_inside)
        inner.close()
        os.close(stdout_inside)
        os.close(stderr_inside)
        if pid > 0:
            self._pid = pid
            self._number += 1
            message = wire.pack_numbered(wire.CHILD, self._number)
            descriptors.send(self._control, message, [outer.fileno(), stdout, stderr])
        outer.close()
        os.close(stdout)
        os.close(stderr)
        return pid > 0

    def kill_all(self) -> None:
        """Kill everything in the slot but this process."""
        if not self._standard:
            self._kill_descendants()
            return
        try:
            # From process 1 this reaches all of the namespace, in one step that no fork can slip through.
            os.kill(-1, _signal.SIGKILL)
        except ProcessLookupError:
            pass

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
        while True:
            try:
                os.wait4(-1, 0)
            except ChildProcessError:
                return

    def _end(self, status: int, usage: Any) -> None:
        """The child has ended: so does everything it started; then the gateway is told."""
        self._pid = None
        self.kill_all()
        self._bury_rest()
        user_us, system_us = int(usage.ru_utime * 1e6), int(usage.ru_stime * 1e6)
        self._control.send(wire.pack_exited(self._number, status, user_us, system_us, usage.ru_maxrss * 1024))

    def on_signal(self) -> bool:
        """Bury what has ended: orphans silently, the child with a message. False when the zygote is gone."""
        system.drain(self._signals)
        for pid, status, usage in system.reap():
            if pid == self._pid:
                self._end(status, usage)
                break
        return self._standard or os.getppid() == self._parent

    def on_message(self) -> bool:
        """Do what the gateway says; False when it is gone."""
        message = self._control.recv(wire.MESSAGE_LIMIT)
        if not message:
            return False
        kind, number = wire.parse_numbered(message)
        # A kill that crossed the message of the child's end on its way must not hit the next child.
        if kind == wire.KILL and number == self._number:
            self.kill_all()
        elif kind == wire.RESET:
            self._reset(message)
        return True

    def _reset(self, message: bytes) -> None:
        """Start afresh for another gateway: what runs for the last one is killed, without a word about it."""
        self.kill_all()
        self._bury_rest()
        self._pid = None
        self._number = 0
        self._control.send(message)

    def serve(self) -> None:
        """Keep a child ready until everybody has let go of the slot."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.register(self._signals, select.POLLIN)
        while True:
            waits = self._pid is not None or self.fork()
            for descriptor, _event in poll.poll(None if waits else _RETRY_MS):
                if not (self.on_signal() if descriptor == self._signals else self.on_message()):
                    return


def _prepare(request: Dict[str, Any], plan: Optional[walls.Plan], filter_: Any) -> None:
    if plan is None:
        # Not SIGKILL: there is no namespace to die with it, so that it has to kill what it has started.
        system.prctl(system.PR_SET_PDEATHSIG, _signal.SIGTERM)
        walls.put_up_plain(request["folder"])
        child.lay_out(os.getcwd())
    else:
        if not request["joins"]:
            plan.put_up(request["disk_bytes"], request["inodes"])
        plan.put_up_slot()
    _confine(request, plan is not None, filter_)


def main(
    request: Dict[str, Any],
    plan: Optional[walls.Plan],
    filter_: Any,
    thread_number: Optional[int],
    control: int,
    sync: int,
) -> None:
    """Run as a slot's process 1; never returns.

    It starts at the launcher's word, which comes when control group and ids are set.
    """
    try:
        if os.read(sync, 1) != wire.GO:
            os._exit(1)
        try:
            _prepare(request, plan, filter_)
        except (OSError, ValueError) as error:
            os.write(sync, str(error).encode("utf-8", "replace")[: wire.MESSAGE_LIMIT])
            os._exit(1)
        system.set_process_name("sg-forker")
        os.write(sync, wire.READY)
        os.close(sync)
        forker = Forker(control, plan is not None, thread_number)
        try:
            forker.serve()
        except (BrokenPipeError, ConnectionResetError):
            # Everybody let go in the middle of a message.
            pass
        forker.kill_all()
    finally:
        os._exit(0)
