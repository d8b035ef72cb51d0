"""The use cases of files in environments.

Everything is done inside, by a process with the powers of the environment's code (``sandgate_agent/file_worker.py``):
no path from a client or from the environment ever is one of the host. What comes back is read as hostile.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from sandgate.config.settings import Settings
from sandgate.core.errors import DiskFull, FilesUnavailable, FileTooLarge, PathInvalid, SandboxFailed
from sandgate.core.execution import ExecutionRequest, FileOperation, InputSource
from sandgate.core.files import (
    LONGEST_PATH_BYTES,
    MOST_ANSWER_BYTES,
    FileEntry,
    encode_path,
    parse_answer,
    parse_entry,
    show_path,
)
from sandgate.core.ids import EnvironmentId
from sandgate.core.intake import Intake
from sandgate.core.outlet import Outlet
from sandgate.core.principal import Principal
from sandgate.core.states import ExecutionStatus
from sandgate.environments.lifecycle import Lifecycle
from sandgate.environments.live import LiveEnvironment
from sandgate.environments.lookup import Lookup
from sandgate.sandbox.base import RunningExecution

_LENGTH = struct.Struct("!I")
_OFFSET = struct.Struct("!Q")
_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Folder:
    """A part of a folder by name; ``last`` is the name to go on after, None at the end."""

    entries: tuple[FileEntry, ...]
    last: bytes | None


class Channel:
    """One operation that an environment is at. ``close`` comes last."""

    def __init__(self, execution: RunningExecution, intake: Intake) -> None:
        self._execution = execution
        self._intake = intake
        self._rest = b""
        # An operation that never gets to run has no output that could end.
        self._closing = asyncio.create_task(self._close_after(), name="end of a file operation")

    async def answer(self) -> Mapping[str, Any]:
        """The record that comes first. Raises what it says went wrong, ``FilesUnavailable``."""
        length = _LENGTH.size
        while len(self._rest) < length:
            data = await self._intake.read()
            if not data:
                raise FilesUnavailable(await self._describe_end())
            self._rest += data
            if length == _LENGTH.size and len(self._rest) >= length:
                length += _LENGTH.unpack_from(self._rest)[0]
                if length > MOST_ANSWER_BYTES:
                    raise FilesUnavailable("The environment answered with more than was agreed")
        text, self._rest = self._rest[_LENGTH.size : length], self._rest[length:]
        return parse_answer(text)

    async def read(self) -> bytes:
        """What comes behind the record, piece by piece; empty at the end."""
        rest, self._rest = self._rest, b""
        return rest or await self._intake.read()

    def close(self) -> None:
        """Nobody reads on: what still runs of it is killed."""
        self._execution.cancel()
        self._closing.cancel()
        self._intake.close()

    async def _describe_end(self) -> str:
        ended = await self._execution.wait()
        if ended.status is ExecutionStatus.TIMED_OUT:
            return "The environment did not come to an end with its files in time"
        return f"The environment's work on its files ended as {ended.status}; ask again"

    async def _close_after(self) -> None:
        await self._execution.wait()
        self._intake.close()


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


class FileService:
    """Works on files of live environments, for whoever may see or change them."""

    def __init__(self, lookup: Lookup, lifecycle: Lifecycle, settings: Settings) -> None:
        self._lookup = lookup
        self._lifecycle = lifecycle
        self._settings = settings

    async def look(self, caller: Principal, environment_id: EnvironmentId, path: str) -> FileEntry:
        """One file, a link itself. Raises ``FileMissing``."""
        answer = await self._ask(caller, environment_id, "stat", {"path": path}, changes=False)
        return parse_entry(answer.get("entry"))

    async def list(
        self, caller: Principal, environment_id: EnvironmentId, path: str, *, after: str, limit: int
    ) -> Folder:
        """A part of a folder. Raises ``FileMissing``, ``FileConflict``."""
        arguments = {"path": path, "after": after, "limit": limit}
        answer = await self._ask(caller, environment_id, "list", arguments, changes=False)
        entries, last = answer.get("entries"), answer.get("last")
        if not isinstance(entries, list) or len(entries) > limit or not isinstance(last, str | None):
            raise FilesUnavailable("The environment answered in no form that was agreed")
        return Folder(tuple(map(parse_entry, entries)), None if last is None else _to_bytes(last))

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
        _check_path(source)
        arguments = {"source": source, "target": target, "overwrite": overwrite}
        return parse_entry((await self._ask(caller, environment_id, operation, arguments)).get("entry"))

    async def open(self, caller: Principal, environment_id: EnvironmentId, path: str) -> OpenFile:
        """A regular file, to be read; the caller closes it. Raises ``FileMissing``, ``FileConflict``."""
        _check_path(path)
        live = await self._lookup.get_live(caller, environment_id, changes=False)
        outlet = Outlet()
        channel = await self._begin(live, "read", {"path": path}, outlet, self._settings.file_transfer_timeout_s)
        try:
            async with asyncio.timeout(self._settings.file_operation_timeout_s):
                entry = parse_entry((await channel.answer()).get("entry"))
        except TimeoutError:
            channel.close()
            raise FilesUnavailable("The environment did not come to its files in time") from None
        except BaseException:
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
        _check_path(path)
        live = await self._lookup.get_live(caller, environment_id)
        if size_bytes > self._settings.max_file_bytes:
            raise self._too_large(path)
        if size_bytes > live.row.limits.disk_bytes:
            limit = live.row.limits.disk_bytes
            raise DiskFull(f"The disk of the environment has {limit} bytes in all", {"limit_bytes": limit})
        outlet = Outlet()
        arguments = {"path": path, "overwrite": overwrite, "mode": mode}
        channel = await self._begin(live, "write", arguments, outlet, self._settings.file_transfer_timeout_s)
        answering = asyncio.create_task(channel.answer(), name="answer to a write")
        answering.add_done_callback(lambda _task: outlet.close())
        try:
            async with asyncio.timeout(self._settings.file_operation_timeout_s):
                await outlet.wait_for_reader()
            size = 0
            async for piece in body:
                size += len(piece)
                if size > self._settings.max_file_bytes:
                    raise self._too_large(path)
                if piece and not await outlet.put(_LENGTH.pack(len(piece)) + piece):
                    break
            else:
                await outlet.put(_LENGTH.pack(0))
            return parse_entry((await answering).get("entry"))
        except TimeoutError:
            raise FilesUnavailable("The environment did not come to its files in time") from None
        finally:
            channel.close()
            answering.cancel()
            await asyncio.wait({answering})
            if not answering.cancelled():
                answering.exception()

    async def _ask(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        operation: str,
        arguments: Mapping[str, Any],
        *,
        changes: bool = True,
    ) -> Mapping[str, Any]:
        """The answer to an operation that reads and writes no content."""
        _check_path(str(arguments.get("path", arguments.get("target"))))
        live = await self._lookup.get_live(caller, environment_id, changes=changes)
        channel = await self._begin(live, operation, arguments, None, self._settings.file_operation_timeout_s)
        try:
            async with asyncio.timeout(self._settings.file_operation_timeout_s):
                return await channel.answer()
        except TimeoutError:
            raise FilesUnavailable("The environment did not come to an end with its files in time") from None
        finally:
            channel.close()

    async def _begin(
        self,
        live: LiveEnvironment,
        operation: str,
        arguments: Mapping[str, Any],
        source: InputSource | None,
        timeout_s: float,
    ) -> Channel:
        sandbox = live.get_sandbox() or await live.wait_for_sandbox()
        intake = Intake()
        request = ExecutionRequest("", timeout_s, sink=intake, files=FileOperation(operation, arguments, source))
        try:
            return Channel(sandbox.execute(request), intake)
        except SandboxFailed as fault:
            self._lifecycle.sandbox_ended(live.environment_id, sandbox.failure or fault.message)
            raise live.refusal() from fault

    def _too_large(self, path: str) -> FileTooLarge:
        limit = self._settings.max_file_bytes
        shown = show_path(_to_bytes(path))
        return FileTooLarge(f"{shown!r} is larger than {limit} bytes", {"path": shown, "limit_bytes": limit})


def _to_bytes(path: str) -> bytes:
    try:
        return encode_path(path)
    except UnicodeEncodeError:
        raise PathInvalid("A path cannot have half of a surrogate pair in it") from None


def _check_path(path: str) -> None:
    """Raises ``PathInvalid`` for what no kernel would take."""
    if not path or "\0" in path or len(_to_bytes(path)) > LONGEST_PATH_BYTES:
        raise PathInvalid(f"A path has 1 to {LONGEST_PATH_BYTES} bytes and no NUL in it")
