"""A snapshot is written to a file: whose fault it is when that fails, and how much is written."""

import errno
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from sandgate_agent.file_worker import OperationRefused
from sandgate_agent.snapshot_file import Unwritable, lay_out, pack, tell

KIB = 1024


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[int]:
    """A file to write to."""
    with (tmp_path / "archive").open("w+b") as file:
        yield file.fileno()


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A file system with a few small files, and a larger one that comes last."""
    (tmp_path / "root" / "top").mkdir(parents=True)
    for number in range(12):
        (tmp_path / "root" / "top" / f"a{number}").write_text("small")
    (tmp_path / "root" / "top" / "b").write_bytes(bytes(64 * KIB))
    return str(tmp_path / "root")


def _failing(number: int) -> Callable[..., NoReturn]:
    def fail(*_arguments: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


def _times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def _pack(archive: int, root: str, most_bytes: int = 1 << 20) -> dict[str, object]:
    return tell(partial(pack, root=root), archive, ["top"], 100, most_bytes)


def test_what_cannot_be_written_is_nobodys_fault_inside(root: str) -> None:
    """A disk that is full."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        assert _pack(full, root) == {"unwritable": "No space left on device"}
        with pytest.raises(Unwritable):
            pack(full, ["top"], 100, 1 << 20, root)
    finally:
        os.close(full)


def test_what_cannot_be_read_is_the_sandboxs(root: str, archive: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of its own that is broken: with the file's name."""
    monkeypatch.setattr(os, "sendfile", _failing(errno.EIO))
    monkeypatch.setattr(os, "pread", _failing(errno.EIO))
    told = _pack(archive, root)
    assert (told["error"], told["path"], "Input/output error" in str(told["message"])) == ("EIO", "top/a0", True)


def test_what_the_kernel_does_not_send_is_written(root: str, archive: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Piece by piece; the archive is the same."""
    monkeypatch.setattr(os, "sendfile", _failing(errno.EINVAL))
    assert _pack(archive, root)["bytes"] == 12 * 5 + 64 * KIB
    with tarfile.open(fileobj=io.BytesIO(os.pread(archive, 1 << 20, 0))) as tar:
        sizes = {member.name: member.size for member in tar if member.isfile()}
    assert (sizes["top/a0"], sizes["top/b"], len(sizes)) == (5, 64 * KIB, 13)


def test_no_file_is_begun_for_which_there_is_no_room(root: str, archive: int) -> None:
    """With the headers of those before it; nothing beyond the bound is ever written."""
    pack(archive, ["top"], 100, 1 << 20, root)
    most = os.fstat(archive).st_size - 32 * KIB
    os.ftruncate(archive, 0)
    os.lseek(archive, 0, os.SEEK_SET)
    with pytest.raises(OperationRefused, match=f"larger than {most} bytes"):
        pack(archive, ["top"], 100, most, root)
    assert os.fstat(archive).st_size <= most


def test_times_come_back_to_the_nanosecond(root: str, archive: int, tmp_path: Path) -> None:
    """Of files, links, pipes and folders, whether or not a float of so many seconds has room for them."""
    top, copy = Path(root, "top"), tmp_path / "copy"
    (top / "in").mkdir()
    (top / "in" / "link").symlink_to("nowhere")
    os.mkfifo(top / "in" / "pipe")
    parts = (0, 1, 123_456_789, 499_999_999, 999_999_999)
    for number, path in enumerate([top / "b", top / "in" / "link", top / "in" / "pipe", top / "in", top]):
        at_ns = (1_800_000_000 + number) * 10**9 + parts[number]
        os.utime(path, ns=(at_ns, at_ns), follow_symlinks=False)
    pack(archive, ["top"], 100, 1 << 20, root)
    copy.mkdir()
    lay_out(archive, ["top"], 100, 1 << 20, str(copy))
    assert _times(copy) == _times(Path(root))
