"""How the gateway speaks with the process in an environment that works on its files; what comes back is hostile."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from sandgate.config.settings import Settings
from sandgate.core.errors import FilesUnavailable, PathInvalid, SandboxFailed, SandgateError
from sandgate.core.execution import ExecutionRequest, FileOperation, InputSource
from sandgate.core.files import (
    LONGEST_PATH_BYTES,
    MOST_RECORD_BYTES,
    encode_path,
    not_agreed,
    parse_answer,
    parse_found,
)
from sandgate.core.ids import EnvironmentId
from sandgate.core.intake import Intake
from sandgate.core.outlet import Outlet
from sandgate.core.principal import Principal
from sandgate.core.states import ExecutionStatus
from sandgate.environments.lifecycle import Lifecycle
from sandgate.environments.live import LiveEnvironment
from sandgate.environments.lookup import Lookup
from sandgate.environments.tasks import TaskOwner
from sandgate.sandbox.base import RunningExecution

_LENGTH = struct.Struct("!I")


class Channel:
    """One operation that an environment is at. ``close`` comes last."""

    def __init__(self, execution: RunningExecution, intake: Intake) -> None:
        self._execution = execution
        self._intake = intake
        self._rest = bytearray()
        self._left = 0
        # An operation that never gets to run has no output that could end.
        self._closing = asyncio.create_task(self._close_after(), name="end of a file operation")

    async def answer(self) -> Mapping[str, Any]:
        """The record that comes first. Raises what it says went wrong, ``FilesUnavailable``."""
        return parse_answer(await self.record())

    async def record(self) -> bytes:
        """The next text. Raises ``FilesUnavailable``."""
        (length,) = _LENGTH.unpack(await self._take(_LENGTH.size))
        if length > MOST_RECORD_BYTES:
            raise FilesUnavailable("The environment answered with more than was agreed")
        return await self._take(length)

    async def found(self, most: int) -> AsyncIterator[Any]:
        """What comes in further records, up to the empty one. Raises ``FilesUnavailable``."""
        while record := await self.record():
            found = parse_found(record)
            most -= len(found)
            if most < 0:
                raise not_agreed()
            for each in found:
                yield each
            # However much there is to be parsed, others get their turn.
            await asyncio.sleep(0)

    async def part(self) -> bytes:
        """A part of what comes in pieces of any length; nothing when the empty one has come."""
        if not self._left:
            (self._left,) = _LENGTH.unpack(await self._take(_LENGTH.size))
            if not self._left:
                return b""
        if self._rest:
            # However small the parts are, others get their turn.
            await asyncio.sleep(0)
        else:
            await self._take_in()
        part = self._cut(self._left)
        self._left -= len(part)
        return part

    async def read(self) -> bytes:
        """What comes behind the record, piece by piece; empty at the end."""
        return self._cut(len(self._rest)) or await self._intake.read()

    async def wait(self) -> None:
        """Wait until nothing of it runs any more."""
        await self._execution.wait()

    def close(self) -> None:
        """Nobody reads on: what still runs of it is killed."""
        self._execution.cancel()
        self._closing.cancel()
        self._intake.close()

    async def _take(self, length: int) -> bytes:
        while len(self._rest) < length:
            await self._take_in()
        return self._cut(length)

    async def _take_in(self) -> None:
        """Wait for more. Raises ``FilesUnavailable`` when nothing comes any more."""
        data = await self._intake.read()
        if not data:
            raise FilesUnavailable(await self._describe_end())
        self._rest += data

    def _cut(self, most: int) -> bytes:
        """What has come first, without a copy of all that is behind it."""
        with memoryview(self._rest) as rest:
            taken = bytes(rest[:most])
        del self._rest[: len(taken)]
        return taken

    async def _describe_end(self) -> str:
        ended = await self._execution.wait()
        if ended.status is ExecutionStatus.TIMED_OUT:
            return "The environment did not come to an end with its files in time"
        return f"The environment's work on its files ended as {ended.status}; ask again"

    async def _close_after(self) -> None:
        await self._execution.wait()
        self._intake.close()


class FileWork:
    """Begins operations in live environments, for whoever may see or change them."""

    def __init__(self, lookup: Lookup, lifecycle: Lifecycle, settings: Settings, tasks: TaskOwner) -> None:
        self._lookup = lookup
        self._lifecycle = lifecycle
        self._settings = settings
        self._tasks = tasks

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
        check_path(str(arguments.get("path", arguments.get("target"))))
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
        modules: tuple[str, ...] = (),
    ) -> Channel:
        sandbox = live.get_sandbox() or await live.wait_for_sandbox()
        intake = Intake()
        files = FileOperation(operation, arguments, source, modules)
        request = ExecutionRequest("", timeout_s, sink=intake, files=files)
        try:
            return Channel(sandbox.execute(request), intake)
        except SandboxFailed as fault:
            self._lifecycle.sandbox_ended(live.environment_id, sandbox.failure or fault.message)
            raise live.refusal() from fault

    async def _first_answer(self, channel: Channel) -> Mapping[str, Any]:
        """The first record of an operation whose content may take long. Closes the channel when it raises."""
        try:
            async with asyncio.timeout(self._settings.file_operation_timeout_s):
                return await channel.answer()
        except TimeoutError:
            channel.close()
            raise FilesUnavailable("The environment did not come to its files in time") from None
        except BaseException:
            channel.close()
            raise

    async def _send(
        self,
        channel: Channel,
        outlet: Outlet,
        body: AsyncIterator[bytes],
        most_bytes: int,
        too_large: Callable[[], SandgateError],
    ) -> Mapping[str, Any]:
        """Send a body as the operation reads it; its answer. Closes the channel."""
        answering = asyncio.create_task(channel.answer(), name="answer to a write")
        answering.add_done_callback(lambda _task: outlet.close())
        try:
            async with asyncio.timeout(self._settings.file_operation_timeout_s):
                await outlet.wait_for_reader()
            size = 0
            async for piece in body:
                size += len(piece)
                if size > most_bytes:
                    raise too_large()
                if piece and not await outlet.put(_LENGTH.pack(len(piece)) + piece):
                    break
            else:
                await outlet.put(_LENGTH.pack(0))
            return await answering
        except TimeoutError:
            raise FilesUnavailable("The environment did not come to its files in time") from None
        finally:
            channel.close()
            answering.cancel()
            await asyncio.wait({answering})
            if not answering.cancelled():
                answering.exception()
            # What is raised holds this frame, and what the task holds is what is raised.
            del answering


def to_bytes(path: str) -> bytes:
    """A path as the kernel knows it. Raises ``PathInvalid``."""
    try:
        return encode_path(path)
    except UnicodeEncodeError:
        raise PathInvalid("A path cannot have half of a surrogate pair in it") from None


def check_path(path: str) -> None:
    """Raises ``PathInvalid`` for what no kernel would take."""
    if not path or "\0" in path or len(to_bytes(path)) > LONGEST_PATH_BYTES:
        raise PathInvalid(f"A path has 1 to {LONGEST_PATH_BYTES} bytes and no NUL in it")
