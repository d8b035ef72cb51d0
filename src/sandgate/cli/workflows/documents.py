"""Documents that a user writes: JSON or YAML, from a file or standard input, with the line of everything in them."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandgate.cli.exits import WrongUsage
from sandgate.cli.workflows.positions import DocumentRefused

#: More than a server takes.
LARGEST_BYTES = 4 * 1024 * 1024

_STDIN = "-"


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document. ``lines`` has the line, counted from 1, of every value by its JSON pointer."""

    name: str
    value: Any
    lines: Mapping[str, int]

    def line_of(self, pointer: str) -> int:
        """The line of a value; of one that is not there, that of what it would stand in."""
        while pointer and pointer not in self.lines:
            pointer = pointer.rpartition("/")[0]
        return self.lines.get(pointer, 1)


def read_document(path: str) -> Document:
    """Read a file, or standard input for ``-``. A name that ends in ``.json`` is JSON, any other YAML.

    What begins with ``{`` and has no such name is JSON too. Raises ``DocumentRefused`` with the line, ``WrongUsage``
    when it cannot be read.
    """
    name = "standard input" if path == _STDIN else path
    data = _read(path)
    if len(data) > LARGEST_BYTES:
        raise DocumentRefused(f"{name} has more than {LARGEST_BYTES} bytes", name, 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentRefused(f"{name}:{line}: this is no text in UTF-8", name, line) from None
    return _parse(name, text)


def read_definition(path: str) -> Document:
    """The same for a file that has to hold something. Raises ``DocumentRefused`` for one that does not, too."""
    document = read_document(path)
    if document.value is None:
        name = "standard input" if path == _STDIN else path
        raise DocumentRefused(f"{name}:1: there is no definition in it", name, 1)
    return document


def _parse(name: str, text: str) -> Document:
    is_yaml = name.endswith((".yaml", ".yml"))
    if name.endswith(".json") or (not is_yaml and text.lstrip().startswith("{")):
        from sandgate.cli.workflows.json_text import parse_json

        value, lines = parse_json(text, name)
    else:
        from sandgate.cli.workflows.yaml_text import parse_yaml

        value, lines = parse_yaml(text, name)
    return Document(name, value, lines)


def _read(path: str) -> bytes:
    if path == _STDIN:
        return sys.stdin.buffer.read(LARGEST_BYTES + 1)
    try:
        with Path(path).open("rb") as file:
            return file.read(LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WrongUsage(f"{path} cannot be read: {reason}") from error
