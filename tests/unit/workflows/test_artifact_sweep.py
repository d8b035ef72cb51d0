"""What is over of artifacts is removed, rows and bytes."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sandgate.config.settings import Settings
from sandgate.core.artifact import Artifact, make_artifact_id
from sandgate.core.clock import ManualClock
from sandgate.core.ids import RunId, make_run_id
from sandgate.core.run import Run, RunStatus
from sandgate.store.artifact_files import ArtifactFiles
from sandgate.store.base import Kept, Pack, RunChange
from sandgate.store.sql_store import SqlStore
from sandgate.workflows.artifacts import ArtifactService
from tests.contract.store.records import a_run, a_workflow
from tests.sqlite_store import database_path, empty_database, store

__all__ = ["database_path", "empty_database", "store"]


class Shelf:
    """A service on a store and a folder, and what it keeps."""

    def __init__(self, store: SqlStore, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.clock = ManualClock()
        self.files = ArtifactFiles(folder)
        settings = Settings(artifact_retention_s=1000, max_kept_artifact_bytes_per_user=1024**2)
        self.service = ArtifactService(store, self.files, self.clock, settings, batch=2)

    async def run(self) -> Run:
        """A run that is kept."""
        workflow = a_workflow()
        await self.store.workflows.insert(workflow)
        run = a_run(workflow.workflow_id)
        await self.store.runs.insert(RunChange(run))
        return run

    def pack(self, run_id: RunId) -> str:
        """A pack on the disk, as old as the clock says."""
        pack = self.files.create(run_id)
        pack.write(["x", b"12"])
        pack.finish()
        at = self.clock.now().timestamp()
        os.utime(self.folder / run_id, (at, at))
        return pack.name

    async def keep(self, run: Run, size_bytes: int = 2) -> str:
        """A pack, and the row of what is said to be in it."""
        pack = self.pack(run.run_id)
        row = Artifact(make_artifact_id(), run.run_id, "a", None, 1, "x", size_bytes, b"", self.clock.now(), pack, 0)
        await self.store.runs.apply(RunChange(run, artifacts=[row]))
        return pack

    def packs(self) -> set[str]:
        """What is on the disk."""
        return {path.name for path in self.folder.glob("*/*")}


@pytest.fixture
def shelf(store: SqlStore, tmp_path: Path) -> Shelf:
    """An empty one."""
    return Shelf(store, tmp_path / "artifacts")


async def test_what_is_too_old_goes(shelf: Shelf) -> None:
    """Pack by pack, in a run that keeps newer ones too; a second look finds nothing."""
    assert await shelf.service.sweep() == 0
    run = await shelf.run()
    old = [await shelf.keep(run) for _ in range(3)]
    shelf.clock.advance(999)
    new = await shelf.keep(run)
    assert await shelf.service.sweep() == 0
    shelf.clock.advance(2)
    assert await shelf.service.sweep() == 3
    assert shelf.packs() == {new}
    assert not shelf.packs() & set(old)
    assert await shelf.store.artifacts.measure(run.run_id) == Kept(1, 2)
    assert await shelf.service.sweep() == 0


async def test_the_oldest_goes_of_who_keeps_too_much(shelf: Shelf) -> None:
    """In as many small writes as it takes, and only of runs that have ended."""
    live, ended = await shelf.run(), await shelf.run()
    used = await shelf.keep(live, 500_000)
    packs = sorted([await shelf.keep(ended, 200_000) for _ in range(6)])
    over = replace(ended, status=RunStatus.SUCCEEDED, finished_at=shelf.clock.now())
    assert await shelf.store.runs.apply(RunChange(over))
    assert await shelf.service.sweep() == 4
    assert shelf.packs() == {used, *packs[4:]}
    await shelf.keep(live, 1024**2)
    assert await shelf.service.sweep() == 2
    assert len(shelf.packs()) == 2


async def test_what_belongs_to_no_run_goes(shelf: Shelf) -> None:
    """Of runs that were removed, however new, and in any number; what is no folder of a run stays."""
    kept = await shelf.keep(await shelf.run())
    for _round in range(5):
        shelf.pack(make_run_id())
    (shelf.folder / "lost+found").mkdir()
    assert await shelf.service.sweep() == 5
    assert shelf.packs() == {kept}
    assert (shelf.folder / "lost+found").is_dir()


async def test_what_no_result_ever_named_goes_with_time(shelf: Shelf) -> None:
    """A pack that was being written when its server died."""
    run = await shelf.run()
    shelf.pack(run.run_id)
    assert await shelf.service.sweep() == 0
    shelf.clock.advance(1001)
    assert await shelf.service.sweep() == 1
    assert list(shelf.folder.iterdir()) == []


async def test_runs_that_are_removed_take_what_they_left_along(shelf: Shelf) -> None:
    """At once, when whoever removes them says so."""
    run, other = await shelf.run(), await shelf.run()
    for one in (run, other):
        await shelf.keep(one)
    await shelf.service.forget_runs([run.run_id, make_run_id()])
    assert await shelf.store.artifacts.measure(run.run_id) == Kept(0, 0)
    assert [path.name for path in shelf.folder.iterdir()] == [other.run_id]


async def test_a_new_pack_is_not_lost_to_the_removal_of_an_old_one(shelf: Shelf) -> None:
    """The folder of a run goes with its last pack, and comes again with the next."""
    run_id = make_run_id()
    first = shelf.pack(run_id)
    shelf.files.delete([Pack(run_id, first), Pack(run_id, "pack-gone")])
    assert not (shelf.folder / run_id).exists()
    again = shelf.pack(run_id)
    assert shelf.packs() == {again}
    assert (shelf.folder / run_id).stat().st_mode & 0o777 == 0o700
