"""Writes the files of a sandbox to an archive, and lays one out in a sandbox in which no code has run yet.

A process of its own does it: it has the file, enters the user and mount namespace of the sandbox, becomes its user, and
keeps one power of the root in there: to read what the user has closed. What it lays out is counted with the sandbox.
"""

import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sandgate.sandbox.launcher.attaching import Namespaces
from sandgate.sandbox.launcher.cgroup import Group
from sandgate.sandbox.launcher.copy_verbs import PackFiles, Packing
from sandgate.sandbox.launcher.copying import LIMIT_S, become_user, tell
from sandgate.sandbox.launcher.errand import Errand
from sandgate.sandbox.launcher.life import Life
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate_agent import snapshot_file


def serve(
    sandbox: Life,
    wanted: Packing,
    received: Sequence[int],
    answer: Callable[[Mapping[str, Any]], None],
    refuse: Callable[[str], None],
) -> None:
    """Do what is asked; it is answered when it is done. What fails may have been done in part."""
    if len(received) != 1 or not stat.S_ISREG(os.fstat(received[0]).st_mode):
        return refuse("there came no file with it")
    (file,) = received

    def begin(reactor: Reactor, target: Namespaces, group: Group) -> Errand:
        kept = [file, target.user, target.mount]
        work = partial(_work, file, target, group, wanted)
        return Errand(reactor, work, kept, LIMIT_S, partial(tell, answer, refuse))

    try:
        return sandbox.enter(begin)
    except OSError as error:
        return refuse(f"its files cannot be packed or laid out: {error.strerror}")


def _work(file: int, target: Namespaces, group: Group, wanted: Packing) -> bytes:
    """In the process. Raises ``OSError``."""
    packs = isinstance(wanted, PackFiles)
    if not packs:
        group.attach(os.getpid())
    become_user(target)
    do = snapshot_file.pack if packs else snapshot_file.lay_out
    return json.dumps(snapshot_file.tell(do, file, list(wanted.tops), wanted.most_entries, wanted.most_bytes)).encode()
