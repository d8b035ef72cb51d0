"""What environments can be made from, and building more of it."""

from typing import Annotated, Any

from starlette.requests import Request

from sandgate.core import errors
from sandgate.environments.builds.base import BuiltTemplates
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.bodies import refuse_field, stream_body
from sandgate.http.exchange import exchange_of
from sandgate.http.file_answer import OCTETS_CONTENT
from sandgate.http.marks import Query
from sandgate.http.models.template_logs import (
    LOG_EVENTS_EXAMPLE,
    FollowTemplate,
    RenderedLogEvents,
    TemplateLogAnswer,
)
from sandgate.http.models.templates import (
    BuildTemplate,
    DeleteTemplate,
    ListTemplates,
    TemplateAnswer,
    TemplateDeletedAnswer,
    TemplatesAnswer,
)
from sandgate.http.paths import TemplatePath
from sandgate.http.streaming import LAST_EVENT_ID, LAST_EVENT_ID_PARAMETER, MEDIA_TYPE, EventStream, Streams

_TEMPLATES = "/api/v1/sandbox/templates"
_TEMPLATE = f"{_TEMPLATES}/{{name}}"
_TAG = "templates"
_LONGEST_POSITION = 15
_FINISHED = ("name", "version", "status", "status_reason", "size_bytes", "files")
_STREAM: dict[str, Any] = {
    "description": "Server-sent events until the build is over.",
    "content": {MEDIA_TYPE: {"schema": {"description": "A stream of events."}, "example": LOG_EVENTS_EXAMPLE}},
}


def add_template_routes(api: Api, templates: BuiltTemplates, streams: Streams) -> None:
    """Declare the operations."""
    _add_reading_routes(api, templates)
    _add_changing_routes(api, templates)
    _add_upload_route(api, templates)
    _add_log_routes(api, templates, streams)


def _add_reading_routes(api: Api, templates: BuiltTemplates) -> None:
    @api.operation("GET", _TEMPLATES, tag=_TAG)
    async def list_templates(caller: Caller, query: Annotated[ListTemplates, Query()]) -> TemplatesAnswer:
        """List all templates that you may use, by name, with the reason where one cannot be used.

        Of those that were built it is the newest version; with `name` all versions of one.
        """
        listed = templates.list(caller, query.name)
        return TemplatesAnswer(
            templates=[TemplateAnswer.of(each, awaits_upload=templates.awaits_upload(each)) for each in listed]
        )

    @api.operation("GET", _TEMPLATE, tag=_TAG, errors=(errors.TemplateNotFound,))
    async def get_template(caller: Caller, name: TemplatePath) -> TemplateAnswer:
        """Get one template: by `name`, or by `name@version` or id of one that was built; by name it is the newest."""
        template = templates.get(caller, name)
        return TemplateAnswer.of(template, with_lock=True, awaits_upload=templates.awaits_upload(template))


def _add_changing_routes(api: Api, templates: BuiltTemplates) -> None:
    @api.operation(
        "POST",
        _TEMPLATES,
        tag=_TAG,
        status=201,
        errors=(
            errors.Forbidden,
            errors.UnknownTemplate,
            errors.TemplateUnavailable,
            errors.IsolationUnavailable,
            errors.NetworkNotOffered,
            errors.TooManyNetworkRules,
            errors.LimitTooHigh,
            errors.TemplateNameTaken,
            errors.RecipeTooLarge,
            errors.TooManyTemplates,
            errors.TooManyBuilds,
            errors.ServiceDraining,
        ),
    )
    async def build_template(caller: Caller, body: BuildTemplate) -> TemplateAnswer:
        """Begin to build a template from a recipe; its `status` says how far it is.

        When the newest version of the name is the same, by its `digest`, that is the answer, and nothing is built.
        Everything of the recipe runs in an environment of the base.
        """
        template = await templates.build(caller, body.wanted())
        return TemplateAnswer.of(template, awaits_upload=templates.awaits_upload(template))

    @api.operation(
        "DELETE", _TEMPLATE, tag=_TAG, errors=(errors.TemplateNotFound, errors.Forbidden, errors.TemplateInUse)
    )
    async def delete_template(
        caller: Caller, name: TemplatePath, query: Annotated[DeleteTemplate, Query()]
    ) -> TemplateDeletedAnswer:
        """Delete one version that was built, as `name@version`, or all of a name; a build under way is ended.

        One that there are live environments of is not deleted; one that there are snapshots of, with `force` only.
        """
        rows = await templates.delete(caller, name, force=query.force)
        return TemplateDeletedAnswer(name=rows[0].name, versions=sorted(row.version for row in rows))


def _add_upload_route(api: Api, templates: BuiltTemplates) -> None:
    @api.operation(
        "PUT",
        f"{_TEMPLATE}/archive",
        tag=_TAG,
        errors=(
            errors.TemplateNotFound,
            errors.Forbidden,
            errors.NoUploadAwaited,
            errors.RecipeTooLarge,
            errors.UnsupportedMediaType,
            errors.InvalidRequest,
        ),
        extra={"requestBody": {"required": True, "content": OCTETS_CONTENT}},
    )
    async def upload_template_archive(caller: Caller, name: TemplatePath, request: Request) -> TemplateAnswer:
        """Upload the archive that a build waits for: the body, whatever its type.

        When it is the one that the recipe names, by its SHA-256, the build goes on; otherwise it still waits.
        """
        template = await templates.upload(caller, name, stream_body(request.scope, request.receive))
        return TemplateAnswer.of(template, awaits_upload=templates.awaits_upload(template))


def _add_log_routes(api: Api, templates: BuiltTemplates, streams: Streams) -> None:
    @api.operation("GET", f"{_TEMPLATE}/log", tag=_TAG, errors=(errors.TemplateNotFound, errors.Forbidden))
    async def read_template_log(caller: Caller, name: TemplatePath) -> TemplateLogAnswer:
        """Read what the build of one of your templates has said: the first megabyte by default."""
        log = await templates.read_log(caller, name)
        row = templates.get(caller, name).built
        assert row is not None  # noqa: S101 - it has a log
        return TemplateLogAnswer(name=row.name, version=row.version, status=row.status.value, log=log)

    @api.operation(
        "GET",
        f"{_TEMPLATE}/events",
        tag=_TAG,
        errors=(errors.TemplateNotFound, errors.Forbidden, errors.TooManyStreams),
        extra={"responses": {"200": _STREAM}, "parameters": [LAST_EVENT_ID_PARAMETER]},
    )
    async def follow_template(
        caller: Caller, name: TemplatePath, request: Request, query: Annotated[FollowTemplate, Query()]
    ) -> EventStream:
        """Follow the build of one of your templates: `log` with what it says, and `finished` with how it went."""
        header = exchange_of(request.scope).headers.get(LAST_EVENT_ID)
        position = query.after if header is None else _parse_position(header.decode("latin-1"))
        events = templates.follow(caller, name, position)
        row = templates.get(caller, name).built
        assert row is not None  # noqa: S101 - it has a log

        def finished() -> dict[str, Any]:
            try:
                answer = TemplateAnswer.of(templates.get(caller, row.template_id))
            except errors.TemplateNotFound:
                # It was deleted while it was followed.
                return {**dict.fromkeys(_FINISHED), "name": row.name, "version": row.version, "status": "deleted"}
            return answer.model_dump(include=set(_FINISHED))

        return EventStream(streams, caller.user_id, RenderedLogEvents(events, finished))


def _parse_position(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_POSITION):
        refuse_field("Last-Event-ID", "is not a position in this log; send one as it came, or none")
    return int(text)
