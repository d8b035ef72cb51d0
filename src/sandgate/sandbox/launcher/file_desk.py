"""What the launcher does with all files of a sandbox at once: copies them to another one, packs them, lays them out."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sandgate.sandbox.launcher import copying, packing
from sandgate.sandbox.launcher.cgroup import Group, GroupLimits, Tree
from sandgate.sandbox.launcher.copy_verbs import CopyFiles, Packing
from sandgate.sandbox.launcher.file_work import MOST_AT_ONCE, Places
from sandgate.sandbox.launcher.life import Life

_GROUP = "packing"
# Of all that pack together, which are counted with none of the sandboxes: those stand still, and so would what is put
# into their groups. The memory is mostly that of the files that are written.
_MEMORY_BYTES = 1024**3
_CORE_MILLIS = 1000

Answer = Callable[[Mapping[str, Any]], None]
Refuse = Callable[[str], None]


class FileDesk:
    """One for a launcher; nothing can be asked of it before :meth:`open`."""

    def __init__(self) -> None:
        self._places = Places()
        self._group: Group | None = None

    def open(self, tree: Tree | None) -> None:
        """Make the group of what packs, where there are any. Raises ``OSError``."""
        if tree is None:
            return
        # One core is left to others, where there are several.
        cores = max(1, (os.cpu_count() or 1) - 1)
        self._group = tree.group(_GROUP)
        self._group.make(GroupLimits(_MEMORY_BYTES, cores * _CORE_MILLIS, MOST_AT_ONCE))

    def copy(self, sandbox: Life, source: Life | None, wanted: CopyFiles, answer: Answer, refuse: Refuse) -> None:
        """See :func:`copying.serve`."""
        try:
            self._places.check()
            errand = copying.serve(sandbox, source, wanted, answer, refuse)
        except OSError as error:
            return refuse(f"its files could not be copied: {error.strerror}")
        if errand is not None:
            self._places.take(errand)
        return None

    def pack(self, sandbox: Life, wanted: Packing, received: Sequence[int], answer: Answer, refuse: Refuse) -> None:
        """See :func:`packing.serve`."""
        try:
            self._places.check()
            self._places.take(packing.serve(sandbox, wanted, received, self._group, answer, refuse))
        except OSError as error:
            refuse(f"its files cannot be packed or laid out: {error.strerror}")
