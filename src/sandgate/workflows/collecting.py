"""Takes what an attempt left in its folder out of its sandbox, and puts it on the disk."""

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sandgate.config.settings import Settings
from sandgate.core.artifact import Artifact, make_artifact_id
from sandgate.core.clock import Clock
from sandgate.core.errors import MechanismFault, RequestRefused, SandboxFailed, StoreUnavailable
from sandgate.core.execution import ErrorReport, ExecutionRequest, Termination
from sandgate.core.intake import Intake
from sandgate.core.run import StepResult, StepRun, StepStatus
from sandgate.core.states import ExecutionStatus
from sandgate.core.tidying import removal_of, remove
from sandgate.sandbox.archive import ArchiveCaps, ArchiveError, ArchiveParser, FileBegins, archive_code
from sandgate.sandbox.base import Execute, RunningExecution
from sandgate.store.base import ArtifactStore, PackedFile, PackFolder, PackSink
from sandgate.telemetry.log import get_logger
from sandgate.workflows.masking import Masker

_READ_LIMIT_S = 60.0
_STORE_PAUSE_S = 0.5
# A disk that is full gets room again, as a rule, and the step is not to blame. Its sandbox waits, too.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL_PAUSE_S, _LONGEST_FULL_S = 0.5, 600.0
_UNREACHABLE = frozenset({ExecutionStatus.CANCELLED, ExecutionStatus.LOST})

_log = get_logger(__name__)


class RunRoom:
    """How much more a run may keep; one for each run that a process works on."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._known = False
        self._count = 0
        self._size_bytes = 0

    async def load(self, store: ArtifactStore, row: StepRun) -> None:
        """Count what the run has kept already. Raises ``StoreUnavailable``."""
        async with self._lock:
            if not self._known:
                kept = await store.measure(row.run_id)
                self._count, self._size_bytes, self._known = kept.count, kept.size_bytes, True

    def take(self, settings: Settings, count: int, size_bytes: int) -> None:
        """Use some of it. Raises ``ArchiveError``."""
        if self._count + count > settings.max_run_artifacts:
            raise ArchiveError(f"the run would keep more than {settings.max_run_artifacts} files")
        if self._size_bytes + size_bytes > settings.max_run_artifact_bytes:
            raise ArchiveError(f"the run would keep more than {settings.max_run_artifact_bytes} bytes")
        self._count += count
        self._size_bytes += size_bytes

    def give_back(self, count: int, size_bytes: int) -> None:
        """What was taken is not kept after all."""
        self._count -= count
        self._size_bytes -= size_bytes


@dataclass(frozen=True, slots=True)
class Collecting:
    """What collecting needs, the same for all attempts."""

    store: ArtifactStore
    files: PackFolder
    clock: Clock
    settings: Settings

    def of(self, row: StepRun, room: RunRoom, folder: str, masker: Masker) -> "Leftovers":
        """What one attempt will leave."""
        return Leftovers(self, row, room, folder, masker)


class Leftovers:
    """What one attempt leaves: ``collect`` while its sandbox is there, then ``added_to`` its result."""

    def __init__(self, needs: Collecting, row: StepRun, room: RunRoom, folder: str, masker: Masker) -> None:
        self._needs = needs
        self._row = row
        self._room = room
        self._folder = folder
        self._masker = masker
        self._artifacts: tuple[Artifact, ...] = ()
        self._problem: str | None = None
        self._loss: str | None = None
        self._execute: Execute | None = None

    async def collect(self, execute: Execute, ended: Termination) -> None:
        """Take everything, or nothing and note why. It stays where it is, too, and can be taken again."""
        if not ended.left_files or ended.status in _UNREACHABLE:
            return
        self._execute = execute
        try:
            await self._load_room()
            self._artifacts = await self._take_when_there_is_room(execute)
        except ArchiveError as problem:
            self._problem = self._masker.mask(f"The files in $SANDGATE_ARTIFACTS cannot be kept: {problem}")
        except MechanismFault as fault:
            self._loss = f"The sandbox ended before the files in $SANDGATE_ARTIFACTS were taken: {fault.message}"
        except RequestRefused as refusal:
            self._problem = f"The files in $SANDGATE_ARTIFACTS could not be taken: {refusal.message}"
        except OSError as fault:
            _log.error("artifacts not kept", run_id=self._row.run_id, reason=fault.strerror)
            self._problem = f"The server could not keep the files in $SANDGATE_ARTIFACTS: {fault.strerror}"

    async def _take_when_there_is_room(self, execute: Execute) -> tuple[Artifact, ...]:
        """Raises ``OSError`` when the disk is full for too long."""
        clock = self._needs.clock
        ends_at = clock.monotonic() + _LONGEST_FULL_S
        while True:
            try:
                return await self._take(execute)
            except OSError as fault:
                if fault.errno not in _FULL or clock.monotonic() >= ends_at:
                    raise
                _log.warning("artifacts not kept yet", run_id=self._row.run_id, reason=fault.strerror)
            await asyncio.sleep(_FULL_PAUSE_S)

    async def _load_room(self) -> None:
        """Until the database is there: without it the result could not be written either."""
        while True:
            try:
                return await self._room.load(self._needs.store, self._row)
            except StoreUnavailable as fault:
                _log.warning("artifacts not counted yet", run_id=self._row.run_id, reason=fault.message)
            await asyncio.sleep(_STORE_PAUSE_S)

    async def remove(self) -> None:
        """What was taken is kept for good, or never will be: where more is to run, nothing of it stays."""
        if self._execute is not None:
            await remove(self._execute, removal_of(self._folder))

    def added_to(self, result: StepResult) -> StepResult:
        """The result with what was kept. A step that succeeded fails when it left what could not be kept.

        When that went with the sandbox, the attempt is lost.
        """
        if self._problem is None and self._loss is None:
            return replace(result, artifacts=self._artifacts)
        if result.status is not StepStatus.SUCCEEDED:
            return result
        if self._loss is not None:
            error, reason = ErrorReport("Lost", self._loss, ""), "lost"
        else:
            error, reason = ErrorReport("ArtifactsNotKept", self._problem or "", ""), "failed"
        return replace(result, status=StepStatus.FAILED, reason=reason, outputs=None, error=error)

    async def _take(self, execute: Execute) -> tuple[Artifact, ...]:
        settings = self._needs.settings
        caps = ArchiveCaps(settings.max_step_artifacts, settings.max_artifact_bytes, settings.max_step_artifact_bytes)
        pack = await asyncio.to_thread(self._needs.files.create, self._row.run_id)
        taken = _RoomTaken(self._room, settings)
        try:
            files = await self._receive(execute, caps, pack, taken)
        except BaseException:
            taken.give_back()
            await asyncio.shield(asyncio.to_thread(pack.discard))
            raise
        if not files:
            await asyncio.to_thread(pack.discard)
        at = self._needs.clock.now()
        return tuple(self._describe(file, pack.name, at) for file in files)

    async def _receive(
        self, execute: Execute, caps: ArchiveCaps, pack: PackSink, taken: "_RoomTaken"
    ) -> Sequence[PackedFile]:
        intake, parser = Intake(), ArchiveParser(caps)
        execution = execute(ExecutionRequest(archive_code(self._folder, caps), _READ_LIMIT_S, sink=intake))
        # An execution that never gets to run has no output that could end.
        closing = asyncio.create_task(_close_after(execution, intake), name=f"artifacts of {self._row.run_id}")
        try:
            while data := await intake.read():
                parts = [part.path if isinstance(part, FileBegins) else part for part in parser.feed(data)]
                taken.add(parts)
                if parts:
                    await asyncio.to_thread(pack.write, parts)
            ended = await execution.wait()
            if ended.status is ExecutionStatus.LOST:
                raise SandboxFailed("reading them ended as lost")
            if ended.status is not ExecutionStatus.COMPLETED:
                raise ArchiveError(f"reading them ended as {ended.status}")
            parser.finish()
            return await asyncio.to_thread(pack.finish)
        finally:
            execution.cancel()
            closing.cancel()

    def _describe(self, file: PackedFile, pack: str, at: datetime) -> Artifact:
        row = self._row
        return Artifact(
            artifact_id=make_artifact_id(),
            run_id=row.run_id,
            step=row.step,
            item=row.item,
            attempt=row.attempt,
            path=self._masker.mask(file.path),
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            created_at=at,
            pack=pack,
            offset_bytes=file.offset_bytes,
        )


class _RoomTaken:
    """What one attempt has used of its run's room so far."""

    def __init__(self, room: RunRoom, settings: Settings) -> None:
        self._room = room
        self._settings = settings
        self._count = 0
        self._size_bytes = 0

    def add(self, parts: Sequence[str | bytes]) -> None:
        """Use as much as these need. Raises ``ArchiveError``."""
        count = sum(isinstance(part, str) for part in parts)
        size_bytes = sum(len(part) for part in parts if isinstance(part, bytes))
        self._room.take(self._settings, count, size_bytes)
        self._count += count
        self._size_bytes += size_bytes

    def give_back(self) -> None:
        """Nothing of it is kept."""
        self._room.give_back(self._count, self._size_bytes)


async def _close_after(execution: RunningExecution, intake: Intake) -> None:
    await execution.wait()
    intake.close()
