"""Archives that are laid out and packed by the process inside, here in a folder of the tests."""

import gzip
import os
import tarfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sandgate_agent import expanding, packing, unzip
from sandgate_agent.file_worker import OperationRefused
from tests.archive_files import HOSTILE, read_archive, tar, zipped

STAGING = ".unpack-test"


class Desk:
    """In the place of a worker: what it is given, and what it says."""

    def __init__(self, content: bytes = b"", piece_bytes: int = 1000) -> None:
        self._content = content
        self._piece_bytes = piece_bytes
        self.answers: list[Any] = []
        self.sent: list[bytes] = []

    def pieces(self) -> Iterator[bytes]:
        """See ``Worker``."""
        for start in range(0, len(self._content), self._piece_bytes):
            yield self._content[start : start + self._piece_bytes]

    def answer(self, answer: Any) -> None:
        """See ``Worker``."""
        self.answers.append(answer)

    def send(self, piece: bytes) -> None:
        """See ``Worker``."""
        self.sent.append(piece)


def unpack(folder: Path, form: str, content: bytes, piece_bytes: int = 1000, **caps: Any) -> Any:
    """Lay an archive out; the answer."""
    desk: Any = Desk(content, piece_bytes)
    named = {"entries": 10_000, "bytes": 1 << 34, "overwrite": True, "outside_links": False, **caps}
    expanding.OPERATIONS["unpack"](desk, str(folder), form=form, staging=STAGING, **named)
    return desk.answers[0]


def pack(folder: Path, form: str, entries: int = 1000, size: int = 1 << 34, **more: Any) -> tuple[bytes, Any]:
    """A folder as an archive, and the last answer."""
    desk: Any = Desk()
    packing.OPERATIONS["pack"](desk, str(folder), form=form, most_entries=entries, most_bytes=size, **more)
    assert desk.sent[-1] == b""
    return b"".join(desk.sent), desk.answers


def everything(folder: Path) -> set[str]:
    """All that is in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("how", HOSTILE)
def test_hostile_archives_are_refused(tmp_path: Path, how: str) -> None:
    """With the entry and what is wrong with it; nothing of them is laid out, whether or not the folder is there."""
    form, archive, why = HOSTILE[how]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/there").write_bytes(b"there")
    for path, piece_bytes in (("in", 7), ("new/of/it", 100_000)):
        with pytest.raises(OperationRefused) as refusal:
            unpack(tmp_path / path, form, archive, piece_bytes)
        assert (refusal.value.code, why in refusal.value.message) == ("ARCHIVE_INVALID", True), refusal.value.message
    assert everything(tmp_path) == {"in", "in/there"}


@pytest.mark.parametrize(
    ("form", "archive", "cap"),
    [
        ("tar", tar(*((f"{number}", b"x") for number in range(20))), {"entries": 10}),
        ("tar", tar(*(("same", {"type": tarfile.DIRTYPE}) for number in range(20))), {"entries": 10}),
        ("tar", tar(("/".join("d" * 30) + "/x", b"x")), {"entries": 10}),
        ("tar", tar(("a", {"pax_headers": {"size": str(1 << 60)}})), {}),
        ("tar.gz", gzip.compress(tar(("zeros", bytes(3_000_000)))), {"bytes": 1_000_000}),
        ("zip", zipped(("zeros", bytes(3_000_000))), {"bytes": 1_000_000}),
        ("zip", zipped(*((f"{number}", b"x") for number in range(20))), {"entries": 10}),
    ],
)
def test_archives_are_bounded(tmp_path: Path, form: str, archive: bytes, cap: dict[str, int]) -> None:
    """In entries and in bytes, whatever they say of themselves."""
    with pytest.raises(OperationRefused) as refusal:
        unpack(tmp_path / "in", form, archive, **cap)
    assert refusal.value.code == "ARCHIVE_TOO_LARGE"
    assert everything(tmp_path) == set()


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_older_tars_are_read(tmp_path: Path, form: int) -> None:
    """Long names in each way that they were written."""
    name = "d" * 90 + "/" + "f" * (130 if form == tarfile.GNU_FORMAT else 60)
    unpack(tmp_path / "in", "tar", tar((name, b"x"), form=form))
    assert (tmp_path / "in" / name).read_bytes() == b"x"


def test_permissions_and_times_come_along(tmp_path: Path) -> None:
    """Of folders, too, also those that are closed; whose powers a file runs with does not."""
    closed, times = {"type": tarfile.DIRTYPE, "mode": 0o500}, {"mtime": 1_500_000_000}
    archive = tar(("d", closed), ("d/x", b"x"), ("s", {"mode": 0o6755, **times}), ("old", {"mtime": -5}))
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        unpack(tmp_path / name, "tar", archive)
        folder, setuid = (tmp_path / name / "d").stat(), (tmp_path / name / "s").stat()
        assert (folder.st_mode & 0o7777, folder.st_mtime) == (0o500, 1_600_000_000)
        assert (setuid.st_mode & 0o7777, setuid.st_mtime) == (0o755, 1_500_000_000)
        assert (tmp_path / name / "old").stat().st_mtime == 0


@pytest.mark.parametrize(
    ("told", "laid_out_ns"),
    [
        ("1600000000.123456789", 1_600_000_000_123_456_789),
        ("1600000000.9999999999", 1_600_000_000_999_999_999),
        ("1600000000.5", 1_600_000_000_500_000_000),
        ("1600000001.", 1_600_000_001_000_000_000),
        ("-0.5", 0),
        ("1.6e9", 1_600_000_000_000_000_000),
        ("9" * 30, 2**33 * 10**9),
    ],
)
def test_times_of_records(tmp_path: Path, told: str, laid_out_ns: int) -> None:
    """To the nanosecond, in whatever way they are written, within what file systems know."""
    unpack(tmp_path / "in", "tar", tar(("a", {"pax_headers": {"mtime": told}})))
    assert (tmp_path / "in" / "a").stat().st_mtime_ns == laid_out_ns


@pytest.mark.parametrize("told", ["", "noon", "inf", "nan", "1.2.3", "1.-2"])
def test_times_that_are_none(tmp_path: Path, told: str) -> None:
    """They are refused."""
    with pytest.raises(OperationRefused, match="no time as 'mtime'"):
        unpack(tmp_path / "in", "tar", tar(("a", {"pax_headers": {"mtime": told}})))


def test_folders_that_are_not_told_of_are_ordinary(tmp_path: Path) -> None:
    """Those on the way to the folder, and those on the way to an entry."""
    unpack(tmp_path / "new/of/it", "tar", tar(("a/b/c", b"x")))
    modes = {str(path): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_dir()}
    assert set(modes.values()) == {0o755}, modes


@pytest.mark.parametrize("day", ["1980-01-01", "1999-12-31", "2000-02-29", "2024-03-01", "2107-12-31", "2026-11-28"])
def test_days_of_zips_are_days(day: str) -> None:
    """As everybody counts them."""
    at = datetime.fromisoformat(f"{day}T13:57:58+00:00")
    date = (at.year - 1980) << 9 | at.month << 5 | at.day
    assert unzip._dos_time(date, at.hour << 11 | at.minute << 5 | at.second // 2) == at.timestamp()
    assert unzip._dos_time(0, 0) <= unzip._dos_time(0xFFFF, 0xFFFF)


def test_names_are_any_bytes(tmp_path: Path) -> None:
    """In a tar; a zip has those that are text, and says of how many it has none."""
    odd = os.fsencode(tmp_path) + b"/in/\xff"
    (tmp_path / "in").mkdir()
    with open(odd, "wb") as file:
        file.write(b"odd")
    (tmp_path / "in/plain").write_bytes(b"plain")
    packed, answers = pack(tmp_path / "in", "tar")
    assert read_archive("tar", packed) == {"\udcff": b"odd", "plain": b"plain"}
    assert [answer["skipped"] for answer in answers] == [0, 0]
    unpack(tmp_path / "out", "tar", packed)
    assert os.listdir(os.fsencode(tmp_path / "out")) in ([b"\xff", b"plain"], [b"plain", b"\xff"])
    packed, answers = pack(tmp_path / "in", "zip")
    assert read_archive("zip", packed) == {"plain": b"plain"}
    assert [answer["skipped"] for answer in answers] == [1, 1]


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_what_is_no_file_is_left_out(tmp_path: Path, form: str) -> None:
    """A pipe, a socket, a loop of links, and what cannot be opened holds up nothing."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    os.mkfifo(folder / "fifo")
    os.symlink(".", folder / "deep/loop")
    (folder / "deep/a").write_bytes(b"a")
    packed, answers = pack(folder, form)
    assert {name: content for name, content in read_archive(form, packed).items() if name != "deep/loop"} == {
        "deep/a": b"a"
    }
    assert [(answer["entries"], answer["skipped"]) for answer in answers] == [(3, 1), (3, 1)]


@pytest.mark.parametrize("form", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_files_that_change_break_no_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, size: int
) -> None:
    """Each is as long as it was when it was opened: longer ones are cut, shorter ones filled up with zeros."""
    (tmp_path / "a").write_bytes(b"x" * 200_000)
    (tmp_path / "b").write_bytes(b"b")
    real = os.read

    def change(descriptor: int, length: int) -> bytes:
        os.truncate(tmp_path / "a", size)
        return real(descriptor, length)

    monkeypatch.setattr(os, "read", change)
    packed, answers = pack(tmp_path, form)
    found = read_archive(form, packed)
    assert found == {"a": (b"x" * min(size, 200_000)).ljust(200_000, b"\0"), "b": b"b"}
    assert answers[-1]["entries"] == 2


def test_what_grows_beyond_the_limit_meanwhile_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nobody takes a part for the whole."""
    (tmp_path / "a").write_bytes(b"a")
    monkeypatch.setattr(packing._Packing, "measure", lambda _self: {"skipped": 0})
    _packed, answers = pack(tmp_path, "tar", size=0)
    assert answers[-1]["error"] == "ARCHIVE_TOO_LARGE"


def test_too_much_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """A terabyte of nothing, and many files."""
    (tmp_path / "a").write_bytes(b"a")
    os.truncate(tmp_path / "a", 1 << 40)
    for caps in ({"size": 1 << 30}, {"entries": 0}):
        with pytest.raises(OperationRefused):
            pack(tmp_path, "tar", **caps)


def test_only_folders_are_packed_and_filled(tmp_path: Path) -> None:
    """What is none, or is not there, is refused at once."""
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(NotADirectoryError):
        pack(tmp_path / "a", "tar")
    with pytest.raises(FileNotFoundError):
        pack(tmp_path / "b", "tar")
    with pytest.raises(NotADirectoryError):
        unpack(tmp_path / "a", "tar", tar(("x", b"x")))


def test_of_closed_folders_there_is_nothing_but_themselves(tmp_path: Path) -> None:
    """By their whole names, at any depth; what is in them does not even count."""
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in ("proc", "a/proc", "a/b"):
        (source / folder).mkdir(parents=True)
        (source / folder / "file").write_text("x" * 100)
    target.mkdir()
    packed, answers = pack(source, "tar", entries=7, size=100, closed=("proc", "a/b"))
    assert answers[-1]["entries"] == 5
    unpack(target, "tar", packed)
    assert everything(target) == {"proc", "a", "a/proc", "a/proc/file", "a/b"}
