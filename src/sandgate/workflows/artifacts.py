"""What steps left: listing, reading, and removing what is over."""

import asyncio
import os
from collections.abc import Sequence
from datetime import timedelta

from sandgate.config.settings import Settings
from sandgate.core.artifact import Artifact, ArtifactId
from sandgate.core.clock import Clock
from sandgate.core.errors import ArtifactNotFound
from sandgate.core.ids import RunId
from sandgate.core.lookback import Lookback
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal
from sandgate.store.base import Pack, PackFolder, Store
from sandgate.telemetry.log import get_logger
from sandgate.telemetry.rounds import go_round
from sandgate.workflows.refusals import artifact_not_found, run_not_found

# Small batches, so that no write of a user waits for long behind one.
_BATCH = 200
_INTERVAL_S = 300.0

_log = get_logger(__name__)


class OpenArtifact:
    """An artifact whose bytes can be read; ``close`` comes last."""

    def __init__(self, artifact: Artifact, descriptor: int) -> None:
        self.artifact = artifact
        self._descriptor = descriptor
        self._reading: asyncio.Future[bytes] | None = None

    async def read(self, offset: int, length: int) -> bytes:
        """So many bytes from there on, fewer at the end. Raises ``OSError``."""
        length = min(length, self.artifact.size_bytes - offset)
        offset += self.artifact.offset_bytes
        self._reading = asyncio.get_running_loop().run_in_executor(None, os.pread, self._descriptor, length, offset)
        return await asyncio.shield(self._reading)

    def close(self) -> None:
        """Let go of the file; of a reader that was cancelled, once its thread has come back."""
        if self._reading is None or self._reading.done():
            os.close(self._descriptor)
        else:
            self._reading.add_done_callback(self._close_after)

    def _close_after(self, reading: "asyncio.Future[bytes]") -> None:
        if not reading.cancelled():
            reading.exception()
        os.close(self._descriptor)


class ArtifactService:
    """See :class:`sandgate.workflows.base.Artifacts`."""

    def __init__(self, store: Store, files: PackFolder, clock: Clock, settings: Settings, batch: int = _BATCH) -> None:
        self._store = store
        self._files = files
        self._clock = clock
        self._retention = timedelta(seconds=settings.artifact_retention_s)
        self._most_bytes = settings.max_kept_artifact_bytes_per_user
        self._batch = batch
        self._left = Lookback(clock)

    async def list(
        self, caller: Principal, run_id: RunId, page: PageRequest, *, step: str | None = None
    ) -> Page[Artifact]:
        """See ``Artifacts``."""
        await self._check_run(caller, run_id)
        return await self._store.artifacts.list(run_id, page, step=step)

    async def open(self, caller: Principal, run_id: RunId, artifact_id: ArtifactId) -> OpenArtifact:
        """See ``Artifacts``."""
        await self._check_run(caller, run_id)
        artifact = await self._store.artifacts.find(run_id, artifact_id)
        if artifact is None:
            raise artifact_not_found(artifact_id)
        try:
            descriptor = await asyncio.to_thread(self._files.open, Pack(run_id, artifact.pack))
        except FileNotFoundError:
            raise ArtifactNotFound(
                f"The file of artifact {artifact_id} is not on this server; ask the one that ran the step"
            ) from None
        return OpenArtifact(artifact, descriptor)

    async def _check_run(self, caller: Principal, run_id: RunId) -> None:
        run = await self._store.runs.find(run_id)
        if run is None or not (caller.is_admin or run.owner_id == caller.user_id):
            raise run_not_found(run_id)

    # Retention

    async def forget_runs(self, run_ids: Sequence[RunId]) -> None:
        """Remove all that these runs left, because the runs go. Raises ``StoreUnavailable``, ``OSError``."""
        await self._store.artifacts.delete_of_runs(run_ids)
        await asyncio.to_thread(self._files.delete_runs, run_ids)

    async def run(self, interval_s: float = _INTERVAL_S) -> None:
        """Sweep every ``interval_s`` seconds, until cancelled. What is away is tried again next time."""
        await go_round(self.sweep, interval_s, _log, "artifacts not pruned", at_once=True)

    async def _prune_oldest(self) -> int:
        """Let each user keep so many bytes."""
        removed, since = 0, self._left.begin()
        while over := await self._store.artifacts.find_over(self._most_bytes, since):
            packs = [
                pack
                for owner_id, excess_bytes in over
                for pack in await self._store.artifacts.prune_oldest(owner_id, excess_bytes, self._batch)
            ]
            if not packs:
                # All that is left of it belongs to runs that have not ended.
                break
            await asyncio.to_thread(self._files.delete, packs)
            removed += len(packs)
        self._left.end(since)
        return removed

    async def sweep(self) -> int:
        """Remove what is over: too old, of a run that is gone, written for a result that never came, or the oldest of
        a user of whom more is kept than may be.

        Answers how many packs and folders of runs went. Raises ``StoreUnavailable``, ``OSError``.
        """
        before = self._clock.now() - self._retention
        removed = 0
        while packs := await self._store.artifacts.prune(before, self._batch):
            await asyncio.to_thread(self._files.delete, packs)
            removed += len(packs)
        removed += await self._prune_oldest()
        after = ""
        while found := await asyncio.to_thread(self._files.list_runs, after, self._batch):
            after = found[-1][0]
            orphans = set(await self._store.artifacts.find_orphans([run_id for run_id, _ in found]))
            over = [run_id for run_id, changed_at in found if run_id in orphans or changed_at < before]
            if over:
                await self.forget_runs(over)
                removed += len(over)
        if removed:
            _log.info("artifacts pruned", count=removed)
        return removed
