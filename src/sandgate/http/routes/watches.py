"""Watching folders of environments."""

from typing import Annotated, Any

from starlette.requests import Request

from sandgate.core import errors
from sandgate.environments.file_base import Files
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.exchange import exchange_of
from sandgate.http.marks import Query
from sandgate.http.models.watches import WATCH_EXAMPLE, RenderedChanges, WatchFiles
from sandgate.http.paths import EnvironmentPath
from sandgate.http.routes.files import ENVIRONMENT, REFUSALS, TAG
from sandgate.http.streaming import LAST_EVENT_ID, LAST_EVENT_ID_PARAMETER, MEDIA_TYPE, EventStream, Streams

_STREAM: dict[str, Any] = {
    "description": "Server-sent events until the environment has ended.",
    "content": {MEDIA_TYPE: {"schema": {"description": "A stream of events."}, "example": WATCH_EXAMPLE}},
}


def add_watch_routes(api: Api, files: Files, streams: Streams) -> None:
    """Declare the operation."""

    @api.operation(
        "GET",
        f"{ENVIRONMENT}/watch",
        tag=TAG,
        errors=(*REFUSALS, errors.TooManyStreams),
        extra={"responses": {"200": _STREAM}, "parameters": [LAST_EVENT_ID_PARAMETER]},
    )
    async def watch_files(
        caller: Caller, environment_id: EnvironmentPath, query: Annotated[WatchFiles, Query()], request: Request
    ) -> EventStream:
        """Be told what is created, modified, moved and deleted in a folder, without `path` the work folder.

        `overflow` says that there was more than is told, or that a client that comes again may have missed something:
        list the folder anew.
        """
        streams.check_room(caller.user_id)
        watch = await files.watch(caller, environment_id, query.path, recursive=query.recursive)
        has_missed = LAST_EVENT_ID in exchange_of(request.scope).headers
        return EventStream(streams, caller.user_id, RenderedChanges(watch, query.path, has_missed=has_missed))
