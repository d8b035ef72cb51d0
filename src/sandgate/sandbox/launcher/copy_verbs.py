"""The launcher's verbs about all files of a sandbox: for another one, for an archive, and from one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sandgate.sandbox.launcher.fields import OfSandbox, ProtocolError, count_of, seconds_of, text_of

_TOP = re.compile(r"[a-z]+(?:/[a-z]+)*")
_MOST_TOPS = 16
_LONGEST_S = 3600.0

PackingT = TypeVar("PackingT", "PackFiles", "UnpackFiles")


@dataclass(frozen=True, slots=True)
class _OfFiles(OfSandbox):
    """What is in folders (``tops``) of a sandbox, within so many entries and bytes, and within so many seconds.

    What has not been done by then is given up: whoever asks waits no longer.
    """

    tops: tuple[str, ...]
    most_entries: int
    most_bytes: int
    within_s: float


@dataclass(frozen=True, slots=True)
class CopyFiles(_OfFiles):
    """Give a sandbox in which no code has run yet what is in folders of another one.

    Refused unless the other one stands still, and goes on to do so. Answered with what was copied, by name; with
    ``too_much`` when it is more than may be; with ``source_ended``, why the other one has ended meanwhile; and with
    ``lack``, why files cannot be copied like this here.
    """

    source: str


@dataclass(frozen=True, slots=True)
class PackFiles(_OfFiles):
    """Write what is in folders of a sandbox, which is to stand still, to a file, whose descriptor comes along.

    Answered with what it was, by name; or with an ``error``, a ``message`` and a ``path``, as files of a sandbox are
    answered, or with ``unwritable``: why the file cannot be written.
    """


@dataclass(frozen=True, slots=True)
class UnpackFiles(_OfFiles):
    """Lay out such a file in a sandbox in which no code has run yet. Answered in the same way."""


Packing = PackFiles | UnpackFiles


def parse_copy(message: Mapping[str, Any], environment_id: re.Pattern[str]) -> CopyFiles:
    """Raises ``ProtocolError``."""
    return CopyFiles(
        text_of(message, "environment_id", environment_id),
        _tops(message.get("tops")),
        count_of(message, "most_entries", 1),
        count_of(message, "most_bytes", 1),
        seconds_of(message, "within_s", _LONGEST_S),
        text_of(message, "source", environment_id),
    )


def parse_packing(kind: type[PackingT], message: Mapping[str, Any], environment_id: re.Pattern[str]) -> PackingT:
    """Raises ``ProtocolError``."""
    return kind(
        text_of(message, "environment_id", environment_id),
        _tops(message.get("tops")),
        count_of(message, "most_entries", 1),
        count_of(message, "most_bytes", 0),
        seconds_of(message, "within_s", _LONGEST_S),
    )


def _tops(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_TOPS:
        raise ProtocolError(f"tops are not a list of 1 to {_MOST_TOPS}")
    if not all(isinstance(top, str) and len(top) < 100 and _TOP.fullmatch(top) for top in value):
        raise ProtocolError(f"tops has something else than {_TOP.pattern}")
    return tuple(value)
