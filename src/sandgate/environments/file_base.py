"""The use cases of files in environments, as the HTTP layer sees them."""

from collections.abc import AsyncIterator
from typing import Protocol

from sandgate.core.files import ArchiveForm, FileEntry
from sandgate.core.ids import EnvironmentId
from sandgate.core.principal import Principal
from sandgate.environments.archives import OpenArchive, Unpacked
from sandgate.environments.files import Folder, OpenFile
from sandgate.environments.searching import Search, SearchResult
from sandgate.environments.watching import Watch


class Files(Protocol):
    """Files of environments, by their paths inside. Every method raises what :class:`Environments` does, and
    ``EnvironmentNotRunning``, ``FileMissing``, ``FileForbidden``, ``PathInvalid``, ``FilesUnavailable``,
    ``TooManyExecutions``.
    """

    async def check(self, caller: Principal, environment_id: EnvironmentId, path: str, *, changes: bool) -> None:
        """Whether the caller may work on files here now, whether or not there is one at the path."""
        ...

    async def look(self, caller: Principal, environment_id: EnvironmentId, path: str) -> FileEntry:
        """One file, a link itself."""
        ...

    async def list(
        self, caller: Principal, environment_id: EnvironmentId, path: str, *, after: str, limit: int
    ) -> Folder:
        """A part of a folder by name, behind the name ``after``. Raises ``FileConflict``."""
        ...

    async def make_folder(self, caller: Principal, environment_id: EnvironmentId, path: str) -> FileEntry:
        """Make a folder and those on the way to it. Raises ``FileConflict``, ``DiskFull``."""
        ...

    async def delete(self, caller: Principal, environment_id: EnvironmentId, path: str, *, recursive: bool) -> int:
        """Remove a file, a link, an empty folder, or a tree; how many. Raises ``FileConflict``."""
        ...

    async def transfer(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        operation: str,
        source: str,
        target: str,
        *,
        overwrite: bool,
    ) -> FileEntry:
        """``move`` or ``copy`` a file or a tree; the new one. Raises ``FileConflict``, ``DiskFull``."""
        ...

    async def open(self, caller: Principal, environment_id: EnvironmentId, path: str) -> OpenFile:
        """A regular file, to be read; the caller closes it. Raises ``FileConflict``, ``FileTooLarge``."""
        ...

    async def write(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        path: str,
        body: AsyncIterator[bytes],
        *,
        overwrite: bool,
        mode: int | None,
        size_bytes: int = 0,
    ) -> FileEntry:
        """Write a file in one step: until all of it is there, what was there stays.

        ``size_bytes`` is how long it will be, if that is known: what cannot fit is refused before it is sent.

        Raises ``FileConflict``, ``FileTooLarge``, ``DiskFull``.
        """
        ...

    async def open_archive(
        self, caller: Principal, environment_id: EnvironmentId, path: str, form: ArchiveForm
    ) -> OpenArchive:
        """A folder as an archive, to be read; the caller closes it. Raises ``FileConflict``, ``ArchiveTooLarge``."""
        ...

    async def unpack(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        path: str,
        form: ArchiveForm,
        body: AsyncIterator[bytes],
        *,
        overwrite: bool,
        outside_links: bool,
        size_bytes: int = 0,
    ) -> Unpacked:
        """Lay out an archive in a folder, which is made if it is not there: all of it, or nothing.

        Links that lead out of the folder are refused, unless ``outside_links``. ``size_bytes`` is how long it will be,
        if that is known.

        Raises ``ArchiveInvalid``, ``ArchiveTooLarge``, ``FileConflict``, ``FileTooLarge``, ``DiskFull``.
        """
        ...

    async def search(self, caller: Principal, environment_id: EnvironmentId, wanted: Search) -> SearchResult:
        """Find files and lines, in bounded time. Raises ``FileConflict``, ``PatternInvalid``."""
        ...

    async def watch(self, caller: Principal, environment_id: EnvironmentId, path: str, *, recursive: bool) -> Watch:
        """What changes in a folder from now on; the caller closes it. Raises ``FileConflict``, ``TooManyStreams``."""
        ...
