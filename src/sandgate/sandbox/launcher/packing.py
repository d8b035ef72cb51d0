"""Writes the files of a sandbox to an archive, and lays one out in a sandbox in which no code has run yet.

A process of its own does it: it has the file, enters the user and mount namespace of the sandbox, becomes its user, and
keeps one power of the root in there: to read what the user has closed. What lays out is counted with the sandbox, which
is the one that grows. What packs is counted with all others that do: its sandbox stands still, with all in its group.
Either is bounded for itself, too.
"""

import errno
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sandgate.sandbox.launcher.attaching import Namespaces
from sandgate.sandbox.launcher.cgroup import Group
from sandgate.sandbox.launcher.copy_verbs import PackFiles, Packing
from sandgate.sandbox.launcher.copying import become_user, bound, tell
from sandgate.sandbox.launcher.errand import Errand
from sandgate.sandbox.launcher.life import Life
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate_agent import snapshot_file


def serve(
    sandbox: Life,
    wanted: Packing,
    received: Sequence[int],
    packing_group: Group | None,
    answer: Callable[[Mapping[str, Any]], None],
    refuse: Callable[[str], None],
) -> Errand:
    """Do what is asked; it is answered when it is done. What fails may have been done in part.

    Raises ``OSError``, and then nothing is answered, also for what is packed and does not stand still.
    """
    if len(received) != 1 or not stat.S_ISREG(os.fstat(received[0]).st_mode):
        raise OSError(errno.EINVAL, "there came no file with it")
    (file,) = received
    packs = isinstance(wanted, PackFiles)
    if packs:
        sandbox.freezing.check()
    else:
        sandbox.files.check_not_filled()

    def begin(reactor: Reactor, target: Namespaces, group: Group) -> Errand:
        kept = [file, target.user, target.mount]
        counted = packing_group if packs else group
        work = partial(_work, file, target, counted, wanted)
        return Errand(reactor, work, kept, wanted.within_s, partial(tell, answer, refuse))

    errand = sandbox.enter(begin)
    (sandbox.files.note_packing if packs else sandbox.files.note_filling)(errand)
    return errand


def _work(file: int, target: Namespaces, group: Group | None, wanted: Packing) -> bytes:
    """In the process. Raises ``OSError``."""
    bound(group, wanted)
    become_user(target)
    do = snapshot_file.pack if isinstance(wanted, PackFiles) else snapshot_file.lay_out
    return json.dumps(snapshot_file.tell(do, file, list(wanted.tops), wanted.most_entries, wanted.most_bytes)).encode()
