"""The warm parent of every environment of one template.

It is untrusted: it has imported the template's packages. It holds no privilege; what it clones gets a user
namespace of its own, which stays powerless until the launcher has mapped ids into it.
"""

import _signal
import gc
import importlib
import json
import os
import sys
from typing import Any, Dict, List, Tuple

from sandgate_agent import calls, child, forker, heap, system, walls, wire
from sandgate_agent.messages import Letter, close_all

_MOST_DESCRIPTORS = 12
# Requests differ in their limits only, and most have the template's.
_MOST_PREPARED = 16
# What the first of them are prepared with lies on pages of its own.
_LAID_OUT = 2

# A forker, and what it does before everything else.
Prepared = Tuple[forker.Forker, List[calls.Call]]


def preload(names: List[str]) -> None:
    """Import what the template asks for; a package that is missing or breaks is left to the user's own import."""
    for name in names:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            sys.stderr.write("sandgate: preloading {} failed: {!r}\n".format(name, error))


def freeze() -> None:
    """Make what was imported survive forks unshared: the collector never walks over it again."""
    gc.collect()
    gc.disable()
    gc.freeze()


def _entering(entries: List[int], sync: int) -> List[calls.Call]:
    """Have the calling process put itself into control groups, by their files, and say so; nothing without any."""
    if not entries:
        return []
    moving = [calls.prepare("write", entry, b"0", 1) for entry in entries]
    closing = [calls.prepare("close", entry) for entry in entries]
    return [*moving, *closing, calls.prepare("write", sync, wire.ENTERED, 1)]


class Zygote:
    """Clones a forker for every request of the launcher."""

    def __init__(self, channel: int, setup: Dict[str, Any], filter_: Any) -> None:
        self._channel = channel
        self._plan = walls.Plan(setup) if setup["standard"] else None
        self._filter = filter_
        self._fork = None if setup["preload"] else system.prepare_light_fork(system.find_thread_number())
        self._signals = system.open_child_signals()
        self._poll = system.Poll(self._signals, channel)
        self._drain = system.prepare_drain(self._signals)
        self._forkers: Dict[Any, Prepared] = {}
        self._starts: Dict[bytes, forker.Start] = {}
        flags = walls.NEW_ENVIRONMENT if self._plan else 0
        self._clone_environment, self._environment_pidfd = system.prepare_clone_with_pidfd(flags)
        self._clone_slot, self._slot_pidfd = system.prepare_clone_with_pidfd(walls.NEW_SLOT)
        self._bury_one = system.prepare_bury_ended()
        self._request = Letter(channel, wire.MESSAGE_LIMIT, _MOST_DESCRIPTORS)
        self._answer = Letter(channel, wire.NUMBERED_BYTES, 1)

    def _start(self, words: bytes) -> forker.Start:
        """What a forker has to do first, by the request's words."""
        start = self._starts.get(words)
        if start is None:
            if len(self._starts) >= _MOST_PREPARED:
                self._starts.clear()
            if len(self._starts) < _LAID_OUT:
                heap.begin_fresh_pages()
            start = self._starts[words] = forker.Start(json.loads(words), self._plan, self._filter)
        return start

    def clone(self, request: bytes, ends: List[int]) -> None:
        """Clone the first forker of a new environment, or join one to an environment that is there."""
        number = wire.parse_numbered(request[: wire.NUMBERED_BYTES])[1]
        start = self._start(request[wire.NUMBERED_BYTES :])
        inner = 2 + start.namespaces
        if len(ends) != inner + start.entries:
            # The kernel leaves out what this process has no room for. The launcher finds that nothing came of it.
            sys.stderr.write("sandgate: {} descriptors came with a request\n".format(len(ends)))
            close_all(ends)
            return
        namespaces, entries = ends[2:inner], ends[inner:]
        role, entering = self._forker(start, ends[0], ends[1], entries)
        if namespaces:
            self._join(number, start, role, entering, namespaces)
        else:
            pid = self._clone_environment()
            if pid == 0:
                self._be_forker(start, role, entering)
            if pid > 0:
                self._reply(number, self._environment_pidfd.value)
            else:
                # The launcher finds that nothing came of it when the descriptors are closed.
                sys.stderr.write("sandgate: nothing can be cloned: {}\n".format(calls.failure(self._clone_environment)))
        close_all(ends)

    def _forker(self, start: forker.Start, control: int, sync: int, entries: List[int]) -> Prepared:
        """What a clone with these descriptors will be; they have the same numbers in nearly every request."""
        prepared = self._forkers.get((start, control, sync, *entries))
        if prepared is None:
            if len(self._forkers) >= _MOST_PREPARED:
                self._forkers.clear()
            role = forker.Forker(control, sync, self._signals, self._plan is not None, self._fork, start.of_children)
            prepared = self._forkers[(start, control, sync, *entries)] = role, _entering(entries, sync)
            # A collection writes to all that it looks at: that of a child is for what its code has made.
            freeze()
        return prepared

    def _be_forker(self, start: forker.Start, role: forker.Forker, entering: List[calls.Call]) -> None:
        """In the clone; never returns."""
        try:
            # The launcher looks whether it has worked.
            for call in entering:
                call()
            os.close(self._channel)
            role.run(start)
        finally:
            os._exit(0)

    def _reply(self, number: int, pidfd: int) -> None:
        """Hand a clone to the launcher. Raises ``OSError``."""
        self._answer.write(wire.pack_numbered(wire.CLONED, number), [pidfd])
        calls.run((self._answer.send,))
        os.close(pidfd)

    def _join(
        self,
        number: int,
        start: forker.Start,
        role: forker.Forker,
        entering: List[calls.Call],
        namespaces: List[int],
    ) -> None:
        """A process namespace is entered by children only: a go-between enters the rest and clones the forker."""
        try:
            if system.clone(0):
                return
        except OSError as error:
            # As above: the launcher finds that nothing came of it.
            sys.stderr.write("sandgate: nothing can be cloned: {}\n".format(error))
            return
        try:
            walls.enter(namespaces)
            pid = self._clone_slot()
            if pid == 0:
                close_all(namespaces)
                self._be_forker(start, role, entering)
            if pid > 0:
                self._reply(number, self._slot_pidfd.value)
        finally:
            os._exit(0)

    def serve(self) -> None:
        """Clone for every request until the launcher is gone."""
        while True:
            self._poll.wait(-1)
            if self._poll.found[system.FOUND_FIRST]:
                self._drain()
                while self._bury_one() > 0:
                    pass
            if not self._poll.found[system.FOUND_SECOND]:
                continue
            message, ends = self._request.receive()
            if not message:
                return
            self.clone(message, ends)


def main(channel: int) -> None:
    """Run as a template's zygote; the first message on the channel says how."""
    os.set_inheritable(channel, False)
    system.prctl(system.PR_SET_PDEATHSIG, _signal.SIGKILL)
    message, programs = Letter(channel, wire.SETUP_LIMIT, 1).receive()
    setup = json.loads(message)
    filter_ = None
    if programs:
        with os.fdopen(programs[0], "rb") as program:
            filter_ = system.Filter(program.read())
    system.set_process_name("sg-zygote")
    preload(setup["preload"])
    child.rehearse()
    child.prepare_interpreter(setup)
    zygote = Zygote(channel, setup, filter_)
    freeze()
    os.write(channel, wire.READY)
    zygote.serve()
