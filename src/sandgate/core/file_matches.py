"""What a search in an environment has found, as the environment tells of it, which is hostile."""

from dataclasses import dataclass

from sandgate.core.files import encode_path, not_agreed, parse_count

_KINDS = ("file", "folder", "link")
_LONGEST_LINE = 400


@dataclass(frozen=True, slots=True)
class SearchPlace:
    """How far a search came: an entry below its folder, and a line of it."""

    path: bytes
    line: int


@dataclass(frozen=True, slots=True)
class Match:
    """An entry below the folder of a search, or a line of one, cut around what was looked for.

    Lines and columns are counted from 1.
    """

    path: bytes
    kind: str
    line_number: int | None = None
    column: int | None = None
    line: str | None = None
    is_cut: bool = False


def parse_match(value: object) -> Match:
    """One of them. Raises ``FilesUnavailable``."""
    try:
        assert isinstance(value, dict)  # noqa: S101 - translated below
        path, kind = encode_path(str(value["path"])), value["kind"]
        assert kind in _KINDS  # noqa: S101 - same
        if "line" not in value:
            return Match(path, kind)
        # Lone surrogates are what no encoding can carry.
        line = str(value["line"])[:_LONGEST_LINE].encode("utf-8", "replace").decode("utf-8")
        number, column = parse_count(value["line_number"]), parse_count(value["column"])
        return Match(path, kind, number, column, line, value.get("cut") is True)
    except (AssertionError, KeyError, UnicodeError):
        raise not_agreed() from None
