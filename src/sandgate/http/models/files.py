"""Files of environments, as clients name and get to read them."""

from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import quote_from_bytes

from pydantic import ConfigDict, Field

from sandgate.core.files import FileEntry, show_path
from sandgate.environments.files import Folder
from sandgate.http.models.base import Model
from sandgate.http.models.parts import with_example
from sandgate.http.models.requests import NO_NUL, example

_TIME = "2026-01-01T00:00:00Z"
_FILE = {
    "path": "data/a.csv",
    "name": "a.csv",
    "encoded_path": "data/a.csv",
    "kind": "file",
    "size_bytes": 12,
    "mode": "0644",
    "modified_at": _TIME,
    "target": None,
}
FilePath = Annotated[
    str,
    Field(
        min_length=1,
        max_length=4095,
        description="In the work folder, unless it begins with a slash.",
        json_schema_extra={"pattern": NO_NUL},
    ),
]


class FileAnswer(Model):
    """A file, a folder, a link or something else. `encoded_path` is as it is written in an address.

    Names are any bytes: what is no UTF-8 shows as U+FFFD in `path` and `name`, and is whole in `encoded_path`.
    """

    model_config = with_example(_FILE)

    path: str
    name: str
    encoded_path: str
    kind: Literal["file", "folder", "link", "other"]
    size_bytes: int
    mode: Annotated[str, Field(description="Permissions, octal.")]
    modified_at: datetime
    target: Annotated[str | None, Field(description="Where a link leads.")]

    @classmethod
    def of(cls, entry: FileEntry) -> "FileAnswer":
        """From what the environment told."""
        return cls(
            path=show_path(entry.path),
            name=show_path(entry.path.rstrip(b"/").rpartition(b"/")[2]),
            encoded_path=quote_from_bytes(entry.path, safe="/"),
            kind=entry.kind,  # type: ignore[arg-type]
            size_bytes=entry.size_bytes,
            mode=f"{entry.mode:04o}",
            modified_at=entry.modified_at,
            target=None if entry.target is None else show_path(entry.target),
        )


class FilesAnswer(Model):
    """A part of a folder by name; `next_cursor` is for the part after it."""

    model_config = with_example({"files": [_FILE], "next_cursor": None})

    files: list[FileAnswer]
    next_cursor: str | None

    @classmethod
    def of(cls, folder: Folder) -> "FilesAnswer":
        """From what the environment told."""
        cursor = None if folder.last is None else folder.last.hex()
        return cls(files=[FileAnswer.of(entry) for entry in folder.entries], next_cursor=cursor)


class FilesDeletedAnswer(Model):
    """How many files and folders were removed."""

    model_config = with_example({"deleted": 1})

    deleted: int


class ListFiles(Model):
    """Which folder, and which part of it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    path: FilePath = "."
    limit: Annotated[int, Field(ge=1, le=1000, strict=False)] = 200
    cursor: Annotated[str | None, Field(max_length=510, pattern="^([0-9a-f]{2})*$")] = None

    def after(self) -> str:
        """The name to go on after."""
        return bytes.fromhex(self.cursor or "").decode("utf-8", "surrogateescape")


class LookAtFile(Model):
    """Which file."""

    model_config = ConfigDict(strict=True, extra="forbid")

    path: FilePath


class WriteFile(Model):
    """How a file is written."""

    model_config = ConfigDict(strict=True, extra="forbid")

    overwrite: Annotated[bool, Field(strict=False, description="Whether a file that is there is replaced.")] = True
    mode: Annotated[str | None, Field(pattern="^[0-7]{3,4}$", description="Permissions, octal.")] = None


class DeleteFile(Model):
    """What is removed."""

    model_config = ConfigDict(strict=True, extra="forbid")

    recursive: Annotated[bool, Field(strict=False, description="A folder with all that is in it.")] = False


class MakeFolder(Model):
    """A folder that is to be there, and those on the way to it."""

    model_config = example({"path": "data/in"})

    path: FilePath


class TransferFile(Model):
    """From where to where a file or a tree is moved or copied."""

    model_config = example({"source": "data/a.csv", "target": "data/b.csv"})

    source: FilePath
    target: FilePath
    overwrite: Annotated[bool, Field(description="Whether what is at the target may be replaced.")] = False
