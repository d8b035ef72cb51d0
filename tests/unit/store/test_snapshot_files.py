"""Files of snapshots, on a disk."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from sandgate.core.ids import make_snapshot_id
from sandgate.store.snapshot_files import SnapshotFiles


@pytest.fixture
def files(tmp_path: Path) -> SnapshotFiles:
    """A folder that is not there yet."""
    return SnapshotFiles(tmp_path / "state" / "snapshots")


def test_a_file_is_whole_and_private_or_not_there(files: SnapshotFiles, tmp_path: Path) -> None:
    """It has its name when all of it is on the disk, and its digest is that of what was written."""
    assert list(files.list()) == []
    name = make_snapshot_id()
    writer = files.create(name)
    writer.write(b"one")
    assert list(files.list()) == []
    writer.write(b"two")
    assert writer.finish() == hashlib.sha256(b"onetwo").digest()
    assert list(files.list()) == [name]
    descriptor = files.open(name)
    assert os.read(descriptor, 100) == b"onetwo"
    assert os.fstat(descriptor).st_mode & 0o777 == 0o600
    os.close(descriptor)
    assert (tmp_path / "state" / "snapshots").stat().st_mode & 0o777 == 0o700
    files.delete([name, make_snapshot_id()])
    assert list(files.list()) == []
    with pytest.raises(FileNotFoundError):
        files.open(name)


def test_what_is_discarded_leaves_nothing(files: SnapshotFiles, tmp_path: Path) -> None:
    """Half written or finished; once more it changes nothing of what has come in its place."""
    folder = tmp_path / "state" / "snapshots"
    half, whole = files.create(make_snapshot_id()), files.create(make_snapshot_id())
    half.write(b"x")
    half.discard()
    whole.finish()
    other = os.open(folder, os.O_RDONLY)
    whole.discard()
    half.discard()
    os.fstat(other)
    os.close(other)
    assert os.listdir(folder) == []


def test_nobody_discards_what_is_being_finished(
    files: SnapshotFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gives up meanwhile waits for the end of it, and then there is nothing."""
    writer = files.create(make_snapshot_id())
    writer.write(b"x")
    discarding = threading.Thread(target=writer.discard)
    fsync = os.fsync
    was_waiting: list[bool] = []

    def fsync_while_another_discards(descriptor: int) -> None:
        if not was_waiting:
            discarding.start()
            # As long as it would take by far, if it did not wait.
            discarding.join(0.2)
            was_waiting.append(discarding.is_alive())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_while_another_discards)
    assert writer.finish() == hashlib.sha256(b"x").digest()
    discarding.join()
    assert was_waiting == [True]
    assert os.listdir(tmp_path / "state" / "snapshots") == []


def test_what_is_discarded_can_be_used_no_more(files: SnapshotFiles) -> None:
    """Whatever is tried says so, rather than hand out the number of another file."""
    writer = files.create(make_snapshot_id())
    writer.discard()
    for use in (lambda: writer.write(b"x"), lambda: writer.descriptor, writer.take_up, writer.finish, writer.reopen):
        with pytest.raises(OSError, match="Bad file descriptor"):
            use()


def test_what_is_nobody_elses_has_no_name(files: SnapshotFiles, tmp_path: Path) -> None:
    """It can be read by whoever wrote it."""
    writer = files.create(make_snapshot_id())
    writer.write(b"copy")
    descriptor = writer.reopen()
    assert os.listdir(tmp_path / "state" / "snapshots") == []
    assert os.pread(descriptor, 10, 0) == b"copy"
    os.close(descriptor)
    writer.discard()


def test_what_an_earlier_process_did_not_finish_is_cleared_away(files: SnapshotFiles, tmp_path: Path) -> None:
    """What it did finish stays."""
    files.clear()
    name = make_snapshot_id()
    files.create(name).finish()
    left = files.create(make_snapshot_id())
    left.write(b"half")
    SnapshotFiles(tmp_path / "state" / "snapshots").clear()
    assert os.listdir(tmp_path / "state" / "snapshots") == [f"{name}.tar"]
    left.discard()
