"""Files that hold secrets."""

import os
import stat
import threading
from pathlib import Path

import pytest

from sandgate.auth.private_files import (
    create_private_file,
    delete_private_file,
    make_private_folder,
    read_private_file,
)
from sandgate.core.errors import ConfigurationError


def test_a_file_is_written_once(tmp_path: Path) -> None:
    """The second one to come changes nothing and leaves nothing."""
    path = tmp_path / "secret"
    assert create_private_file(path, b"first")
    assert not create_private_file(path, b"second")
    assert read_private_file(path) == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_writers_one_wins(tmp_path: Path) -> None:
    """Each is told whether it was the one, and the file is whole."""
    path = tmp_path / "secret"
    won: list[bytes] = []

    def write(data: bytes) -> None:
        if create_private_file(path, data):
            won.append(data)

    threads = [threading.Thread(target=write, args=(bytes([65 + number]) * 100,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [read_private_file(path)]


def test_no_file_is_no_error(tmp_path: Path) -> None:
    """Reading and removing what is not there."""
    assert read_private_file(tmp_path / "none") is None
    delete_private_file(tmp_path / "none")


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "large", "open"])
def test_other_things_are_not_read(tmp_path: Path, kind: str) -> None:
    """Links, folders, pipes, large files and files of mode 0644; none of them hangs the reader."""
    path = tmp_path / "secret"
    if kind == "link":
        (tmp_path / "target").write_bytes(b"x")
        path.symlink_to(tmp_path / "target")
    elif kind == "folder":
        path.mkdir(mode=0o700)
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    else:
        path.write_bytes(b"x" * (100_000 if kind == "large" else 1))
        path.chmod(0o644 if kind == "open" else 0o600)
    with pytest.raises(ConfigurationError):
        read_private_file(path)


def test_a_folder_is_made_private(tmp_path: Path) -> None:
    """With those above it; making it again is no error."""
    for _ in range(2):
        make_private_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_a_link_is_no_folder(tmp_path: Path) -> None:
    """Nobody can have root write elsewhere."""
    (tmp_path / "target").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(ConfigurationError):
        make_private_folder(tmp_path / "link")
    with pytest.raises(ConfigurationError):
        create_private_file(tmp_path / "link" / "secret", b"x")


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    """The message says which path, and what was wrong with it."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="file"):
        make_private_folder(tmp_path / "file")


@pytest.mark.needs_root
def test_what_root_writes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    """The command line runs as root, the gateway that must read it does not."""
    os.chown(tmp_path, 12_345, 23_456)
    make_private_folder(tmp_path / "keys")
    create_private_file(tmp_path / "keys" / "secret", b"x")
    for path in (tmp_path / "keys", tmp_path / "keys" / "secret"):
        assert (path.stat().st_uid, path.stat().st_gid) == (12_345, 23_456)
