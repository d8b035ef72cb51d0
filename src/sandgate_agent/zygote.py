"""The warm parent of every environment of one template.

It is untrusted: it has imported the template's packages. It holds no privilege; what it clones gets a user
namespace of its own, which stays powerless until the launcher has mapped ids into it.
"""

import _signal
import _socket
import gc
import importlib
import json
import os
import select
import sys
from typing import Any, Dict, List

from sandgate_agent import child, descriptors, forker, system, walls, wire

_MOST_DESCRIPTORS = 8


def _preload(names: List[str]) -> None:
    """Import what the template asks for; a package that is missing or breaks is left to the user's own import."""
    for name in names:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            sys.stderr.write("sandgate: preloading {} failed: {!r}\n".format(name, error))


def _freeze() -> None:
    """Make what was imported survive forks unshared: the collector never walks over it again."""
    gc.collect()
    gc.disable()
    gc.freeze()


def _send_clone(channel: "_socket.socket", number: int, pidfd: int) -> None:
    descriptors.send(channel, wire.pack_numbered(wire.CLONED, number), [pidfd])
    os.close(pidfd)


class Zygote:
    """Clones a forker for every request of the launcher."""

    def __init__(self, channel: "_socket.socket", setup: Dict[str, Any], filter_: Any) -> None:
        self._channel = channel
        self._plan = walls.Plan(setup) if setup["standard"] else None
        self._filter = filter_
        self._thread_number = None if setup["preload"] else system.find_thread_number()
        self._signals = system.open_child_signals()

    def _start_forker(self, request: Dict[str, Any], control: int, sync: int) -> None:
        """In the clone; never returns."""
        self._channel.close()
        os.close(self._signals)
        forker.main(request, self._plan, self._filter, self._thread_number, control, sync)

    def clone(self, request: Dict[str, Any], ends: List[int]) -> None:
        """Clone the first forker of a new environment, or join one to an environment that is there."""
        number, control, sync, namespaces = request["number"], ends[0], ends[1], ends[2:]
        if namespaces:
            self._join(request, control, sync, namespaces)
        else:
            pid, pidfd = system.clone_with_pidfd(walls.NEW_ENVIRONMENT if self._plan else 0)
            if pid == 0:
                self._start_forker(request, control, sync)
            _send_clone(self._channel, number, pidfd)
        for descriptor in ends:
            os.close(descriptor)

    def _join(self, request: Dict[str, Any], control: int, sync: int, namespaces: List[int]) -> None:
        """A process namespace is entered by children only: a go-between enters the rest and clones the forker."""
        if system.clone(0):
            return
        try:
            walls.enter(namespaces)
            pid, pidfd = system.clone_with_pidfd(walls.NEW_SLOT)
            if pid == 0:
                for descriptor in namespaces:
                    os.close(descriptor)
                self._start_forker(request, control, sync)
            _send_clone(self._channel, request["number"], pidfd)
        finally:
            os._exit(0)

    def serve(self) -> None:
        """Clone for every request until the launcher is gone."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._signals, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _event in poll.poll()}
            if self._signals in ready:
                system.drain(self._signals)
                for _ended in system.reap():
                    pass
            if self._channel.fileno() not in ready:
                continue
            message, ends = descriptors.receive(self._channel, _MOST_DESCRIPTORS)
            if not message:
                return
            self.clone(json.loads(message), ends)


def main(descriptor: int) -> None:
    """Run as a template's zygote; the first message on the channel says how."""
    channel = _socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    system.prctl(system.PR_SET_PDEATHSIG, _signal.SIGKILL)
    message, programs = descriptors.receive(channel, 1)
    setup = json.loads(message)
    filter_ = None
    if programs:
        with os.fdopen(programs[0], "rb") as program:
            filter_ = system.Filter(program.read())
    system.set_process_name("sg-zygote")
    _preload(setup["preload"])
    child.rehearse()
    child.prepare_interpreter(setup)
    zygote = Zygote(channel, setup, filter_)
    _freeze()
    channel.send(wire.READY)
    zygote.serve()
