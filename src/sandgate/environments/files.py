"""The use cases of files in environments.

Everything is done inside, by a process with the powers of the environment's code (``sandgate_agent/file_worker.py``):
no path from a client or from the environment ever is one of the host. What comes back is read as hostile.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass

from sandgate.core.errors import DiskFull, FilesUnavailable, FileTooLarge
from sandgate.core.files import FileEntry, not_agreed, parse_entry, show_path
from sandgate.core.ids import EnvironmentId
from sandgate.core.outlet import Outlet
from sandgate.core.principal import Principal
from sandgate.environments.archives import Archives
from sandgate.environments.file_channels import Channel, check_path, to_bytes
from sandgate.environments.searching import Searching
from sandgate.environments.watching import Watching

_OFFSET = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class Folder:
    """A part of a folder by name; ``last`` is the name to go on after, None at the end."""

    entries: tuple[FileEntry, ...]
    last: bytes | None


class OpenFile:
    """A file that is being read: see ``Content`` of the HTTP layer. Read in order, from anywhere on."""

    def __init__(self, entry: FileEntry, channel: Channel, outlet: Outlet) -> None:
        self.entry = entry
        self._channel = channel
        self._outlet = outlet
        self._begun = False
        self._piece = b""

    async def read(self, offset: int, length: int) -> bytes:
        """Up to so many bytes, the first time from ``offset`` on, then from where the last ended."""
        if not self._begun:
            self._begun = True
            await self._outlet.put(_OFFSET.pack(offset))
        piece = self._piece or await self._channel.read()
        self._piece = piece[length:]
        return piece[:length]

    def close(self) -> None:
        """Nothing more will be read."""
        self._channel.close()


class FileService(Archives, Searching, Watching):
    """Works on files of live environments, for whoever may see or change them."""

    async def check(self, caller: Principal, environment_id: EnvironmentId, path: str, *, changes: bool) -> None:
        """See ``Files``."""
        check_path(path)
        await self._lookup.get_live(caller, environment_id, changes=changes)

    async def look(self, caller: Principal, environment_id: EnvironmentId, path: str) -> FileEntry:
        """One file, a link itself. Raises ``FileMissing``."""
        answer = await self._ask(caller, environment_id, "stat", {"path": path}, changes=False)
        return parse_entry(answer.get("entry"))

    async def list(
        self, caller: Principal, environment_id: EnvironmentId, path: str, *, after: str, limit: int
    ) -> Folder:
        """A part of a folder. Raises ``FileMissing``, ``FileConflict``."""
        check_path(path)
        live = await self._lookup.get_live(caller, environment_id, changes=False)
        arguments = {"path": path, "after": after, "limit": limit}
        channel = await self._begin(live, "list", arguments, None, self._settings.file_operation_timeout_s)
        try:
            async with asyncio.timeout(self._settings.file_operation_timeout_s):
                last = (await channel.answer()).get("last")
                entries = [parse_entry(each) async for each in channel.found(limit)]
        except TimeoutError:
            raise FilesUnavailable("The environment did not come to an end with its files in time") from None
        finally:
            channel.close()
        if not isinstance(last, str | None):
            raise not_agreed()
        return Folder(tuple(entries), None if last is None else to_bytes(last))

    async def make_folder(self, caller: Principal, environment_id: EnvironmentId, path: str) -> FileEntry:
        """Make a folder and those on the way to it; one that is there is as good. Raises ``FileConflict``."""
        return parse_entry((await self._ask(caller, environment_id, "mkdir", {"path": path})).get("entry"))

    async def delete(self, caller: Principal, environment_id: EnvironmentId, path: str, *, recursive: bool) -> int:
        """Remove a file, a link, an empty folder, or a tree; how many. Raises ``FileMissing``, ``FileConflict``."""
        answer = await self._ask(caller, environment_id, "delete", {"path": path, "recursive": recursive})
        deleted = answer.get("deleted")
        return deleted if isinstance(deleted, int) and 0 < deleted < 2**31 else 1

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
        """``move`` or ``copy`` a file or a tree; the new one. Raises ``FileMissing``, ``FileConflict``."""
        check_path(source)
        arguments = {"source": source, "target": target, "overwrite": overwrite}
        return parse_entry((await self._ask(caller, environment_id, operation, arguments)).get("entry"))

    async def open(self, caller: Principal, environment_id: EnvironmentId, path: str) -> OpenFile:
        """A regular file, to be read; the caller closes it. Raises ``FileMissing``, ``FileConflict``."""
        check_path(path)
        live = await self._lookup.get_live(caller, environment_id, changes=False)
        outlet = Outlet()
        channel = await self._begin(live, "read", {"path": path}, outlet, self._settings.file_transfer_timeout_s)
        answer = await self._first_answer(channel)
        try:
            entry = parse_entry(answer.get("entry"))
        except FilesUnavailable:
            channel.close()
            raise
        if entry.size_bytes > self._settings.max_file_bytes:
            channel.close()
            raise self._too_large(path)
        return OpenFile(entry, channel, outlet)

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

        Raises ``FileConflict``, ``FileTooLarge``, ``DiskFull``.
        """
        check_path(path)
        live = await self._lookup.get_live(caller, environment_id)
        if size_bytes > self._settings.max_file_bytes:
            raise self._too_large(path)
        limit = live.row.largest_disk_bytes
        if size_bytes > limit:
            raise DiskFull(f"The disk of the environment has {limit} bytes in all", {"limit_bytes": limit})
        outlet = Outlet()
        arguments = {"path": path, "overwrite": overwrite, "mode": mode}
        channel = await self._begin(live, "write", arguments, outlet, self._settings.file_transfer_timeout_s)
        answer = await self._send(channel, outlet, body, self._settings.max_file_bytes, lambda: self._too_large(path))
        return parse_entry(answer.get("entry"))

    def _too_large(self, path: str) -> FileTooLarge:
        limit = self._settings.max_file_bytes
        shown = show_path(to_bytes(path))
        return FileTooLarge(f"{shown!r} is larger than {limit} bytes", {"path": shown, "limit_bytes": limit})
