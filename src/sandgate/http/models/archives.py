"""Whole folders of environments, as clients name and get them."""

from typing import Annotated

from pydantic import ConfigDict, Field

from sandgate.core.files import ArchiveForm
from sandgate.environments.archives import Unpacked
from sandgate.http.models.base import Model
from sandgate.http.models.files import FilePath
from sandgate.http.models.parts import with_example


class ReadArchive(Model):
    """Which folder, as what."""

    model_config = ConfigDict(strict=True, extra="forbid")

    path: FilePath = "."
    format: ArchiveForm = "tar"


class WriteArchive(Model):
    """Where an archive is laid out, and how."""

    model_config = ConfigDict(strict=True, extra="forbid")

    path: FilePath = "."
    format: ArchiveForm = "tar"
    overwrite: Annotated[bool, Field(strict=False, description="Whether files that are there are replaced.")] = True
    outside_links: Annotated[
        bool, Field(strict=False, description="Whether links may lead to what is not in the archive.")
    ] = False


class UnpackedAnswer(Model):
    """What was in an archive and is in the folder now."""

    model_config = with_example({"path": "data", "files": 3, "folders": 1, "links": 0, "size_bytes": 4096})

    path: str
    files: int
    folders: int
    links: int
    size_bytes: int

    @classmethod
    def of(cls, path: str, unpacked: Unpacked) -> "UnpackedAnswer":
        """From what the environment told."""
        return cls(
            path=path,
            files=unpacked.files,
            folders=unpacked.folders,
            links=unpacked.links,
            size_bytes=unpacked.size_bytes,
        )
