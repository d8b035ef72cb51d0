"""Process 1 of a slot: keeps one child waiting ready, buries it when it has ended, and kills what it left behind.

It never sees a request, code or output: what it does not hold, no later child can inherit.
"""

import os
import resource
import select
import signal
import socket
from typing import Any, Dict, List, Optional, Tuple

from sandgate_agent import child, descriptors, system, walls, wire

_RETRY_MS = 5


def confine(request: Dict[str, Any], filter_: Any) -> None:
    """Give up, for this process and all that it will fork, whatever a child must not have."""
    limits = request["rlimits"]
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
    if walls.is_standard(request):
        walls.mount_own_proc()
        system.drop_bounding_set()
        system.keep_capabilities((system.CAP_KILL, system.CAP_SETGID, system.CAP_SETUID))
    else:
        system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL)
        system.prctl(system.PR_SET_CHILD_SUBREAPER, 1)
    system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
    if filter_ is not None:
        filter_.install()


class Forker:
    """The life of a slot: one child at a time, numbered."""

    def __init__(self, request: Dict[str, Any], control: socket.socket) -> None:
        self._request = request
        self._control = control
        self._number = 0
        self._pid: Optional[int] = None

    def fork(self) -> bool:
        """Make the next child and send its ends to the gateway; False when there is no process to be had now."""
        outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pipes = [os.pipe(), os.pipe()]
        try:
            pid = os.fork()
        except OSError:
            pid = -1
        if pid == 0:
            self._control.close()
            outer.close()
            child.main(self._request, inner.detach(), [write for _read, write in pipes])
        if pid > 0:
            self._pid = pid
            self._announce(outer, pipes)
        outer.close()
        inner.close()
        for pair in pipes:
            for descriptor in pair:
                os.close(descriptor)
        return pid > 0

    def _announce(self, outer: socket.socket, pipes: List[Tuple[int, int]]) -> None:
        self._number += 1
        ends = [outer.fileno()] + [read for read, _write in pipes]
        descriptors.send(self._control, wire.pack_numbered(wire.CHILD, self._number), ends)

    def kill_all(self) -> None:
        """Kill everything in the slot but this process, and bury it."""
        if walls.is_standard(self._request):
            self._kill_namespace()
        else:
            self._kill_descendants()

    def _kill_namespace(self) -> None:
        # From process 1 this reaches all of the namespace, in one step that no fork can slip through.
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def _kill_descendants(self) -> None:
        # Without a namespace a storm of forks can outrun this; what is stopped first cannot fork any more.
        for _round in range(100):
            found = walls.descendants(os.getpid())
            if not found:
                return
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in found:
                    try:
                        os.kill(pid, number)
                    except (ProcessLookupError, PermissionError):
                        continue
            for _ended in system.reap():
                pass

    def _bury_rest(self) -> None:
        """Wait for everything that was killed."""
        while True:
            try:
                os.wait4(-1, 0)
            except ChildProcessError:
                return

    def end(self, status: int, usage: Any) -> None:
        """The child has ended: so does everything it started; then the gateway is told."""
        self._pid = None
        self.kill_all()
        self._bury_rest()
        exited = wire.Exited(
            self._number, status, int(usage.ru_utime * 1e6), int(usage.ru_stime * 1e6), usage.ru_maxrss * 1024
        )
        self._control.send(wire.pack_exited(exited))

    def on_signal(self) -> None:
        """Bury what has ended: orphans silently, the child with a message."""
        for pid, status, usage in system.reap():
            if pid == self._pid:
                self.end(status, usage)
                return

    def on_message(self) -> bool:
        """Do what the gateway says; False when it is gone."""
        message = self._control.recv(wire.MESSAGE_LIMIT)
        if not message:
            return False
        kind, number = wire.parse_numbered(message)
        # A kill that crossed the message of the child's end on its way must not hit the next child.
        if kind == wire.KILL and number == self._number:
            self.kill_all()
        return True

    def serve(self) -> None:
        """Keep a child ready until the gateway lets go of the slot."""
        signals = system.open_child_signals()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(signals, select.POLLIN)
        while True:
            waits = self._pid is not None or self.fork()
            ready = {descriptor for descriptor, _event in poll.poll(None if waits else _RETRY_MS)}
            if signals in ready:
                system.drain(signals)
                self.on_signal()
            if self._control.fileno() in ready and not self.on_message():
                return


def main(request: Dict[str, Any], control: socket.socket, filter_: Any) -> None:
    """Run as a slot's process 1."""
    confine(request, filter_)
    system.set_process_name("sg-forker")
    forker = Forker(request, control)
    try:
        forker.serve()
    except (BrokenPipeError, ConnectionResetError):
        # The gateway died in the middle of a message.
        pass
    forker.kill_all()
