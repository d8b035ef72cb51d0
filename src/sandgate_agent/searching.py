"""Finds files by their names and lines by what is in them, in the time that there is for it.

Patterns are hostile: a regular expression may take for ever over one line. The interpreter's engine looks for signals
now and then, so that a timer ends it; whoever is beyond even that is killed from outside.
"""

import json
import os
import re
import signal
import stat
from itertools import chain
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from sandgate_agent.file_worker import OperationRefused, Worker
from sandgate_agent.walking import Content, Found, Walk

_MOST_ENTRIES = 10_000_000
# What is read of a line, and what is shown of it.
_LONGEST_LINE = 64 * 1024
_SHOWN = 400
_BEFORE = 100
_MOST_ANSWER_BYTES = 2 << 20
# A file with a NUL in its beginning is no text.
_LOOKED_AT = 8192
_KINDS = {stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}

Key = Tuple[Tuple[int, str], ...]
Find = Callable[[str], Optional[Tuple[int, int]]]


class _TimeOver(BaseException):
    """Raised wherever the search is when its time is over."""


class Place(NamedTuple):
    """After which entry, and which line of it, a search goes on."""

    path: str
    line: int


def _key(path: str) -> Key:
    """What orders paths as a walk does: all of a folder before what is in its folders."""
    *folders, name = path.split("/")
    return (*((1, folder) for folder in folders), (0, name))


class _Search:
    """One search. ``place`` is how far it has come."""

    def __init__(self, top: str, name: Optional[str], find: Optional[Find], needle: bytes, after: Place) -> None:
        self._top = top
        self._matches_name = None if name is None else _compile_glob(name)
        self._in_path = name is not None and "/" in name
        self._find = find
        self._needle = needle
        self._after = after
        self._after_key = _key(after.path) if after.path else ()
        self.place = after
        self.files = 0
        self.skipped = 0

    def matches(self) -> Iterator[Dict[str, Any]]:
        """All that there is behind the place, in order."""
        for found in Walk(self._top, _MOST_ENTRIES, "EOVERFLOW", self._is_ahead):
            key = _key(found.name)
            is_same = key == self._after_key
            if key < self._after_key or (is_same and self._find is None) or not self._has_name(found):
                continue
            if self._find is None:
                self.place = Place(found.name, 0)
                yield {"path": found.name, "kind": _KINDS.get(found.kind, "file")}
            elif found.kind == stat.S_IFREG:
                yield from self._lines(found, self._after.line if is_same else 0)

    def _is_ahead(self, folder: str) -> bool:
        """Whether something in a folder may be behind the place."""
        inside = tuple((1, part) for part in folder.split("/"))
        return inside >= self._after_key[: len(inside)]

    def _has_name(self, found: Found) -> bool:
        if self._matches_name is None:
            return True
        text = found.name if self._in_path else found.name.rpartition("/")[2]
        return self._matches_name(text) is not None

    def _lines(self, found: Found, after: int) -> Iterator[Dict[str, Any]]:
        try:
            content = Content(found)
        except OSError:
            self.skipped += 1
            return
        try:
            pieces = content.pieces()
            first = next(pieces, b"")
            if b"\0" in first[:_LOOKED_AT]:
                self.skipped += 1
                return
            self.files += 1
            yield from self._find_in(found, after, _numbered(chain([first], pieces), self._needle))
        finally:
            content.close()

    def _find_in(self, found: Found, after: int, lines: Iterator[Tuple[int, bytes]]) -> Iterator[Dict[str, Any]]:
        assert self._find is not None
        for number, raw in lines:
            if number <= after:
                continue
            self.place = Place(found.name, number)
            line = raw.decode("utf-8", "replace").rstrip("\r")
            span = self._find(line)
            if span is not None:
                begin = max(0, span[0] - _BEFORE)
                yield {
                    "path": found.name, "kind": "file", "line_number": number, "column": span[0] + 1,
                    "line": line[begin : begin + _SHOWN], "cut": begin > 0 or len(line) > begin + _SHOWN,
                }  # fmt: skip


def _numbered(pieces: Iterator[bytes], needle: bytes) -> Iterator[Tuple[int, bytes]]:
    """Lines with their numbers, those at least that hold the needle; of a long one the beginning."""
    number, rest, is_cut = 1, b"", False
    for piece in pieces:
        data = rest + piece
        if needle and not is_cut and needle not in data:
            number += data.count(b"\n")
            rest = data[data.rfind(b"\n") + 1 :]
        else:
            *lines, rest = data.split(b"\n")
            for line in lines:
                if not is_cut:
                    yield number, line[:_LONGEST_LINE]
                is_cut = False
                number += 1
        if is_cut:
            rest = b""
        elif len(rest) > _LONGEST_LINE:
            yield number, rest[:_LONGEST_LINE]
            rest, is_cut = b"", True
    if rest:
        yield number, rest


class _Timer:
    """Ends a step that is under way when the time is over, and nothing else."""

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._is_armed = False
        signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _ring(self, _number: int, _frame: Any) -> None:
        self.is_over = True
        if self._is_armed:
            raise _TimeOver

    def run(self, step: Callable[[], Any]) -> Any:
        """What the step answers. Raises ``_TimeOver``."""
        if self.is_over:
            raise _TimeOver
        self._is_armed = True
        try:
            return step()
        finally:
            self._is_armed = False

    def stop(self) -> None:
        """It does not ring any more."""
        signal.setitimer(signal.ITIMER_REAL, 0)


def _compile_glob(pattern: str) -> Callable[[str], Any]:
    """What matches names as a shell's pattern does; ``**`` goes across folders."""
    out, at = [], 0
    while at < len(pattern):
        part = next((each for each in ("**/", "**", "*", "?") if pattern.startswith(each, at)), pattern[at])
        end = pattern.find("]", at + 2) if part == "[" else -1
        if end > 0:
            inner = pattern[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            part = pattern[at : end + 1]
            out.append("[^{}]".format(inner[1:]) if inner[0] in "!^" else "[{}]".format(inner))
        else:
            out.append({"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part) or re.escape(part))
        at += len(part)
    return re.compile("".join(out), re.DOTALL).fullmatch


def _compile_content(content: str, *, regex: bool, ignore_case: bool) -> Find:
    if not regex and not ignore_case:
        return lambda line: (at, at + len(content)) if (at := line.find(content)) >= 0 else None
    search = re.compile(content if regex else re.escape(content), re.IGNORECASE if ignore_case else 0).search

    def find(line: str) -> Optional[Tuple[int, int]]:
        found = search(line)
        return None if found is None else found.span()

    return find


def _prepare(name: Optional[str], content: Optional[str], options: Dict[str, Any], path: str, after: Place) -> _Search:
    """Raises ``OperationRefused``."""
    try:
        find = None if content is None else _compile_content(content, **options)
        is_plain = content is not None and not any(options.values())
        needle = content.encode("utf-8", "surrogateescape") if content is not None and is_plain else b""
        return _Search(path, name, find, needle, after)
    except (re.error, ValueError, RecursionError, OverflowError, MemoryError) as error:
        raise OperationRefused("PATTERN_INVALID", "the pattern cannot be used: {}".format(error)[:200], path) from None
    except _TimeOver:
        raise OperationRefused("PATTERN_INVALID", "the pattern takes too long to be read", path) from None


def _search(
    worker: Worker,
    path: str,
    name: Optional[str],
    content: Optional[str],
    options: Dict[str, Any],
    limit: int,
    after: List[Any],
    timeout_s: float,
) -> None:
    """Answer that it can be done, then what is found, then how far it came and why no further."""
    timer = _Timer(timeout_s)
    os.scandir(path).close()
    search = timer.run(lambda: _prepare(name, content, options, path, Place(*after)))
    worker.answer({})
    matches, reason = search.matches(), None
    count = size = 0
    try:
        while True:
            found = timer.run(lambda: next(matches, None))
            if found is None:
                break
            text = json.dumps([found]).encode()
            worker.send(text)
            count, size = count + 1, size + len(text)
            if count >= limit or size > _MOST_ANSWER_BYTES:
                reason = "limit"
                break
    except _TimeOver:
        reason = "time"
    timer.stop()
    worker.send(b"")
    ended = {"reason": reason, "files": search.files, "skipped": search.skipped}
    worker.answer({**ended, "path": search.place.path, "line": search.place.line})


OPERATIONS: Dict[str, Callable[..., None]] = {"search": _search}
