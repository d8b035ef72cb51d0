"""What a sandbox tells of files is read as hostile."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from sandgate.core.errors import FilesUnavailable, SandgateError
from sandgate.core.file_changes import parse_change
from sandgate.core.file_matches import parse_match
from sandgate.core.files import parse_answer, parse_count, parse_entry, parse_found

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


MATCH = {"path": "a", "kind": "file", "line_number": 1, "column": 2, "line": "x", "cut": False}
CHANGE = {"event": "moved", "path": "a", "kind": "file", "to": "b"}


def test_what_was_found_is_read() -> None:
    """Cut to what was agreed, without characters that cannot be sent; a name without a line is an entry."""
    match = parse_match({**MATCH, "line": "\ud800" + "x" * 1000, "path": "\udcff"})
    assert (match.path, match.line) == (b"\xff", "?" + "x" * 399)
    assert parse_match({"path": "a", "kind": "link"}).line is None
    assert parse_change(CHANGE).target == b"b"
    assert parse_change({"event": "overflow"}).kind == "overflow"
    assert parse_count(0) == 0


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (parse_match, None), (parse_match, {}), (parse_match, {**MATCH, "kind": ["file"]}),
        (parse_match, {**MATCH, "path": "\ud800"}), (parse_match, {**MATCH, "line_number": -1}),
        (parse_match, {**MATCH, "column": "1"}), (parse_match, {**MATCH, "line_number": 2**70}),
        (parse_change, []), (parse_change, {**CHANGE, "event": "started"}), (parse_change, {**CHANGE, "kind": {}}),
        (parse_change, {**CHANGE, "to": "\ud800"}), (parse_change, {"event": "moved", "path": "a", "kind": "file"}),
        (parse_count, None), (parse_count, -1), (parse_count, 1.5), (parse_count, 2**70),
        (parse_found, b"{}"), (parse_found, b"["), (parse_found, b"[" + b" " * 70_000 + b"]"),
    ],
)  # fmt: skip
def test_forged_findings_are_refused(parse: Callable[[Any], object], value: Any) -> None:
    """As a fault of the environment's, and nothing else."""
    with pytest.raises(FilesUnavailable):
        parse(value)
