"""Files of environments. What is behind ``files/`` in an address is a path in the work folder, or from the root on when
it begins with another slash.
"""

from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request

from sandgate.core import errors
from sandgate.core.errors import RangeNotSatisfiable
from sandgate.core.files import show_path
from sandgate.environments.file_base import Files
from sandgate.http.answer import Answer
from sandgate.http.api import Api
from sandgate.http.audit import Audit
from sandgate.http.authentication import Caller
from sandgate.http.bodies import stream_body
from sandgate.http.exchange import exchange_of
from sandgate.http.file_answer import FILE_CONTENT, OCTETS_CONTENT, answer_file
from sandgate.http.marks import Path, Query
from sandgate.http.models.files import (
    DeleteFile,
    FileAnswer,
    FilesAnswer,
    FilesDeletedAnswer,
    ListFiles,
    LookAtFile,
    MakeFolder,
    TransferFile,
    WriteFile,
)
from sandgate.http.models.search import SearchAnswer, SearchFiles
from sandgate.http.paths import EnvironmentPath

ENVIRONMENT = "/api/v1/sandbox/environments/{environment_id}"
_FILE = f"{ENVIRONMENT}/files/{{path:bytes}}"
TAG = "files"
_MARK = b"/files/"
REFUSALS: tuple[type[errors.SandgateError], ...] = (
    errors.EnvironmentNotFound,
    errors.EnvironmentNotRunning,
    errors.EnvironmentElsewhere,
    errors.FileMissing,
    errors.FileConflict,
    errors.FileForbidden,
    errors.PathInvalid,
    errors.FilesUnavailable,
    errors.TooManyExecutions,
)
"""What whoever looks at files can meet."""
CHANGES: tuple[type[errors.SandgateError], ...] = (*REFUSALS, errors.Forbidden, errors.DiskFull, errors.FileTooLarge)
"""What whoever changes files can meet."""
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": OCTETS_CONTENT}}


class _AnyPath(Convertor[str]):
    """The rest of an address, with line ends in it, too."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("bytes", _AnyPath())

PathPart = Annotated[str, Path(examples=["data/a.csv"])]


def add_file_routes(api: Api, files: Files) -> None:
    """Declare the operations."""
    _add_content_routes(api, files)
    _add_delete_route(api, files)
    _add_looking_routes(api, files)
    _add_search_route(api, files)
    _add_changing_routes(api, files)


def _path_of(request: Request) -> str:
    """The path in an address, byte for byte; what is no UTF-8 in it as lone surrogates."""
    raw: bytes = request.scope["raw_path"].partition(b"?")[0]
    return unquote_to_bytes(raw.partition(_MARK)[2]).decode("utf-8", "surrogateescape")


def _add_content_routes(api: Api, files: Files) -> None:
    @api.operation(
        "GET", _FILE, tag=TAG, errors=(*REFUSALS, errors.FileTooLarge, errors.RangeNotSatisfiable), extra=FILE_CONTENT
    )
    async def read_file(caller: Caller, environment_id: EnvironmentPath, path: PathPart, request: Request) -> Answer:  # noqa: ARG001 - see _path_of
        """Download a file, or a part of it."""
        content = await files.open(caller, environment_id, _path_of(request))
        entry = content.entry
        name = show_path(entry.path.rpartition(b"/")[2])
        try:
            return answer_file(exchange_of(request.scope), content, entry.size_bytes, name, entry.tag)
        except RangeNotSatisfiable:
            content.close()
            raise

    @api.operation(
        "PUT", _FILE, tag=TAG, errors=(*CHANGES, errors.UnsupportedMediaType, errors.InvalidRequest), extra=_BODY
    )
    async def write_file(
        caller: Caller,
        environment_id: EnvironmentPath,
        path: PathPart,  # noqa: ARG001 - see _path_of
        query: Annotated[WriteFile, Query()],
        request: Request,
    ) -> FileAnswer:
        """Upload a file: the body, whatever its type. Folders on the way are made; a file is replaced in one step."""
        body = stream_body(request.scope, request.receive)
        mode = None if query.mode is None else int(query.mode, 8)
        declared = exchange_of(request.scope).headers.get(b"content-length", b"0")
        written = await files.write(
            caller,
            environment_id,
            _path_of(request),
            body,
            overwrite=query.overwrite,
            mode=mode,
            size_bytes=int(declared),
        )
        return FileAnswer.of(written)


def _add_delete_route(api: Api, files: Files) -> None:
    @api.operation("DELETE", _FILE, tag=TAG, audit=Audit.SUMMED, errors=CHANGES)
    async def delete_file(
        caller: Caller,
        environment_id: EnvironmentPath,
        path: PathPart,  # noqa: ARG001 - see _path_of
        query: Annotated[DeleteFile, Query()],
        request: Request,
    ) -> FilesDeletedAnswer:
        """Remove a file, a link, an empty folder, or with `recursive` a whole tree."""
        deleted = await files.delete(caller, environment_id, _path_of(request), recursive=query.recursive)
        return FilesDeletedAnswer(deleted=deleted)


def _add_looking_routes(api: Api, files: Files) -> None:
    @api.operation("GET", f"{ENVIRONMENT}/files", tag=TAG, errors=REFUSALS)
    async def list_files(
        caller: Caller, environment_id: EnvironmentPath, query: Annotated[ListFiles, Query()]
    ) -> FilesAnswer:
        """List a folder by name, without `path` the work folder."""
        folder = await files.list(caller, environment_id, query.path, after=query.after(), limit=query.limit)
        return FilesAnswer.of(folder)

    @api.operation("GET", f"{ENVIRONMENT}/stat", tag=TAG, errors=REFUSALS)
    async def look_at_file(
        caller: Caller, environment_id: EnvironmentPath, query: Annotated[LookAtFile, Query()]
    ) -> FileAnswer:
        """What is at a path; links are not followed."""
        return FileAnswer.of(await files.look(caller, environment_id, query.path))


def _add_search_route(api: Api, files: Files) -> None:
    @api.operation("GET", f"{ENVIRONMENT}/search", tag=TAG, errors=(*REFUSALS, errors.PatternInvalid))
    async def search_files(
        caller: Caller, environment_id: EnvironmentPath, query: Annotated[SearchFiles, Query()]
    ) -> SearchAnswer:
        """Find files below a folder by name, or lines of them by content, in a bounded time. Links are not followed."""
        return SearchAnswer.of(query.path, await files.search(caller, environment_id, query.wanted()))


def _add_changing_routes(api: Api, files: Files) -> None:
    @api.operation("POST", f"{ENVIRONMENT}/folders", tag=TAG, audit=Audit.SUMMED, errors=CHANGES)
    async def make_folder(caller: Caller, environment_id: EnvironmentPath, body: MakeFolder) -> FileAnswer:
        """Make a folder and those on the way to it; one that is there is as good."""
        return FileAnswer.of(await files.make_folder(caller, environment_id, body.path))

    @api.operation("POST", f"{ENVIRONMENT}/move", tag=TAG, audit=Audit.SUMMED, errors=CHANGES)
    async def move_file(caller: Caller, environment_id: EnvironmentPath, body: TransferFile) -> FileAnswer:
        """Move a file or a tree, or give it another name."""
        return FileAnswer.of(
            await files.transfer(caller, environment_id, "move", body.source, body.target, overwrite=body.overwrite)
        )

    @api.operation("POST", f"{ENVIRONMENT}/copy", tag=TAG, audit=Audit.SUMMED, errors=CHANGES)
    async def copy_file(caller: Caller, environment_id: EnvironmentPath, body: TransferFile) -> FileAnswer:
        """Copy a file or a tree; links are copied as links."""
        return FileAnswer.of(
            await files.transfer(caller, environment_id, "copy", body.source, body.target, overwrite=body.overwrite)
        )
