"""The folders that killed servers leave, and those that somebody still has."""

import fcntl
import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandgate.cli import run_folders
from sandgate.sandbox.launcher.hierarchies import find_hierarchies
from sandgate.sandbox.launcher.reclaim import remove_empty_tree


def _left(shared: Path, name: str) -> Path:
    """What a server leaves that is killed with its launcher: a socket that nobody listens at, among the rest."""
    folder = shared / name
    (folder / "jail").mkdir(parents=True)
    (folder / "launcher.log").write_text("words")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(folder / "launcher.sock"))
    return folder


@pytest.fixture
def shared() -> Iterator[Path]:
    """A short path, because a socket's address is short."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_what_nobody_has_is_removed(shared: Path) -> None:
    """Whatever of it is there; a folder that is not there is as good."""
    _left(shared, "0123456789ab")
    (shared / "ba9876543210").mkdir()
    run_folders.clear(shared)
    assert list(shared.iterdir()) == []
    run_folders.clear(shared / "none")


def test_what_is_held_or_answered_is_kept(shared: Path) -> None:
    """A server that has no launcher at this moment, and a launcher whose server was killed; later they are gone."""
    held, answered = _left(shared, "0" * 12), _left(shared, "1" * 12)
    (answered / "launcher.sock").unlink()
    descriptor = run_folders.hold(held)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(answered / "launcher.sock"))
        listener.listen(1)
        run_folders.clear(shared)
        assert sorted(shared.iterdir()) == [held, answered]
        assert sorted(path.name for path in answered.iterdir()) == ["jail", "launcher.log", "launcher.sock"]
    os.close(descriptor)
    run_folders.clear(shared)
    assert list(shared.iterdir()) == []


def _make_groups(name: str) -> list[Path]:
    """The control groups of a server with one environment."""
    with open("/proc/self/mountinfo") as mounts:
        trees = [hierarchy.mount / name for hierarchy in find_hierarchies(mounts.read())]
    for tree in trees:
        (tree / "s1" / "slot").mkdir(parents=True)
    return trees


@pytest.mark.needs_root_namespaces
def test_control_groups_of_the_dead_go_with_their_folder(shared: Path) -> None:
    """But for those that somebody holds, or something runs in; later they go, too. Nothing is killed."""
    dead, held, used = (secrets.token_hex(6) for _ in range(3))
    trees = {name: _make_groups(f"sandgate-test-{name}") for name in (dead, held, used)}
    for name in trees:
        _left(shared, name)
    descriptor = run_folders.hold(shared / held)
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        (trees[used][0] / "s1" / "cgroup.procs").write_text(str(sleeper.pid))
        run_folders.clear(shared, lambda name: remove_empty_tree(f"sandgate-test-{name}"))
        assert sleeper.poll() is None
        assert {name for name in trees if any(tree.exists() for tree in trees[name])} == {held, used}
        assert all(tree.exists() for name in (held, used) for tree in trees[name])
        assert {path.name for path in shared.iterdir()} == {held, used}
        sleeper.kill()
    os.close(descriptor)
    deadline = time.monotonic() + 60
    while list(shared.iterdir()) and time.monotonic() < deadline:
        # For a moment a group holds what has ended.
        run_folders.clear(shared, lambda name: remove_empty_tree(f"sandgate-test-{name}"))
    assert not any(tree.exists() for name in trees for tree in trees[name])
    assert list(shared.iterdir()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "notes").write_text("somebody's"),
        lambda folder: (folder / "jail" / "mounted").mkdir(),
        lambda folder: folder.rename(folder.with_name("other")),
        lambda folder: folder.rename(folder.with_name("real")) and folder.symlink_to(folder.with_name("real")),
    ],
    ids=["a file", "in a folder", "a name", "a link"],
)
def test_what_no_server_leaves_is_kept(shared: Path, spoil: Callable[[Path], object]) -> None:
    """With everything in it that somebody may want, and what is a link leads nowhere."""
    folder = _left(shared, "0123456789ab")
    spoil(folder)
    run_folders.clear(shared)
    (kept,) = [path for path in shared.iterdir() if not path.is_symlink()]
    assert (kept / "launcher.log").read_text() == "words"


def test_one_that_is_removed_meanwhile_is_made_again(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds it has the one that is there."""
    folder = shared / "run" / ("0" * 12)
    lock = fcntl.flock
    removed: list[bool] = []

    def remove_first(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(True)
            folder.rmdir()
            folder.parent.rmdir()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    descriptor = run_folders.hold(folder)
    assert os.path.samestat(os.fstat(descriptor), folder.stat())
    os.close(descriptor)
