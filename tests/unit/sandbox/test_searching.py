"""Searches by the process inside, here in a folder of the tests."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandgate_agent import searching
from sandgate_agent.file_worker import OperationRefused


class Desk:
    """In the place of a worker: what it says."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.sent: list[bytes] = []

    def answer(self, answer: Any) -> None:
        """See ``Worker``."""
        self.answers.append(answer)

    def send(self, piece: bytes) -> None:
        """See ``Worker``."""
        self.sent.append(piece)


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    """The signal is as it was."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def search(folder: Path, after: tuple[str, int] = ("", 0), **named: Any) -> tuple[list[Any], Any]:
    """What is found, and how it ended."""
    desk: Any = Desk()
    options = {"regex": named.pop("regex", False), "ignore_case": named.pop("ignore_case", False)}
    asked = {"name": None, "content": None, "limit": 100, "timeout_s": 60.0, **named}
    searching.OPERATIONS["search"](desk, str(folder), options=options, after=after, **asked)
    assert desk.sent.pop() == b""
    return [found for record in desk.sent for found in json.loads(record)], desk.answers[-1]


def _paths(found: list[Any]) -> list[str]:
    return [each["path"] for each in found]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Some files."""
    for path in ("a.py", "b.txt", "src/c.py", "src/deep/d.py", "src/[x].py", "other/a.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"first\n  NOTE in {path}\nlast note")
    (tmp_path / "binary").write_bytes(b"NOTE\0NOTE")
    os.symlink("src", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo.py")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.py", ["a.py", "other/a.py", "src/[x].py", "src/c.py", "src/deep/d.py"]),
        ("?.txt", ["b.txt"]),
        ("[!a].py", ["src/c.py", "src/deep/d.py"]),
        ("[[]x].py", ["src/[x].py"]),
        ("src/*.py", ["src/[x].py", "src/c.py"]),
        ("**/d.py", ["src/deep/d.py"]),
        ("**/src/**", ["src/[x].py", "src/c.py", "src/deep", "src/deep/d.py"]),
        ("link", ["link"]),
        ("deep", ["src/deep"]),
        ("none", []),
    ],
)
def test_names_match_as_in_a_shell(tree: Path, pattern: str, found: list[str]) -> None:
    """And links are found, but not gone into."""
    assert _paths(search(tree, name=pattern)[0]) == found


def test_lines_are_found_with_their_numbers(tree: Path) -> None:
    """In files that are text, by text or by regular expression, in any case."""
    found, ended = search(tree, content="NOTE", name="*.py")
    assert [(each["path"], each["line_number"], each["column"]) for each in found] == [
        (path, 2, 3) for path in ("a.py", "other/a.py", "src/[x].py", "src/c.py", "src/deep/d.py")
    ]
    assert (found[0]["line"], found[0]["cut"], ended["files"], ended["reason"]) == ("  NOTE in a.py", False, 5, None)
    assert len(search(tree, content="note", name="a.py", ignore_case=True)[0]) == 4
    assert len(search(tree, content=r"^\s+N.T", regex=True)[0]) == 6
    assert search(tree, content="N.T")[0] == []
    assert search(tree, content="NOTE")[1]["skipped"] == 1


@pytest.mark.parametrize("named", [{}, {"content": "NOTE"}, {"content": "(?i)note", "regex": True}])
def test_a_search_goes_on_where_it_ended(tree: Path, named: dict[str, Any]) -> None:
    """Part by part the same is found as at once, whatever is looked for."""
    whole, ended = search(tree, **named)
    assert ended["reason"] is None
    parts: list[Any] = []
    after = ("", 0)
    while True:
        found, ended = search(tree, after, limit=2, **named)
        parts += found
        if ended["reason"] is None:
            break
        assert len(found) == 2
        after = ended["path"], ended["line"]
    assert parts == whole


def test_what_has_gone_holds_up_no_search(tree: Path) -> None:
    """One goes on behind a file that is there no more."""
    assert _paths(search(tree, ("other/zzz", 3), name="*.py")[0]) == ["src/[x].py", "src/c.py", "src/deep/d.py"]


HOSTILE = "(a+)+$"


@pytest.mark.parametrize(
    "named", [{"content": HOSTILE, "regex": True}, {"name": "*a" * 30 + "b"}, {"content": "(x+x+)+y", "regex": True}]
)
def test_patterns_that_take_for_ever_are_ended(tmp_path: Path, named: dict[str, Any]) -> None:
    """In their time, with what was found before, and behind the line that they were at."""
    (tmp_path / ("a" * 200)).write_text("a\n" + "a" * 5000 + "!\n" + "x" * 5000)
    started = time.perf_counter()
    found, ended = search(tmp_path, timeout_s=2.0, **named)
    assert time.perf_counter() - started < 15
    assert (ended["reason"], len(found)) == ("time", 1 if named.get("content") == HOSTILE else 0)
    if named.get("content") == HOSTILE:
        assert ended["line"] == 2


@pytest.mark.parametrize("content", ["(", "a{99999999999}", "(?P<x", "\\"])
def test_what_is_no_pattern_is_refused(tmp_path: Path, content: str) -> None:
    """Before anything is read."""
    with pytest.raises(OperationRefused) as refusal:
        search(tmp_path, content=content, regex=True)
    assert refusal.value.code == "PATTERN_INVALID"


def test_long_lines_are_cut(tmp_path: Path) -> None:
    """Around what was found; what is beyond the first part of a line is not looked at."""
    (tmp_path / "a").write_text("x" * 1000 + "here" + "y" * 1000 + "\n" + "z" * 10_000_000 + "here\nhere")
    found, _ended = search(tmp_path, content="here")
    assert [(each["line_number"], each["column"], each["cut"]) for each in found] == [(1, 1001, True), (3, 1, False)]
    assert (len(found[0]["line"]), "here" in found[0]["line"]) == (400, True)


def test_numbers_of_lines_hold_across_pieces(tmp_path: Path) -> None:
    """Whether or not what is looked for is in a piece."""
    lines = [f"line {number}" for number in range(1, 100_001)]
    (tmp_path / "a").write_text("\n".join(lines))
    for named in ({"content": "line 77777"}, {"content": "7{5}", "regex": True}):
        found, _ended = search(tmp_path, **named)
        assert [each["line_number"] for each in found] == [77_777]


def test_too_much_to_tell_is_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of bytes, too."""
    monkeypatch.setattr(searching, "_MOST_ANSWER_BYTES", 100)
    (tmp_path / "a").write_text("x" * 50 + "\n" + "x" * 50)
    found, ended = search(tmp_path, content="x")
    assert (len(found), ended["reason"], ended["line"]) == (1, "limit", 1)
