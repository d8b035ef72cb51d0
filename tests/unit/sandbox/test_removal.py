"""Folders are removed whatever code has put there, and nothing outside of them."""

import os
from pathlib import Path

import pytest

from sandgate.core.limits import Limits
from sandgate.sandbox.launcher import life
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.removal import remove_tree


def _nest(folder: Path, depth: int) -> None:
    """So many folders, each in the one before."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _level in range(depth):
        os.mkdir("in", dir_fd=descriptor)
        inner = os.open("in", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


def test_folders_too_deep_for_recursion(tmp_path: Path) -> None:
    """Deeper than Python calls, and than a path can say."""
    folder = tmp_path / "sandbox"
    folder.mkdir()
    _nest(folder, 1500)
    assert remove_tree(folder)
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    """One inside, and one in the place of the folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    folder = tmp_path / "sandbox"
    (folder / "in").mkdir(parents=True)
    (folder / "link").symlink_to(outside)
    (folder / "in/link").symlink_to(outside)
    assert remove_tree(folder)
    folder.symlink_to(outside)
    assert remove_tree(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "file").read_text() == "stays"


def test_names_that_are_taken_and_folders_that_are_locked(tmp_path: Path) -> None:
    """What is moved up finds another name; what may not be entered is unlocked."""
    folder = tmp_path / "sandbox"
    for path in ("a/b/c", "a/d", "removed-0/x", "removed-2", "locked/in/deep"):
        (folder / path).mkdir(parents=True)
    (folder / "removed-1").write_text("a file")
    (folder / "locked/in").chmod(0)
    (folder / "locked").chmod(0)
    assert remove_tree(folder)
    assert not folder.exists()


def test_nothing_there(tmp_path: Path) -> None:
    """No error."""
    assert remove_tree(tmp_path / "nothing")


def test_what_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and the rest is removed."""
    folder = tmp_path / "sandbox"
    folder.mkdir()
    (folder / "stays").write_text("")
    (folder / "goes").write_text("")
    unlink = os.unlink

    def refuse(name: str, *, dir_fd: int | None = None) -> None:
        if name == "stays":
            raise PermissionError
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    assert not remove_tree(folder)
    assert [path.name for path in folder.iterdir()] == ["stays"]


def test_sandbox_that_cannot_be_removed_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again less and less often, and is gone when it works."""
    answers = [False] * 40 + [True]
    monkeypatch.setattr(life, "remove_tree", lambda _folder: answers.pop(0))
    reactor, gone, pauses = Reactor(), list[life.Life](), list[float]()
    sandbox = life.Life(
        "python", reactor, Limits(), environment_id="env-1", group=None, host_id=None, folder=tmp_path,
        on_ready=gone.append, on_gone=gone.append,
    )  # fmt: skip

    def note(seconds: float, _callback: object) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(reactor, "call_later", note)
    while not gone:
        sandbox._remove()
    assert gone == [sandbox]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.002, 1.0)
