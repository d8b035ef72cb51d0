"""Reads all that code can change in an environment, at one moment of it, and lays it out in others.

What is read is written by a process inside the walls, and is hostile; so is what lays it out. Nothing out here looks
into it.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from sandgate.config.settings import Settings
from sandgate.core.environment import Environment
from sandgate.core.errors import (
    FilesUnavailable,
    SandboxFailed,
    SandgateError,
)
from sandgate.core.execution import ExecutionRequest, FileOperation
from sandgate.core.fair_slots import FairSlots
from sandgate.core.files import parse_answer, parse_count
from sandgate.core.ids import EnvironmentId
from sandgate.core.intake import Intake
from sandgate.core.limits import MIB
from sandgate.core.outlet import Outlet
from sandgate.core.states import Isolation
from sandgate.environments.archive_source import Source
from sandgate.environments.captures import TOPS, Capture, Captured, cannot_write, make_sink, too_large
from sandgate.environments.copy_group import CopyGroup
from sandgate.environments.copying import Copying, let_go_on
from sandgate.environments.file_channels import Channel, FileWork
from sandgate.environments.lifecycle import Lifecycle
from sandgate.environments.live import LiveEnvironment
from sandgate.environments.lookup import Lookup
from sandgate.environments.tasks import TaskOwner
from sandgate.sandbox.base import Runtime, Sandbox, SandboxApart
from sandgate.store.base import SnapshotSink
from sandgate.telemetry.log import get_logger

_TAKING = ("walking", "tarring", "snapshotting")
_FILLING = ("laying", "untar", "restoring")
_PIECE_BYTES = MIB
# How often it is tried anew to read files that change meanwhile, where what changes them cannot be stopped.
_ATTEMPTS = 3
# How many get their files at once, and of one user: whose are large leaves room for others.
_EQUIPPED_AT_ONCE = 16
_EQUIPPED_AT_ONCE_FOR_ONE = 4

_log = get_logger(__name__)


class Capturing(FileWork):
    """Implements :class:`sandgate.environments.lifecycle.Filling`."""

    def __init__(
        self,
        lookup: Lookup,
        lifecycle: Lifecycle,
        runtime: Runtime,
        settings: Settings,
        tasks: TaskOwner,
        copying: Copying,
    ) -> None:
        super().__init__(lookup, lifecycle, settings, tasks)
        self._runtime = runtime
        self._copying = copying
        self._sources: dict[EnvironmentId, Source] = {}
        self._groups: dict[EnvironmentId, CopyGroup] = {}
        self._equipping = FairSlots(_EQUIPPED_AT_ONCE, _EQUIPPED_AT_ONCE_FOR_ONE)

    async def capture(self, live: LiveEnvironment, sinks: Callable[[], SnapshotSink], most_bytes: int) -> "Capture":
        """Read its files while nothing of it runs, into a new one of ``sinks``, which is the caller's.

        Of a class that cannot be stopped they are read again when something has changed, a few times. One that is
        paused is so afterwards. Raises ``SnapshotTooLarge``, ``StoreUnavailable``, and what file operations raise.
        """
        packed = await self._copying.pack(live, sinks, most_bytes)
        if packed is not None:
            return packed
        with live.in_use():
            was_paused = live.is_paused
            try:
                return await self._capture_awake(live, sinks, most_bytes)
            finally:
                if was_paused and live.ending is None:
                    self._tasks.spawn(self._pause_again(live), f"pause {live.environment_id}")

    async def _pause_again(self, live: LiveEnvironment) -> None:
        with suppress(SandgateError):
            await self._lifecycle.pausing.pause(live)

    async def _capture_awake(
        self, live: LiveEnvironment, sinks: Callable[[], SnapshotSink], most_bytes: int
    ) -> "Capture":
        while True:
            sandbox = await live.wait_for_sandbox()
            async with live.standing:
                if live.ending is not None:
                    raise live.refusal()
                if not live.is_paused:
                    return await self._capture_in(live, sandbox, sinks, most_bytes)

    async def _capture_in(
        self, live: LiveEnvironment, sandbox: Sandbox, sinks: Callable[[], SnapshotSink], most_bytes: int
    ) -> "Capture":
        apart = await self._set_apart(live, sandbox)
        capture = None
        try:
            try:
                capture = await self._take(live, sandbox, apart, sinks, most_bytes)
                for _attempt in range(1, _ATTEMPTS):
                    if not capture.told.is_consistent:
                        await asyncio.to_thread(capture.sink.discard)
                        capture = await self._take(live, sandbox, apart, sinks, most_bytes)
            finally:
                if apart is not None:
                    apart.close()
                    await self._tasks.finish(let_go_on(live, sandbox), f"go on with {live.environment_id}")
        except BaseException as error:
            if capture is not None:
                await asyncio.to_thread(capture.sink.discard)
            if isinstance(error, FilesUnavailable) and live.ending is not None:
                raise live.refusal() from error
            raise
        return capture

    async def _set_apart(self, live: LiveEnvironment, sandbox: Sandbox) -> SandboxApart | None:
        """Stop all but a place to work in; None where that cannot be done. Raises ``EnvironmentNotRunning``."""
        isolation = live.row.isolation
        if isolation is not Isolation.STANDARD or not self._runtime.can_pause(isolation):
            return None
        try:
            return await sandbox.standstill.begin_but()
        except SandboxFailed as fault:
            if sandbox.failure is not None:
                self._lifecycle.sandbox_ended(live.environment_id, sandbox.failure)
                raise live.refusal() from fault
            _log.warning("not stopped for a snapshot", environment_id=live.environment_id, reason=fault.message)
            return None

    async def _take(
        self,
        live: LiveEnvironment,
        sandbox: Sandbox,
        apart: SandboxApart | None,
        sinks: Callable[[], SnapshotSink],
        most_bytes: int,
    ) -> "Capture":
        intake = Intake()
        arguments = {
            "tops": TOPS,
            "most_entries": self._settings.max_snapshot_entries,
            "most_bytes": most_bytes,
            "is_alone": apart is not None,
        }
        files = FileOperation("snapshot", arguments, None, _TAKING)
        timeout_s = self._settings.snapshot_timeout_s
        request = ExecutionRequest("", timeout_s, sink=intake, files=files)
        try:
            channel = Channel((apart or sandbox).execute(request), intake)
        except SandboxFailed as fault:
            self._lifecycle.sandbox_ended(live.environment_id, sandbox.failure or fault.message)
            raise live.refusal() from fault
        try:
            async with asyncio.timeout(timeout_s):
                await channel.answer()
                return await _receive(channel, make_sink(sinks), most_bytes)
        except TimeoutError:
            raise FilesUnavailable(f"The environment's files could not be read within {timeout_s:g} s") from None
        finally:
            channel.close()

    # Laying out

    def expect(self, environment_id: EnvironmentId, source: Source) -> None:
        """The environment that is about to be made begins with this."""
        self._sources[environment_id] = source

    def expect_copy(self, environment_id: EnvironmentId, group: CopyGroup) -> None:
        """The environment that is about to be made gets its files with others."""
        self._groups[environment_id] = group

    def forget(self, environment_id: EnvironmentId) -> None:
        """See ``Filling``."""
        group, source = self._groups.pop(environment_id, None), self._sources.pop(environment_id, None)
        if group is not None:
            group.leave(environment_id)
        if source is not None:
            source.release()

    async def fill(self, row: Environment, sandbox: Sandbox) -> None:
        """See ``Filling``."""
        name = row.environment_id
        if name in self._groups:
            source = await self._groups[name].arrive(name)
            del self._groups[name]
            if source is None:
                return
        elif name in self._sources:
            source = self._sources.pop(name)
        else:
            raise SandboxFailed("what it was to begin with is not known any more")
        try:
            async with self._equipping.place(row.owner_id):
                if not await self._copying.unpack(row, source):
                    await self._fill(source, sandbox)
        except SandgateError as fault:
            raise SandboxFailed(f"its files could not be laid out: {fault.message}") from fault
        finally:
            source.release()

    async def _fill(self, source: Source, sandbox: Sandbox) -> None:
        outlet, intake = Outlet(), Intake()
        size = source.size_bytes
        arguments = {"tops": TOPS, "most_entries": source.most_entries, "most_bytes": size}
        files = FileOperation("restore", arguments, outlet, _FILLING)
        request = ExecutionRequest("", self._settings.snapshot_timeout_s, sink=intake, files=files)
        channel = Channel(sandbox.execute(request), intake)
        await self._send(channel, outlet, source.pieces(), size, lambda: too_large(size))


async def _receive(channel: Channel, sink: SnapshotSink, most_bytes: int) -> Capture:
    try:
        size = await _write(channel, sink, most_bytes)
        ended = parse_answer(await channel.record())
        return Capture(_parse(ended, size), sink)
    except OSError as error:
        await asyncio.to_thread(sink.discard)
        raise cannot_write(error) from error
    except BaseException:
        await asyncio.to_thread(sink.discard)
        raise


async def _write(channel: Channel, sink: SnapshotSink, most_bytes: int) -> int:
    size = 0
    waiting = bytearray()
    while part := await channel.part():
        size += len(part)
        if size > most_bytes:
            raise too_large(most_bytes)
        waiting += part
        if len(waiting) >= _PIECE_BYTES:
            await asyncio.to_thread(sink.write, bytes(waiting))
            waiting.clear()
    await asyncio.to_thread(sink.write, bytes(waiting))
    return size


def _parse(ended: Mapping[str, Any], size: int) -> Captured:
    disk_bytes, files, skipped = (parse_count(ended.get(name)) for name in ("disk_bytes", "files", "skipped"))
    return Captured(size, disk_bytes, files, skipped, ended.get("changed") is False)
