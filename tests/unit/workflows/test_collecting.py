"""Taking files out of a sandbox that lies, stalls and dies."""

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from sandgate.config.settings import Settings
from sandgate.core.clock import ManualClock
from sandgate.core.errors import SandboxFailed, StoreUnavailable
from sandgate.core.execution import ErrorReport, ExecutionRequest, Termination, Usage
from sandgate.core.ids import RunId
from sandgate.core.run import StepResult, StepRun, StepStatus
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.base import Execute
from sandgate.store.artifact_files import ArtifactFiles, PackWriter
from sandgate.store.base import ArtifactStore, Kept
from sandgate.workflows import collecting
from sandgate.workflows.collecting import Collecting, Leftovers, RunRoom
from sandgate.workflows.masking import Masker
from tests.unit.sandbox.test_archive import end, record

ROW = StepRun(RunId("run-1"), "a", 2, StepStatus.RUNNING, attempt=3)
GOOD = record(b"F", b"x") + record(b"D", b"12") + record(b"F", b"y") + end(2)
DONE = StepResult(StepStatus.SUCCEEDED, "succeeded", outputs={}, stdout="out")


def ended(status: ExecutionStatus = ExecutionStatus.COMPLETED, *, left_files: bool = True) -> Termination:
    """An execution that is over."""
    return Termination(status, 0, b"", b"", False, False, None, 0.1, Usage(1, 1), left_files=left_files)


@dataclass
class FakeExecution:
    """Writes what it was given and ends in the way it was told, or when it is cancelled."""

    request: ExecutionRequest
    pieces: Sequence[bytes]
    end: ExecutionStatus | None
    cancelled: bool = False
    result: "asyncio.Future[Termination]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def write(self) -> None:
        """Give all pieces to the sink, each when there is room."""
        assert self.request.sink is not None
        room = asyncio.Event()
        for piece in self.pieces:
            room.clear()
            if not self.request.sink.put(piece, room.set):
                await room.wait()
        if self.end is not None:
            self.request.sink.close()
            self.finish(self.end)

    def finish(self, status: ExecutionStatus) -> None:
        """The end, unless there was one."""
        if not self.result.done():
            self.result.set_result(ended(status))

    async def wait(self) -> Termination:
        """How it ended."""
        return await asyncio.shield(self.result)

    def cancel(self) -> None:
        """End it now."""
        self.cancelled = True
        self.finish(ExecutionStatus.CANCELLED)


class FakeSandbox:
    """Answers every execution in one way."""

    def __init__(self, *pieces: bytes, end: ExecutionStatus | None = ExecutionStatus.COMPLETED) -> None:
        self.pieces = pieces
        self.end = end
        self.executions: list[FakeExecution] = []
        self._tasks: list[asyncio.Task[None]] = []

    def execute(self, request: ExecutionRequest) -> FakeExecution:
        """Begin."""
        execution = FakeExecution(request, self.pieces, self.end)
        self.executions.append(execution)
        self._tasks.append(asyncio.create_task(execution.write()))
        return execution


class Measured:
    """A store that knows how much a run has kept."""

    def __init__(self, kept: Kept | None = None) -> None:
        self.kept = kept or Kept(0, 0)
        self.asked = 0

    async def measure(self, _run_id: RunId) -> Kept:
        """How much."""
        self.asked += 1
        return self.kept


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Leftovers]:
    """Makes what collects one attempt's files, with settings and with room of its run."""

    def made(room: RunRoom | None = None, store: Measured | None = None, **settings: Any) -> Leftovers:
        needs = Collecting(
            cast(ArtifactStore, store or Measured()),
            ArtifactFiles(tmp_path / "artifacts"),
            ManualClock(),
            Settings(**settings),
        )
        return needs.of(ROW, room or RunRoom(), ".step-1", Masker(["hunter2-hunter2"]))

    return made


Make = Callable[..., Leftovers]


async def _collect(leftovers: Leftovers, sandbox: FakeSandbox, termination: Termination | None = None) -> StepResult:
    await leftovers.collect(cast(Execute, sandbox.execute), termination or ended())
    return leftovers.added_to(DONE)


def _packs(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "artifacts").glob("*/*"))


async def test_what_comes_is_kept(make: Make, tmp_path: Path) -> None:
    """Each file with its place in one pack, the attempt that left it, and its digest."""
    result = await _collect(make(), FakeSandbox(GOOD[:7], GOOD[7:]))
    (pack,) = _packs(tmp_path)
    assert pack.read_bytes() == b"12"
    first, second = result.artifacts
    assert (first.path, first.size_bytes, first.offset_bytes, second.path, second.size_bytes) == ("x", 2, 0, "y", 0)
    assert (first.step, first.item, first.attempt, first.pack) == ("a", 2, 3, pack.name)
    assert first.sha256 == hashlib.sha256(b"12").digest()
    assert replace(result, artifacts=()) == DONE


async def test_nothing_is_asked_for_where_nothing_was_left(make: Make, tmp_path: Path) -> None:
    """Nor of an attempt whose sandbox is gone, or whose user wants an end of it."""
    sandbox = FakeSandbox(GOOD)
    assert await _collect(make(), sandbox, ended(left_files=False)) == DONE
    for status in (ExecutionStatus.CANCELLED, ExecutionStatus.LOST):
        assert await _collect(make(), sandbox, ended(status)) == DONE
    assert sandbox.executions == []
    assert await _collect(make(), FakeSandbox(end(0))) == DONE
    assert _packs(tmp_path) == []


@pytest.mark.parametrize(
    ("sandbox", "problem"),
    [
        (lambda: FakeSandbox(GOOD, b"more"), "in the form that was agreed|to their end"),
        (lambda: FakeSandbox(GOOD[:-1]), "to their end"),
        (lambda: FakeSandbox(record(b"E", b"no hunter2-hunter2")), r"cannot be kept: no \*\*\*"),
        (lambda: FakeSandbox(GOOD, end=ExecutionStatus.FAILED), "ended as failed"),
        (lambda: FakeSandbox(GOOD, end=ExecutionStatus.TIMED_OUT), "ended as timed_out"),
        (lambda: FakeSandbox(record(b"F", b"x") + record(b"D", length=10**6), end=None), "larger than 1000 bytes"),
        (lambda: FakeSandbox(*([record(b"F", b"x")] + [record(b"D", b"z" * 100)] * 50), end=None), "larger than 1000"),
    ],
)
async def test_what_cannot_be_taken_fails_the_step(
    make: Make, tmp_path: Path, sandbox: Callable[[], FakeSandbox], problem: str
) -> None:
    """At once, with nothing kept, and with the reader ended; a step that had failed keeps its own error."""
    used = sandbox()
    leftovers = make(max_artifact_bytes=1000)
    result = await _collect(leftovers, used)
    assert (result.status, result.reason, result.outputs, result.stdout) == (StepStatus.FAILED, "failed", None, "out")
    assert result.error is not None
    assert result.error.name == "ArtifactsNotKept"
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(result.error.value)
    assert used.executions[0].cancelled
    assert _packs(tmp_path) == []
    failed = StepResult(StepStatus.FAILED, "failed", error=ErrorReport("E", "e", ""))
    assert leftovers.added_to(failed) == failed


async def test_files_that_went_with_their_sandbox_lose_the_attempt(make: Make, tmp_path: Path) -> None:
    """Nobody knows what was in them; a step that had failed keeps its own error."""
    leftovers = make()
    result = await _collect(leftovers, FakeSandbox(GOOD[:7], end=ExecutionStatus.LOST))
    assert (result.status, result.reason, result.outputs) == (StepStatus.FAILED, "lost", None)
    assert result.error is not None
    assert result.error.name == "Lost"
    assert _packs(tmp_path) == []
    failed = StepResult(StepStatus.FAILED, "failed", error=ErrorReport("E", "e", ""))
    assert leftovers.added_to(failed) == failed


async def test_a_database_that_is_away_is_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code is not run again for it."""
    monkeypatch.setattr("sandgate.workflows.collecting._STORE_PAUSE_S", 0.0)

    class Away(Measured):
        async def measure(self, run_id: RunId) -> Kept:
            kept = await super().measure(run_id)
            if self.asked < 3:
                raise StoreUnavailable("away")
            return kept

    store = Away()
    assert len((await _collect(make(store=store), FakeSandbox(GOOD))).artifacts) == 2
    assert store.asked == 3


async def test_a_run_keeps_so_much(make: Make) -> None:
    """All attempts of it together, with what it had kept before; what was not kept in the end does not count."""
    room, store = RunRoom(), Measured(Kept(0, 3))
    limits = {"max_run_artifact_bytes": 8, "max_run_artifacts": 4}
    bad = FakeSandbox(GOOD[:-1])
    for _round in range(3):
        assert (await _collect(make(room, store, **limits), bad)).status is StepStatus.FAILED
    for wanted in (StepStatus.SUCCEEDED, StepStatus.SUCCEEDED, StepStatus.FAILED):
        result = await _collect(make(room, store, **limits), FakeSandbox(GOOD))
        assert result.status is wanted
    assert "the run would keep more than 4 files" in (result.error or ErrorReport("", "", "")).value
    assert store.asked == 1
    result = await _collect(make(RunRoom(), store, **limits), FakeSandbox(record(b"F", b"x"), record(b"D", b"x" * 6)))
    assert "the run would keep more than 8 bytes" in (result.error or ErrorReport("", "", "")).value


async def test_a_step_that_is_cancelled_meanwhile_keeps_nothing(make: Make, tmp_path: Path) -> None:
    """Its reader is ended, and its room is given back."""
    room, sandbox = RunRoom(), FakeSandbox(GOOD[:-5], end=None)
    leftovers = make(room, max_run_artifacts=2)
    task = asyncio.create_task(leftovers.collect(cast(Execute, sandbox.execute), ended()))
    while not _packs(tmp_path) or not _packs(tmp_path)[0].stat().st_size:  # noqa: ASYNC110 - a thread writes it
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sandbox.executions[0].cancelled
    assert _packs(tmp_path) == []
    assert (await _collect(make(room, max_run_artifacts=2), FakeSandbox(GOOD))).status is StepStatus.SUCCEEDED


async def test_a_flood_waits_until_it_is_put_away(make: Make, tmp_path: Path) -> None:
    """However fast the sandbox writes, no more than about a megabyte is held in memory."""
    piece = record(b"D", b"z" * 300_000)
    result = await _collect(make(), FakeSandbox(record(b"F", b"x"), *[piece] * 30, end(1)))
    assert result.artifacts[0].size_bytes == 9_000_000


async def test_faults_of_the_machine_are_told_apart(make: Make, tmp_path: Path) -> None:
    """A sandbox that died, and a disk that cannot be written."""

    class Dead(FakeSandbox):
        def execute(self, request: ExecutionRequest) -> FakeExecution:
            raise SandboxFailed("it died")

    assert "it died" in ((await _collect(make(), Dead())).error or ErrorReport("", "", "")).value
    shutil.rmtree(tmp_path / "artifacts")
    (tmp_path / "artifacts").write_text("in the way")
    error = (await _collect(make(), FakeSandbox(GOOD))).error
    assert error is not None
    assert error.value.startswith("The server could not keep")


@pytest.mark.parametrize(("patience_s", "error"), [(60.0, None), (0.0, "ArtifactsNotKept")])
async def test_a_full_disk_is_waited_for(
    make: Make, monkeypatch: pytest.MonkeyPatch, patience_s: float, error: str | None
) -> None:
    """The step is not to blame, and what it left is still there; when it takes too long, it fails and says why."""
    monkeypatch.setattr(collecting, "_FULL_PAUSE_S", 0.0)
    monkeypatch.setattr(collecting, "_LONGEST_FULL_S", patience_s)
    write, tries = PackWriter.write, iter([errno.ENOSPC, errno.EDQUOT])

    def write_or_fail(pack: PackWriter, parts: Iterable[str | bytes]) -> None:
        if number := next(tries, None):
            raise OSError(number, os.strerror(number))
        write(pack, parts)

    monkeypatch.setattr(PackWriter, "write", write_or_fail)
    result = await _collect(make(), FakeSandbox(GOOD))
    assert (None if result.error is None else result.error.name) == error
    assert len(result.artifacts) == (0 if error else 2)
