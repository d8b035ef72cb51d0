"""Whole folders of environments, as archives that go down and up."""

from typing import Annotated, Any

from starlette.requests import Request

from sandgate.core import errors
from sandgate.environments.file_base import Files
from sandgate.http.answer import Answer
from sandgate.http.api import Api
from sandgate.http.archive_answer import ARCHIVE_CONTENT, answer_archive
from sandgate.http.audit import Audit
from sandgate.http.authentication import Caller
from sandgate.http.bodies import stream_body
from sandgate.http.exchange import exchange_of
from sandgate.http.file_answer import OCTETS_CONTENT
from sandgate.http.marks import Query
from sandgate.http.models.archives import ReadArchive, UnpackedAnswer, WriteArchive
from sandgate.http.paths import EnvironmentPath
from sandgate.http.routes.files import CHANGES, ENVIRONMENT, REFUSALS, TAG

_ARCHIVE = f"{ENVIRONMENT}/archive"
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": OCTETS_CONTENT}}


def add_archive_routes(api: Api, files: Files) -> None:
    """Declare the operations."""

    @api.operation("GET", _ARCHIVE, tag=TAG, errors=(*REFUSALS, errors.ArchiveTooLarge), extra=ARCHIVE_CONTENT)
    async def read_archive(
        caller: Caller, environment_id: EnvironmentPath, query: Annotated[ReadArchive, Query()], request: Request
    ) -> Answer:
        """Download a folder with all that is in it, without `path` the work folder.

        Links are packed as links. What is no file, folder or link is left out.
        """
        exchange_of(request.scope).name_part("path", query.path)
        archive = await files.open_archive(caller, environment_id, query.path, query.format)
        name = query.path.rstrip("/").rpartition("/")[2].strip(".") or "files"
        return answer_archive(exchange_of(request.scope), archive, name)

    @api.operation(
        "PUT",
        _ARCHIVE,
        tag=TAG,
        audit=Audit.CHANGE,
        errors=(
            *CHANGES,
            errors.ArchiveInvalid,
            errors.ArchiveTooLarge,
            errors.UnsupportedMediaType,
        ),
        extra=_BODY,
    )
    async def write_archive(
        caller: Caller, environment_id: EnvironmentPath, query: Annotated[WriteArchive, Query()], request: Request
    ) -> UnpackedAnswer:
        """Upload an archive, which is laid out in a folder: all that is in it, or nothing."""
        exchange_of(request.scope).name_part("path", query.path)
        unpacked = await files.unpack(
            caller,
            environment_id,
            query.path,
            query.format,
            stream_body(request.scope, request.receive),
            overwrite=query.overwrite,
            outside_links=query.outside_links,
            size_bytes=int(exchange_of(request.scope).headers.get(b"content-length", b"0")),
        )
        return UnpackedAnswer.of(query.path, unpacked)
