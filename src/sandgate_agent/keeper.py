"""Process 1 of an environment: puts up the walls, then makes slots when the gateway asks.

A slot is a process namespace with a forker as its process 1. Executions that run side by side are in slots of
their own: they share the environment's files and network and cannot see or signal each other.
"""

import os
import select
import signal
import socket
from typing import Any, Dict, List

from sandgate_agent import descriptors, forker, system, walls, wire


class Keeper:
    """Makes slots and buries them."""

    def __init__(self, request: Dict[str, Any], control: socket.socket, filter_: Any) -> None:
        self._request = request
        self._control = control
        self._filter = filter_
        self._slots: List[int] = []

    def make_slot(self, number: int) -> None:
        """Clone a forker and send the gateway its control socket."""
        outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = self._clone()
        except OSError:
            # The process limit of the environment is reached; the gateway may ask again.
            pid = -1
        if pid == 0:
            outer.close()
            self._control.close()
            forker.main(self._request, inner, self._filter)
            os._exit(0)
        if pid > 0:
            self._slots.append(pid)
        # Without a descriptor: it could not be made.
        descriptors.send(self._control, wire.pack_numbered(wire.SLOT, number), [outer.fileno()] if pid > 0 else [])
        outer.close()
        inner.close()

    def _clone(self) -> int:
        if walls.is_standard(self._request):
            return system.clone(system.CLONE_NEWPID | system.CLONE_NEWNS)
        return os.fork()

    def adopt(self, nonce: int) -> None:
        """Start afresh for another gateway: what ran for the last one is killed."""
        for pid in self._slots:
            os.kill(pid, signal.SIGKILL)
        while self._slots:
            self._slots.remove(os.waitpid(self._slots[0], 0)[0])
        self._control.send(wire.pack_numbered(wire.ADOPT, nonce))

    def bury(self) -> None:
        """Reap forkers that have ended."""
        for pid, _status, _usage in system.reap():
            if pid in self._slots:
                self._slots.remove(pid)

    def serve(self) -> None:
        """Do what the gateway says until every holder of the control socket is gone."""
        signals = system.open_child_signals()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(signals, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _event in poll.poll()}
            if signals in ready:
                system.drain(signals)
                self.bury()
            if self._control.fileno() not in ready:
                continue
            message = self._control.recv(wire.MESSAGE_LIMIT)
            if not message:
                return
            kind, number = wire.parse_numbered(message)
            if kind == wire.NEW_SLOT:
                self.make_slot(number)
            elif kind == wire.ADOPT:
                self.adopt(number)


def _prepare(request: Dict[str, Any], sync: socket.socket) -> None:
    """Wait for the launcher's word, which comes when cgroup and ids are set, and put up the walls."""
    if sync.recv(1) != wire.GO:
        os._exit(1)
    if walls.is_standard(request):
        walls.become_root_inside()
        walls.put_up(request)
    else:
        system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL)
        walls.put_up_plain(request)


def main(request: Dict[str, Any], control: socket.socket, sync: socket.socket, filter_: Any) -> None:
    """Run as an environment's process 1."""
    try:
        _prepare(request, sync)
    except OSError as error:
        sync.send(str(error).encode("utf-8", "replace")[: wire.MESSAGE_LIMIT])
        os._exit(1)
    system.set_process_name("sg-keeper")
    sync.send(wire.READY)
    sync.close()
    keeper = Keeper(request, control, filter_)
    keeper.make_slot(0)
    keeper.serve()
