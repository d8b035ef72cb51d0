"""What gives sandboxes all their files at once."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sandgate.core.ids import EnvironmentId


class FileCopier(Protocol):
    """Gives sandboxes of a runtime the files of others, by what enters them from outside; not those of every class.

    What is not done within ``limit_s`` is given up, whether or not somebody still waits for it.
    """

    async def copy(
        self,
        source: EnvironmentId,
        target: EnvironmentId,
        tops: Sequence[str],
        most_entries: int,
        most_bytes: int,
        limit_s: float,
    ) -> bool:
        """Give a sandbox in which no code has run yet what is in folders of another one, which is to stand still.

        False, and nothing is done, where it cannot be done. When it fails some may be there. Raises
        ``SnapshotTooLarge``, ``LauncherUnavailable``, ``FilesUnavailable`` when the other one ends, ``SandboxFailed``,
        also when the other one does not stand still, or goes on meanwhile.
        """
        ...

    async def pack(
        self,
        source: EnvironmentId,
        file: int,
        tops: Sequence[str],
        most_entries: int,
        most_bytes: int,
        limit_s: float,
    ) -> Mapping[str, int]:
        """Write what is in folders of a sandbox, which is to stand still, to a file that is open; what it was.

        That is numbers, by ``files``, ``disk_bytes``, ``skipped`` and others. Raises ``SnapshotTooLarge``,
        ``StoreUnavailable`` when the file cannot be written, ``LauncherUnavailable``, ``SandboxFailed``, also when it
        does not stand still, or goes on meanwhile.
        """
        ...

    async def unpack(
        self,
        target: EnvironmentId,
        file: int,
        tops: Sequence[str],
        most_entries: int,
        most_bytes: int,
        limit_s: float,
    ) -> None:
        """Lay out what is in such a file in a sandbox in which no code has run yet; when it fails some may be there.

        Raises ``LauncherUnavailable``, ``SandboxFailed``, and what operations on files raise.
        """
        ...
