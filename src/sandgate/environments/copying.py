"""Gives new environments the files of another one, or of an archive, and writes those, by what enters sandboxes from
outside; at one moment of them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager

from sandgate.config.settings import Settings
from sandgate.core.environment import Environment
from sandgate.core.errors import FilesUnavailable, LauncherUnavailable, SandboxFailed
from sandgate.core.fair_slots import FairSlots
from sandgate.core.files import parse_count
from sandgate.core.ids import EnvironmentId
from sandgate.core.states import Isolation
from sandgate.environments.archive_source import Source
from sandgate.environments.captures import TOPS, Capture, Captured, make_sink
from sandgate.environments.copy_group import CopyGroup
from sandgate.environments.lifecycle import Lifecycle
from sandgate.environments.live import LiveEnvironment
from sandgate.environments.tasks import TaskOwner
from sandgate.sandbox.base import Runtime, Sandbox
from sandgate.store.base import SnapshotSink
from sandgate.telemetry.log import get_logger

# How many environments stand still to be copied at once, those of one user one after the other, and how many copies of
# one are made at once: more are not sooner ready.
_COPIED_AT_ONCE = 4
_COPIED_AT_ONCE_FOR_ONE = 1
_COPIES_AT_ONCE = 4
_GO_ON_AGAIN_S = 0.5

_log = get_logger(__name__)


class Copying:
    """What it cannot do is done by an archive that each of them reads; see ``Capturing``."""

    def __init__(self, lifecycle: Lifecycle, runtime: Runtime, settings: Settings, tasks: TaskOwner) -> None:
        self._lifecycle = lifecycle
        self._runtime = runtime
        self._settings = settings
        self._tasks = tasks
        self._places = FairSlots(_COPIED_AT_ONCE, _COPIED_AT_ONCE_FOR_ONE)
        # Until the runtime says otherwise.
        self._is_possible = True

    def can_copy(self, live: LiveEnvironment) -> bool:
        """Whether it is worth trying: what cannot stand still cannot be copied at one moment."""
        return self._is_possible and self._can_stand_still(live)

    def _can_stand_still(self, live: LiveEnvironment) -> bool:
        isolation = live.row.isolation
        return isolation is Isolation.STANDARD and self._runtime.can_pause(isolation)

    async def copy(self, live: LiveEnvironment, group: CopyGroup) -> bool:
        """Give all of a group the files of an environment, while nothing of it runs; one that is paused stays so.

        False, when they have to be given them in another way. What ends meanwhile fails by itself. Raises
        ``EnvironmentNotRunning``, ``SnapshotTooLarge``, ``FilesUnavailable``, ``LauncherUnavailable``.
        """
        names = await group.wait()
        async with self._places.place(live.row.owner_id):
            with live.in_use():
                async with self._standing_still(live) as stands_still:
                    return stands_still and await self._copy_to(live, group, names)

    async def pack(self, live: LiveEnvironment, sinks: Callable[[], SnapshotSink], most_bytes: int) -> Capture | None:
        """Write the files of an environment to a new one of ``sinks``, while nothing of it runs; None, with nothing
        done, when that has to be done in another way. One that is paused stays so.

        Raises ``SnapshotTooLarge``, ``StoreUnavailable``, ``EnvironmentNotRunning``, ``FilesUnavailable``,
        ``LauncherUnavailable``.
        """
        if not self._can_stand_still(live):
            return None
        with live.in_use():
            async with self._standing_still(live) as stands_still:
                if not stands_still:
                    return None
                sink = make_sink(sinks)
                try:
                    told = await self._pack_into(live, sink, most_bytes)
                except BaseException:
                    await asyncio.to_thread(sink.discard)
                    raise
        return await _take_up(sink, told)

    async def _pack_into(self, live: LiveEnvironment, sink: SnapshotSink, most_bytes: int) -> Mapping[str, int]:
        limit_s = self._settings.snapshot_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._runtime.copies.pack(
                    live.environment_id, sink.descriptor, TOPS, self._settings.max_snapshot_entries, most_bytes, limit_s
                )
        except TimeoutError:
            raise FilesUnavailable(f"The environment's files could not be read within {limit_s:g} s") from None
        except SandboxFailed as fault:
            if live.ending is not None:
                raise live.refusal() from fault
            raise FilesUnavailable(f"The environment's files could not be read: {fault.message}") from fault

    async def unpack(self, row: Environment, source: Source) -> bool:
        """Lay out an archive in an environment that is being made; False when it has to be done in another way.

        Raises ``SnapshotUnreadable``, ``FilesUnavailable``, ``LauncherUnavailable``, ``SandboxFailed``, and what
        operations on files raise.
        """
        if row.isolation is not Isolation.STANDARD:
            return False
        size, limit_s = source.size_bytes, self._settings.snapshot_timeout_s
        laying_out = self._runtime.copies.unpack(
            row.environment_id, source.descriptor, TOPS, source.most_entries, size, limit_s
        )
        try:
            async with asyncio.timeout(limit_s):
                outcomes = await asyncio.gather(source.check(), laying_out, return_exceptions=True)
        except TimeoutError:
            raise FilesUnavailable(f"Its files could not be laid out within {limit_s:g} s") from None
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return True

    @asynccontextmanager
    async def _standing_still(self, live: LiveEnvironment) -> AsyncIterator[bool]:
        """Whether it does so during the block. Raises ``EnvironmentNotRunning``, ``LauncherUnavailable``."""
        sandbox = await live.wait_for_made()
        async with live.standing:
            if live.ending is not None:
                raise live.refusal()
            if live.is_paused:
                # Where it could not be paused again after the gateway had gone, it runs; again is harmless.
                yield await self._stop(live, sandbox)
            elif not await self._stop(live, sandbox):
                yield False
            else:
                try:
                    yield True
                finally:
                    await self._tasks.finish(let_go_on(live, sandbox), f"go on with {live.environment_id}")

    async def _stop(self, live: LiveEnvironment, sandbox: Sandbox) -> bool:
        try:
            await sandbox.standstill.begin()
        except SandboxFailed as fault:
            if sandbox.failure is not None:
                self._lifecycle.sandbox_ended(live.environment_id, sandbox.failure)
                raise live.refusal() from fault
            _log.warning("not stopped to be copied", environment_id=live.environment_id, reason=fault.message)
            return False
        return True

    async def _copy_to(self, live: LiveEnvironment, group: CopyGroup, names: Collection[EnvironmentId]) -> bool:
        loop, limit_s = asyncio.get_running_loop(), self._settings.snapshot_timeout_s
        until = loop.time() + limit_s
        at_once = asyncio.Semaphore(_COPIES_AT_ONCE)

        async def copy(name: EnvironmentId) -> bool:
            async with at_once:
                return await self._copy_one(live, name, max(0.0, until - loop.time()))

        try:
            async with asyncio.timeout_at(until):
                outcomes = await asyncio.gather(*map(copy, names), return_exceptions=True)
        except TimeoutError:
            raise FilesUnavailable(f"The environment's files could not be copied within {limit_s:g} s") from None
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, SandboxFailed):
                raise outcome
        if False in outcomes:
            self._is_possible = False
            return False
        for name, outcome in zip(names, outcomes, strict=True):
            group.finish(name, outcome if isinstance(outcome, SandboxFailed) else None)
        return True

    async def _copy_one(self, live: LiveEnvironment, name: EnvironmentId, limit_s: float) -> bool:
        settings = self._settings
        try:
            return await self._runtime.copies.copy(
                live.environment_id, name, TOPS, settings.max_snapshot_entries, settings.max_snapshot_bytes, limit_s
            )
        except (FilesUnavailable, SandboxFailed) as fault:
            if live.ending is not None:
                raise live.refusal() from fault
            raise


async def _take_up(sink: SnapshotSink, told: Mapping[str, int]) -> Capture:
    """Its length is counted out here, the rest was told."""
    try:
        size = await asyncio.to_thread(sink.take_up)
        disk_bytes, files, skipped = (parse_count(told.get(name)) for name in ("disk_bytes", "files", "skipped"))
    except BaseException:
        await asyncio.to_thread(sink.discard)
        raise
    return Capture(Captured(size, disk_bytes, files, skipped, is_consistent=True), sink)


async def let_go_on(live: LiveEnvironment, sandbox: Sandbox) -> None:
    """Again and again: what stands still must not stay so."""
    while live.ending is None:
        try:
            await sandbox.standstill.end()
        except LauncherUnavailable:
            await asyncio.sleep(_GO_ON_AGAIN_S)
        except SandboxFailed:
            return
        else:
            return
