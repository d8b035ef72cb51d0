"""What a sandbox tells of files is read as hostile."""

import json
from typing import Any

import pytest

from sandgate.core.errors import FilesUnavailable, SandgateError
from sandgate.core.files import parse_answer, parse_entry

ENTRY = {"path": "a", "kind": "file", "size": 1, "mode": 0o644, "modified_ns": 10**18, "inode": 7}


def test_an_entry_is_read() -> None:
    """With odd bytes in its path, and a time that no calendar has cut to one that it has."""
    entry = parse_entry({**ENTRY, "path": "\udcff", "mode": 0o100644, "modified_ns": 2**62})
    assert (entry.path, entry.mode) == (b"\xff", 0o644)
    assert parse_entry({**ENTRY, "modified_ns": -5}).modified_at.year == 1970


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "root"}, {"kind": ["file"]}, {"size": -1}, {"size": "1"}, {"size": 2**70}, {"mode": None},
        {"modified_ns": 1e300}, {"path": "\ud800"}, {"target": "\ud800"},
    ],
)  # fmt: skip
def test_a_forged_entry_is_refused(change: dict[str, Any]) -> None:
    """As a fault of the environment's, whatever is in it."""
    with pytest.raises(FilesUnavailable):
        parse_entry({**ENTRY, **change})


@pytest.mark.parametrize("value", [None, [], "x", {}])
def test_what_is_no_entry_is_refused(value: object) -> None:
    """The same."""
    with pytest.raises(FilesUnavailable):
        parse_entry(value)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"error": "NEW"}', b'{"error": 5, "path": []}']
)
def test_what_is_no_answer_is_refused(text: bytes) -> None:
    """The same, also an error that nobody knows."""
    with pytest.raises(FilesUnavailable):
        parse_answer(text)


def test_an_error_shows_no_half_characters() -> None:
    """Whatever its texts hold, it can be sent and is short."""
    text = json.dumps({"error": "ENOENT", "path": "\ud800" * 10_000, "message": "\udfff" * 10_000})
    with pytest.raises(SandgateError) as caught:
        parse_answer(text.encode())
    assert len(caught.value.message.encode()) < 20_000
