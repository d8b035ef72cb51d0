"""The use cases of snapshots: made of what code can change in an environment, kept, and begun from."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from sandgate.config.settings import Settings
from sandgate.core.clock import Clock
from sandgate.core.errors import (
    SnapshotElsewhere,
    SnapshotNotFound,
    SnapshotUnavailable,
    SnapshotUnfit,
    SnapshotUnreadable,
    StoreUnavailable,
    TooManySnapshots,
)
from sandgate.core.fair_slots import FairSlots
from sandgate.core.ids import EnvironmentId, SnapshotId, UserId, make_snapshot_id
from sandgate.core.limits import MIB, Limits
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal
from sandgate.core.snapshot import Snapshot, SnapshotUse
from sandgate.core.states import Isolation
from sandgate.environments.access import check_can_write
from sandgate.environments.archive_source import Source
from sandgate.environments.captures import Capture, Captured, cannot_write, too_large
from sandgate.environments.capturing import Capturing
from sandgate.environments.live import LiveEnvironment
from sandgate.environments.lookup import Lookup
from sandgate.environments.quotas import UserQuotas
from sandgate.environments.tasks import TaskOwner
from sandgate.store.base import SnapshotFolder, SnapshotStore
from sandgate.telemetry.log import get_logger
from sandgate.telemetry.rounds import go_round

# Each holds up an environment, and keeps a disk busy. Those of one user are made one after the other, so that what a
# user has is known before the next one begins.
_MADE_AT_ONCE = 16
_MADE_AT_ONCE_FOR_ONE = 1
_INTERVAL_S = 300.0
_BATCH = 200
_RETRY_AFTER_S = 60.0
_NO_BOUND = 2**62

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NewSnapshot:
    """What a caller asks for; without a name it has that of the environment."""

    name: str | None = None
    metadata: dict[str, str] | None = None


class SnapshotService:
    """Implements :class:`sandgate.environments.snapshot_base.Snapshots`."""

    def __init__(
        self,
        lookup: Lookup,
        capturing: Capturing,
        store: SnapshotStore,
        files: SnapshotFolder,
        quotas: UserQuotas,
        clock: Clock,
        settings: Settings,
        tasks: TaskOwner,
        server_id: str,
        check_takes_work: Callable[[], None],
    ) -> None:
        self._lookup = lookup
        self._capturing = capturing
        self._store = store
        self._files = files
        self._quotas = quotas
        self._clock = clock
        self._settings = settings
        self._tasks = tasks
        self._server_id = server_id
        self._check_takes_work = check_takes_work
        self._places = FairSlots(_MADE_AT_ONCE, _MADE_AT_ONCE_FOR_ONE)
        # Files that have no row yet and are to have one.
        self._coming: set[SnapshotId] = set()

    async def create(self, caller: Principal, environment_id: EnvironmentId, wanted: NewSnapshot) -> Snapshot:
        """See ``Snapshots``."""
        live = await self._lookup.get_live(caller, environment_id)
        self._check_takes_work()
        check_can_copy(live)
        owner_id = live.row.owner_id
        await self._find_room(owner_id)
        async with self._places.place(owner_id):
            most, left_bytes = await self._find_room(owner_id)
            snapshot_id = make_snapshot_id()
            self._coming.add(snapshot_id)
            try:
                capture = await self._capturing.capture(live, lambda: self._files.create(snapshot_id), left_bytes)
            except BaseException:
                self._coming.discard(snapshot_id)
                raise
            row = self._row(snapshot_id, live, wanted, capture.told)
            # Once its file is there a row has to follow, also when the caller goes away meanwhile.
            return await self._tasks.finish(self._keep(row, capture, most), f"keep {snapshot_id}")

    async def take(self, live: LiveEnvironment, readers: int) -> Source:
        """The files of an environment as they are now, for so many that are to begin with them, and for nobody else.

        Raises what :meth:`create` does but for the user's quota.
        """
        owner_id = live.row.owner_id
        async with self._places.place(owner_id):
            name = make_snapshot_id()
            most = self._settings.max_snapshot_bytes
            capture = await self._capturing.capture(live, lambda: self._files.create(name), most)
            # At once, so that nobody who is cancelled leaves it behind.
            return Source(capture.sink.reopen(), readers)

    async def list(
        self, caller: Principal, page: PageRequest, *, name: str | None = None, template: str | None = None
    ) -> Page[Snapshot]:
        """See ``Snapshots``."""
        owner_id = None if caller.is_admin else caller.user_id
        return await self._store.list(owner_id, page, name=name, template=template)

    async def get(self, caller: Principal, snapshot_id: SnapshotId) -> Snapshot:
        """See ``Snapshots``."""
        row = await self._store.find(snapshot_id)
        if row is None or (row.owner_id != caller.user_id and not caller.is_admin):
            raise snapshot_not_found(snapshot_id)
        return row

    async def delete(self, caller: Principal, snapshot_id: SnapshotId) -> Snapshot:
        """See ``Snapshots``."""
        row = await self.get(caller, snapshot_id)
        check_can_write(caller)
        if not await self._store.delete(snapshot_id):
            raise snapshot_not_found(snapshot_id)
        if row.server_id == self._server_id:
            try:
                await self._tasks.finish(asyncio.to_thread(self._files.delete, [snapshot_id]), f"remove {snapshot_id}")
            except OSError as error:
                _log.warning("file of a snapshot not removed", snapshot_id=snapshot_id, reason=error.strerror)
        return row

    async def open(self, row: Snapshot) -> Source:
        """Its file, for an environment that is to begin with it.

        Raises ``SnapshotElsewhere``, ``SnapshotUnreadable``.
        """
        if row.server_id != self._server_id:
            raise SnapshotElsewhere(
                f"Snapshot {row.snapshot_id} is on another server ({row.server_id}); ask that one",
                {"server_id": row.server_id},
            )
        try:
            descriptor = await self._tasks.finish(
                asyncio.to_thread(self._files.open, row.snapshot_id), f"open {row.snapshot_id}"
            )
        except OSError as error:
            raise SnapshotUnreadable(
                f"The file of snapshot {row.snapshot_id} cannot be read: {error.strerror}; delete the snapshot"
            ) from error
        return Source(descriptor, sha256=row.sha256)

    async def _find_room(self, owner_id: UserId) -> tuple[SnapshotUse, int]:
        """The most that the user may have, and what is left of it for one. Raises ``TooManySnapshots``."""
        allowed = await self._quotas.allowed(owner_id)
        most = SnapshotUse(
            _NO_BOUND if allowed.snapshots is None else allowed.snapshots,
            _NO_BOUND if allowed.snapshot_bytes is None else allowed.snapshot_bytes,
        )
        used = await self._store.measure(owner_id)
        if used.count >= most.count or used.size_bytes >= most.size_bytes:
            raise _too_many(used, most)
        return most, min(self._settings.max_snapshot_bytes, most.size_bytes - used.size_bytes)

    def _row(self, snapshot_id: SnapshotId, live: LiveEnvironment, wanted: NewSnapshot, told: Captured) -> Snapshot:
        row = live.row
        return Snapshot(
            snapshot_id=snapshot_id,
            owner_id=row.owner_id,
            environment_id=row.environment_id,
            name=row.name if wanted.name is None else wanted.name,
            template=row.template,
            isolation=row.isolation,
            created_at=self._clock.now(),
            size_bytes=told.size_bytes,
            disk_bytes=told.disk_bytes,
            files=told.files,
            skipped=told.skipped,
            is_consistent=told.is_consistent,
            sha256=b"",
            server_id=self._server_id,
            metadata=dict(wanted.metadata or {}),
        )

    async def _keep(self, row: Snapshot, capture: Capture, most: SnapshotUse) -> Snapshot:
        try:
            return await self._finish(row, capture, most)
        finally:
            self._coming.discard(row.snapshot_id)

    async def _finish(self, row: Snapshot, capture: Capture, most: SnapshotUse) -> Snapshot:
        try:
            digest = await asyncio.to_thread(capture.sink.finish)
        except OSError as error:
            await asyncio.to_thread(capture.sink.discard)
            raise cannot_write(error) from error
        row = replace(row, sha256=digest)
        # When it is not known whether the row is there, the file is: it goes when no row turns out to be about it.
        if not await self._store.insert(row, most):
            await asyncio.to_thread(capture.sink.discard)
            raise too_large(most.size_bytes)
        _log.info("snapshot kept", snapshot_id=row.snapshot_id, environment_id=row.environment_id, bytes=row.size_bytes)
        return row

    # Removing what is over

    async def prepare(self) -> None:
        """Remove what an earlier process has left half done. Raises ``StoreUnavailable``."""
        try:
            await asyncio.to_thread(self._files.clear)
            await self._sweep_orphans()
        except OSError as error:
            raise StoreUnavailable(f"The folder of snapshots cannot be used: {error.strerror}") from error

    async def run(self, interval_s: float = _INTERVAL_S) -> None:
        """Sweep every ``interval_s`` seconds, until cancelled. What is away is tried again next time."""
        await go_round(self.sweep, interval_s, _log, "snapshots not pruned")

    async def sweep(self) -> int:
        """Remove what is older than may be, and files without a row. Answers how many of both.

        Raises ``StoreUnavailable``, ``OSError``.
        """
        removed = 0
        retention_s = self._settings.snapshot_retention_s
        if retention_s:
            before = self._clock.now() - timedelta(seconds=retention_s)
            while gone := await self._store.prune(before, _BATCH):
                removed += gone
        removed += await self._sweep_orphans()
        if removed:
            _log.info("snapshots pruned", count=removed)
        return removed

    async def _sweep_orphans(self) -> int:
        removed = 0
        there = sorted(await asyncio.to_thread(self._files.list))
        # As of now: what gets its row while the rows are looked at was still coming.
        coming = frozenset(self._coming)
        for start in range(0, len(there), _BATCH):
            found = await self._store.find_orphans(there[start : start + _BATCH])
            orphans = [snapshot_id for snapshot_id in found if snapshot_id not in coming]
            await asyncio.to_thread(self._files.delete, orphans)
            removed += len(orphans)
        return removed


def check_can_copy(live: LiveEnvironment) -> None:
    """Raises ``SnapshotUnavailable`` for a class whose files are not apart from the machine's."""
    isolation = live.row.isolation
    if isolation is Isolation.PROCESS:
        raise SnapshotUnavailable(
            f"Environments of isolation class {isolation} have no snapshots and no copies",
            {"isolation": isolation.value},
        )


def check_fits(row: Snapshot, template: str, limits: Limits, isolation: Isolation) -> None:
    """Raises ``SnapshotUnfit`` when an environment like this cannot begin with the snapshot."""
    if template != row.template:
        raise SnapshotUnfit(
            f"Snapshot {row.snapshot_id} is of template {row.template}, not of {template}; leave the template out",
            {"template": row.template},
        )
    if isolation is Isolation.PROCESS:
        raise SnapshotUnfit(
            f"Environments of isolation class {isolation} cannot begin with a snapshot; ask for another class",
            {"isolation": isolation.value},
        )
    if row.disk_bytes > limits.disk_bytes:
        least = -(-row.disk_bytes // MIB)
        raise SnapshotUnfit(
            f"The files of snapshot {row.snapshot_id} take {least} MiB, and the environment would have "
            f"{limits.disk_bytes // MIB}; ask for disk_mb of more than {least}",
            {"disk_mb": least},
        )


def snapshot_not_found(snapshot_id: SnapshotId) -> SnapshotNotFound:
    """The one answer for what is unknown, deleted or another user's."""
    return SnapshotNotFound(f"You have no snapshot {snapshot_id}; GET the list of snapshots for those you have")


def _too_many(used: SnapshotUse, most: SnapshotUse) -> TooManySnapshots:
    if used.count >= most.count:
        what, limit, has = "snapshots", most.count, used.count
    else:
        what, limit, has = "bytes in snapshots", most.size_bytes, used.size_bytes
    return TooManySnapshots(
        f"You have {has} {what}, and {limit} is the most allowed; delete one",
        {"limit": limit, "used": has},
        retry_after_s=_RETRY_AFTER_S,
    )
