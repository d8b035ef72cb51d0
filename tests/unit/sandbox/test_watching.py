"""What is told of changes between two looks at a folder."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sandgate_agent import watching
from sandgate_agent.file_worker import OperationRefused


def look(folder: Path) -> Any:
    """What there is."""
    return watching.look(str(folder), 100, recursive=True)


def told(before: Any, after: Any) -> list[tuple[str, ...]]:
    """The events between."""
    return [(each["event"], each["path"], *([each["to"]] if "to" in each else [])) for each in
            watching.compare(before, after)]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some files."""
    for path in ("a", "b", "in/c", "in/deep/d"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
        os.utime(tmp_path / path, (1000, 1000))
    # What happens to them next may happen within the same tick of the kernel's clock.
    for path in ("in/deep", "in", "."):
        os.utime(tmp_path / path, (1000, 1000))
    return tmp_path


def test_nothing_is_told_of_nothing(folder: Path) -> None:
    """Reading changes nothing."""
    before = look(folder)
    (folder / "a").read_bytes()
    assert told(before, look(folder)) == []


def test_each_change_is_told_once(folder: Path) -> None:
    """Files, folders, links and pipes; what has gone is told from the innermost on."""
    before = look(folder)
    (folder / "a").write_text("changed")
    (folder / "new").mkdir()
    os.mkfifo(folder / "new/fifo")
    os.symlink("a", folder / "link")
    shutil.rmtree(folder / "in")
    assert told(before, look(folder)) == [
        ("deleted", "in/deep/d"), ("deleted", "in/deep"), ("deleted", "in/c"), ("deleted", "in"),
        ("modified", "a"), ("created", "link"), ("created", "new"), ("created", "new/fifo"),
    ]  # fmt: skip


def test_what_is_moved_is_moved_with_all_that_is_in_it(folder: Path) -> None:
    """And told of once."""
    before = look(folder)
    os.rename(folder / "in", folder / "out")
    os.rename(folder / "a", folder / "out/a")
    assert told(before, look(folder)) == [
        # The folder's time has changed with what was moved into it.
        ("moved", "a", "out/a"), ("moved", "in/c", "out/c"), ("moved", "in/deep", "out/deep"),
        ("deleted", "in"), ("created", "out"),
    ]  # fmt: skip
    before = look(folder)
    os.rename(folder / "out", folder / "back")
    assert told(before, look(folder)) == [("moved", "out", "back")]


def test_a_number_that_is_used_again_is_no_move() -> None:
    """One that another file has now, with a time of its own."""
    old, new = watching._State(0o100000, 7, 1, 5, 0o100644), watching._State(0o100000, 7, 2, 5, 0o100644)
    assert told({"a": old}, {"b": new}) == [("deleted", "a"), ("created", "b")]
    assert told({"a": old}, {"b": old, "c": old}) == [("moved", "a", "b"), ("created", "c")]


def test_what_becomes_another_kind_goes_and_comes(folder: Path) -> None:
    """A folder in the place of a file, and new permissions."""
    before = look(folder)
    (folder / "a").unlink()
    (folder / "a").mkdir()
    (folder / "in").chmod(0o700)
    assert told(before, look(folder)) == [("deleted", "a"), ("created", "a"), ("modified", "in")]


def test_only_the_folder_itself_is_looked_at(folder: Path) -> None:
    """Where nothing deeper was asked for; too much is refused."""
    assert list(watching.look(str(folder), 100, recursive=False)) == ["a", "b", "in"]
    with pytest.raises(OperationRefused):
        watching.look(str(folder), 3, recursive=True)


def test_what_is_being_written_for_a_client_is_not_told_of(folder: Path) -> None:
    """Before it has its name."""
    before = look(folder)
    (folder / "in/.upload-0123456789abcdef").write_text("x")
    (folder / ".unpack-0123456789abcdef").mkdir()
    (folder / ".unpack-0123456789abcdef/y").write_text("y")
    assert look(folder).keys() == before.keys()
    before = look(folder)
    os.rename(folder / "in/.upload-0123456789abcdef", folder / "in/x")
    assert told(before, look(folder)) == [("created", "in/x")]
