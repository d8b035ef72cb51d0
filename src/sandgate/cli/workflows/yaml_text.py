"""YAML as a notation for JSON, with the line of every value.

Only the parser of a library is used, which makes events; what they mean is decided here, after the core schema of
YAML 1.2: ``on`` and ``no`` are texts, dates too. Refused are keys given twice, tags, merge keys, several documents, and
numbers that JSON has not. Aliases may be used; what they expand to counts, so that a few lines cannot become gigabytes.
Source: https://yaml.org/spec/1.2.2/#103-core-schema
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from sandgate.cli.workflows.positions import MOST_LEVELS, DocumentRefused, Positions

#: Characters and values of a document after its aliases are filled in.
MOST_EXPANDED = 8 * 1024 * 1024

_TEXT_TAG = "tag:yaml.org,2002:str"
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_INTEGERS: Mapping["re.Pattern[str]", Callable[[str], int]] = {
    re.compile(r"[-+]?[0-9]{1,4000}"): int,
    re.compile(r"0o[0-7]{1,4000}"): lambda text: int(text, 8),
    re.compile(r"0x[0-9a-fA-F]{1,4000}"): lambda text: int(text, 16),
}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBERS = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _Extent(NamedTuple):
    """How much a value is, its aliases filled in, and in how many levels."""

    size: int
    levels: int


class _Node(NamedTuple):
    value: Any
    extent: _Extent


def parse_yaml(text: str, name: str) -> tuple[Any, Mapping[str, int]]:
    """The value, and the lines of all values in it by their pointers. Raises ``DocumentRefused``."""
    reader = _Reader(name)
    line = 1
    try:
        for event in _events(text):
            line = event.start_mark.line + 1
            reader.take(event, line)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = line if mark is None else mark.line + 1
        raise DocumentRefused(f"{name}:{line}: this is no YAML: {_say(error)}", name, line) from None
    except yaml.YAMLError as error:
        raise DocumentRefused(f"{name}:{line}: this is no YAML: {' '.join(str(error).split())}", name, line) from None
    return reader.result, reader.positions.lines


def _events(text: str) -> Iterator[Any]:
    """The events of the parser: that of libyaml, which is ten times faster, where it is there."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    events: Iterator[Any] = yaml.parse(text, Loader=loader)
    return events


def _say(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(part for part in (error.context, error.problem) if part)


class _Reader:
    """Builds a value of the events of one document."""

    def __init__(self, name: str) -> None:
        self.positions = Positions(name)
        self.result: Any = None
        self._documents = 0
        self._expanded = 0
        # What each anchor stands for; None while that is still being read.
        self._anchors: dict[str, _Node | None] = {}
        self._open: list[tuple[str | None, int, int]] = []

    def take(self, event: Any, line: int) -> None:
        """The next event."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self.positions.refused("a second document begins; there can be one only", line)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._enter(event, line)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._leave()
        elif isinstance(event, yaml.ScalarEvent):
            self._take_scalar(event, line)
        elif isinstance(event, yaml.AliasEvent):
            self._take_alias(str(event.anchor), line)

    def _enter(self, event: Any, line: int) -> None:
        if self._key_comes():
            raise self.positions.refused("a key has to be a text", line)
        self._check_tag(event, line)
        self.positions.enter({} if isinstance(event, yaml.MappingStartEvent) else [], line)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._open.append((event.anchor, self._expanded, 0))
        self._count(1, line)

    def _leave(self) -> None:
        container = self.positions.places.pop().container
        anchor, before, levels = self._open.pop()
        node = _Node(container, _Extent(self._expanded - before, levels + 1))
        if anchor is not None:
            self._anchors[anchor] = node
        self._add(node)

    def _take_scalar(self, event: Any, line: int) -> None:
        self._check_tag(event, line)
        self._count(len(event.value) + 1, line)
        if self._key_comes():
            if event.value == "<<" and event.implicit[0]:
                raise self.positions.refused("merge keys (<<) are not used here; write the members out", line)
            self.positions.set_key(event.value, line)
            return
        self.positions.note(line)
        value = self._resolve(event.value, line) if event.implicit[0] and event.tag is None else event.value
        node = _Node(value, _Extent(len(event.value) + 1, 0))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._add(node)

    def _take_alias(self, anchor: str, line: int) -> None:
        node = self._anchors.get(anchor)
        if node is None:
            problem = "stands for something that it is part of" if anchor in self._anchors else "was not defined before"
            raise self.positions.refused(f"the alias *{anchor} {problem}", line)
        if self._key_comes():
            raise self.positions.refused("a key has to be written out", line)
        if len(self.positions.places) + node.extent.levels > MOST_LEVELS:
            raise self.positions.refused(f"with its aliases this is nested in more than {MOST_LEVELS} levels", line)
        self._count(node.extent.size, line)
        self.positions.note(line)
        self._add(node)

    def _add(self, node: _Node) -> None:
        if not self.positions.places:
            self.result = node.value
            return
        self.positions.places[-1].add(node.value)
        anchor, before, levels = self._open[-1]
        self._open[-1] = (anchor, before, max(levels, node.extent.levels))

    def _key_comes(self) -> bool:
        places = self.positions.places
        return bool(places) and isinstance(places[-1].container, dict) and places[-1].key is None

    def _count(self, size: int, line: int) -> None:
        self._expanded += size
        if self._expanded > MOST_EXPANDED:
            raise self.positions.refused(f"with its aliases this is larger than {MOST_EXPANDED} characters", line)

    def _check_tag(self, event: Any, line: int) -> None:
        if event.tag not in (None, "!", _TEXT_TAG) or (
            event.tag is not None and not isinstance(event, yaml.ScalarEvent)
        ):
            raise self.positions.refused(f"the tag {event.tag} is not used here; leave it out", line)

    def _resolve(self, text: str, line: int) -> Any:
        """What a plain scalar means."""
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        for form, read in _INTEGERS.items():
            if form.fullmatch(text):
                return read(text)
        if _FLOAT.fullmatch(text) and abs(float(text)) != float("inf"):
            return float(text)
        if _NO_NUMBERS.fullmatch(text) or _FLOAT.fullmatch(text):
            raise self.positions.refused(f"{text[:40]} is no number in JSON", line)
        return text
