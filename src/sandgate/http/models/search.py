"""Searches in environments, as clients ask for them and what they find."""

from typing import Annotated, Literal
from urllib.parse import quote_from_bytes

from pydantic import ConfigDict, Field

from sandgate.core.file_matches import Match, SearchPlace
from sandgate.core.files import show_path
from sandgate.environments.searching import Search, SearchResult
from sandgate.http.models.base import Model
from sandgate.http.models.files import FilePath
from sandgate.http.models.parts import with_example
from sandgate.http.models.requests import NO_NUL

_MATCH = {
    "path": "src/a.py",
    "name": "a.py",
    "encoded_path": "src/a.py",
    "kind": "file",
    "line_number": 3,
    "column": 5,
    "line": "    # NOTE",
    "cut": False,
}
_PATTERN = {"pattern": NO_NUL}


class SearchFiles(Model):
    """What is looked for, and where."""

    model_config = ConfigDict(strict=True, extra="forbid")

    path: FilePath = "."
    name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1000,
            description="A pattern as a shell has it; with a slash in it, of the path below the folder (`**/x/*.py`).",
            json_schema_extra=_PATTERN,
        ),
    ] = None
    content: Annotated[
        str | None,
        Field(min_length=1, max_length=1000, description="What a line has in it.", json_schema_extra=_PATTERN),
    ] = None
    regex: Annotated[bool, Field(strict=False, description="Whether `content` is a regular expression.")] = False
    ignore_case: Annotated[bool, Field(strict=False, description="Whether `content` is found in any case.")] = False
    limit: Annotated[int, Field(ge=1, le=1000, strict=False)] = 100
    cursor: Annotated[str | None, Field(max_length=9000, pattern="^([0-9a-f]{2})+-[0-9]{1,12}$")] = None

    def wanted(self) -> Search:
        """As the use case has it."""
        after = None
        if self.cursor is not None:
            path, _, line = self.cursor.partition("-")
            after = SearchPlace(bytes.fromhex(path), int(line))
        return Search(self.path, self.name, self.content, self.regex, self.ignore_case, self.limit, after)


class MatchAnswer(Model):
    """A file, folder or link with the name, or a line that has the content. `cut` says that the line is longer."""

    model_config = with_example(_MATCH)

    path: str
    name: str
    encoded_path: str
    kind: Literal["file", "folder", "link"]
    line_number: int | None
    column: int | None
    line: str | None
    cut: bool

    @classmethod
    def of(cls, folder: bytes, match: Match) -> "MatchAnswer":
        """From what the environment told."""
        path = match.path if folder == b"." else folder.rstrip(b"/") + b"/" + match.path
        return cls(
            path=show_path(path),
            name=show_path(path.rpartition(b"/")[2]),
            encoded_path=quote_from_bytes(path, safe="/"),
            kind=match.kind,  # type: ignore[arg-type]
            line_number=match.line_number,
            column=match.column,
            line=match.line,
            cut=match.is_cut,
        )


class SearchAnswer(Model):
    """What was found. `incomplete` says why there may be more, and `next_cursor` goes on from there."""

    model_config = with_example(
        {"matches": [_MATCH], "incomplete": None, "files_read": 7, "files_skipped": 0, "next_cursor": None}
    )

    matches: list[MatchAnswer]
    incomplete: Annotated[
        Literal["limit", "time"] | None, Field(description="`limit`: as many as were asked for; `time`: it was over.")
    ]
    files_read: int
    files_skipped: Annotated[int, Field(description="Those that are no text, or cannot be read.")]
    next_cursor: str | None

    @classmethod
    def of(cls, folder: str, result: SearchResult) -> "SearchAnswer":
        """From what the environment told."""
        place = result.place
        top = folder.encode("utf-8", "replace")
        return cls(
            matches=[MatchAnswer.of(top, match) for match in result.matches],
            incomplete=result.reason,  # type: ignore[arg-type]
            files_read=result.files,
            files_skipped=result.skipped,
            next_cursor=None if place is None or not place.path else f"{place.path.hex()}-{place.line}",
        )
