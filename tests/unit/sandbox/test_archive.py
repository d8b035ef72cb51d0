"""What comes out of a sandbox as files is read with nothing taken on trust."""

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.sandbox.archive import ArchiveCaps, ArchiveError, ArchiveParser, FileBegins, parse_path

CAPS = ArchiveCaps(files=3, file_bytes=10, total_bytes=15)
AGREED = "they did not come in the form that was agreed"


def record(kind: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A record, with a length of its own when it is to lie."""
    return struct.pack("!cI", kind, len(data) if length is None else length) + data


def end(count: int) -> bytes:
    """The last record."""
    return record(b"Z", length=count)


def read(pieces: Iterable[bytes], caps: ArchiveCaps = CAPS) -> dict[str, bytes]:
    """The files of an archive."""
    parser = ArchiveParser(caps)
    files: dict[str, bytes] = {}
    path = ""
    for piece in pieces:
        for part in parser.feed(piece):
            if isinstance(part, FileBegins):
                path = part.path
                files[path] = b""
            else:
                files[path] += part
    parser.finish()
    return files


@given(
    st.dictionaries(st.sampled_from(["a", "b/c", "d e"]), st.lists(st.binary(max_size=2), max_size=2)),
    st.lists(st.integers(1, 12), max_size=40),
)
def test_an_archive_may_come_in_any_pieces(wanted: dict[str, list[bytes]], cuts: list[int]) -> None:
    """What was put in comes out, wherever the stream was cut."""
    whole = b"".join(
        record(b"F", path.encode()) + b"".join(record(b"D", piece) for piece in pieces)
        for path, pieces in wanted.items()
    ) + end(len(wanted))
    parts = []
    for cut in cuts:
        parts.append(whole[:cut])
        whole = whole[cut:]
    assert read([*parts, whole]) == {path: b"".join(pieces) for path, pieces in wanted.items()}


@given(st.binary(max_size=200))
def test_any_bytes_are_an_archive_or_an_error(data: bytes) -> None:
    """Nothing else is raised, whatever comes."""
    problem = ""
    try:
        read([data])
    except ArchiveError as error:
        problem = str(error)
    assert problem.isprintable()


@pytest.mark.parametrize(
    ("archive", "problem"),
    [
        (b"", "to their end"),
        (record(b"F", b"a"), "to their end"),
        (record(b"F", b"a") + record(b"D", b"x", 5), "to their end"),
        (record(b"F", b"a") + end(1) + b"x", "to their end"),
        (record(b"F", b"a") + end(1) + record(b"F", b"b"), AGREED),
        (record(b"F", b"a") + end(2), AGREED),
        (end(1), AGREED),
        (record(b"D", b"x"), AGREED),
        (record(b"?", b"x"), AGREED),
        (b"Hello, World!\n", AGREED),
        (record(b"F", b"a") * 2, "'a' came twice"),
        (b"".join(record(b"F", b"%d" % number) for number in range(4)), "more than 3 files"),
        (record(b"F", b"a") + record(b"D", length=11), "a file is larger than 10 bytes"),
        (record(b"F", b"a") + record(b"D", b"x" * 6) * 2, "a file is larger than 10 bytes"),
        (
            b"".join(record(b"F", name) + record(b"D", b"x" * 8) for name in (b"a", b"b")),
            "larger than 15 bytes together",
        ),
        (record(b"F", length=1025), "a path is longer"),
        (record(b"F", b"a") + record(b"D", length=2**32 - 1), "a record is too long"),
        (record(b"E", length=2**32 - 1), "a record is too long"),
        (record(b"E", b"oh \x1b[31m\xff\n"), r"oh \x1b[31m"),
    ],
)
def test_lies_are_found_before_anything_is_kept_of_them(archive: bytes, problem: str) -> None:
    """Each with a sentence that says what is wrong."""
    with pytest.raises(ArchiveError) as refused:
        read([archive])
    assert problem in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "path",
    [b"", b"/", b"/a", b"a/", b"a//b", b".", b"..", b"../a", b"a/../b", b"a/./b", b"a\0b", b"a\nb", b"a\x1b", b"\xff",
     "a\u202eb".encode(), "a\u2028b".encode(), "a\u0085b".encode(), b"x" * 256],
)  # fmt: skip
def test_paths_that_are_none(path: bytes) -> None:
    """Nothing that leads out of a folder, or leads a reader astray."""
    with pytest.raises(ArchiveError):
        parse_path(path)


@pytest.mark.parametrize("path", ["a", "..a", "a..", "...", ".a/b c", "é/\U0001f40d", "a\\b", "a\xa0b", "x" * 255])
def test_odd_paths_that_are_some(path: str) -> None:
    """Ordinary names are kept as they are."""
    assert parse_path(path.encode()) == path
