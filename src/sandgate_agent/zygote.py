"""The warm parent of every environment of one template.

It is untrusted: it has imported the template's packages. It holds no privilege; what it clones gets a user
namespace of its own, which stays powerless until the launcher has mapped ids into it.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any, Dict, List

from sandgate_agent import child, descriptors, keeper, system, walls, wire


def _preload(names: List[str]) -> None:
    """Import what the template asks for; a package that is missing or breaks is left to the user's own import."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            sys.stderr.write("sandgate: preloading {} failed: {!r}\n".format(name, error))


def _freeze() -> None:
    """Make what was imported survive forks unshared: the collector never walks over it again."""
    gc.collect()
    gc.disable()
    gc.freeze()


def _clone_keeper(request: Dict[str, Any], channel: socket.socket, ends: List[int], filter_: Any) -> None:
    """Clone one keeper and tell the launcher, with a descriptor of it."""
    control, sync = ends
    pid, pidfd = system.clone_with_pidfd(walls.clone_flags(request))
    if pid == 0:
        channel.close()
        keeper.main(request, socket.socket(fileno=control), socket.socket(fileno=sync), filter_)
        os._exit(0)
    try:
        descriptors.send(channel, wire.pack_numbered(wire.CLONED, request["number"]), [pidfd])
    finally:
        for descriptor in (control, sync, pidfd):
            os.close(descriptor)


def _serve(channel: socket.socket, filter_: Any) -> None:
    """Clone for every request until the launcher is gone."""
    signals = system.open_child_signals()
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(signals, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _event in poll.poll()}
        if signals in ready:
            system.drain(signals)
            for _ended in system.reap():
                pass
        if channel.fileno() not in ready:
            continue
        message, ends = descriptors.receive(channel, 2)
        if not message:
            return
        _clone_keeper(json.loads(message), channel, ends, filter_)


def main(descriptor: int) -> None:
    """Run as a template's zygote; the first message on the channel says how."""
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL)
    message, programs = descriptors.receive(channel, 1)
    setup = json.loads(message)
    filter_ = None
    if programs:
        with os.fdopen(programs[0], "rb") as program:
            filter_ = system.Filter(program.read())
    system.set_process_name("sg-zygote")
    _preload(setup["preload"])
    child.prepare_interpreter(setup)
    _freeze()
    channel.send(wire.READY)
    _serve(channel, filter_)
