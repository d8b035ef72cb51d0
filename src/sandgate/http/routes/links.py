"""Links to files of environments: making them, and the address where whoever has one uses it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from starlette.requests import Request

from sandgate.auth.base import Links
from sandgate.core import errors
from sandgate.core.audit import Credential
from sandgate.core.errors import FileTooLarge, RangeNotSatisfiable
from sandgate.core.file_link import FileGrant, LinkMethod, OpenLink
from sandgate.core.files import show_path
from sandgate.environments.file_base import Files
from sandgate.http.answer import Answer
from sandgate.http.api import Api
from sandgate.http.audit import Audit
from sandgate.http.authentication import Caller
from sandgate.http.bodies import refuse_field, stream_body
from sandgate.http.exchange import exchange_of
from sandgate.http.file_answer import FILE_CONTENT, OCTETS_CONTENT, answer_file
from sandgate.http.marks import Path
from sandgate.http.models.files import FileAnswer
from sandgate.http.models.links import LINKS, CreateLink, LinkAnswer
from sandgate.http.paths import EnvironmentPath
from sandgate.http.rate import RequestRate, RequestsAtOnce
from sandgate.http.routes.files import CHANGES, ENVIRONMENT, REFUSALS, TAG

_LINK = f"{LINKS}/{{link}}"
_DEFAULT_LIFETIME_S = 3600
_HELD = (errors.FileLinkNotFound, errors.TooManyRequests, errors.TooManyRequestsAtOnce, errors.StoreUnavailable)
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": OCTETS_CONTENT}}

LinkPart = Annotated[str, Path(examples=["eyJ1c2VyIjoi…"])]


@dataclass(frozen=True, slots=True)
class Holders:
    """Lets in whoever comes with a link; what they ask for counts for the user who has made it."""

    links: Links
    rate: RequestRate
    at_once: RequestsAtOnce

    async def admit(self, request: Request, token: str, method: LinkMethod) -> OpenLink:
        """Raises ``FileLinkNotFound``, ``TooManyRequests``, ``TooManyRequestsAtOnce``."""
        exchange = exchange_of(request.scope)
        exchange.credential = Credential.LINK
        found = await self.links.open(token, method)
        self.rate.take(found.holder.user_id)
        self.at_once.take(found.holder.user_id)
        exchange.caller = found.holder
        exchange.holds_place = True
        exchange.name_part("environment_id", found.grant.environment_id)
        exchange.name_part("path", found.grant.path)
        return found


def add_link_routes(api: Api, files: Files, holders: Holders, longest_s: int) -> None:
    """Declare the operations."""
    _add_making_route(api, files, holders.links, longest_s)
    _add_reading_route(api, files, holders)
    _add_writing_route(api, files, holders)


def _add_making_route(api: Api, files: Files, links: Links, longest_s: int) -> None:
    @api.operation(
        "POST", f"{ENVIRONMENT}/links", tag=TAG, status=201, audit=Audit.CHANGE, errors=(*REFUSALS, errors.Forbidden)
    )
    async def create_link(
        caller: Caller, environment_id: EnvironmentPath, body: CreateLink, request: Request
    ) -> LinkAnswer:
        """Make a link with which anybody may read or write one file, without a token, until it expires.

        It ends with the environment, too, and when you are disabled or get a new password.
        """
        lifetime_s = min(_DEFAULT_LIFETIME_S, longest_s) if body.expires_in is None else body.expires_in
        if lifetime_s > longest_s:
            refuse_field("expires_in", f"is more than {longest_s} seconds, the most that this server allows")
        exchange_of(request.scope).name_part("path", body.path)
        exchange_of(request.scope).facts["method"] = body.method
        await files.check(caller, environment_id, body.path, changes=body.method == "PUT")
        link = links.make(caller, body.grant(environment_id), lifetime_s)
        return LinkAnswer.of(link, exchange_of(request.scope).origin)


def _add_reading_route(api: Api, files: Files, holders: Holders) -> None:
    @api.operation(
        "GET",
        _LINK,
        tag=TAG,
        audit=Audit.SUMMED,
        errors=(*_HELD, *REFUSALS, errors.FileTooLarge, errors.RangeNotSatisfiable),
        extra=FILE_CONTENT,
    )
    async def read_linked_file(link: LinkPart, request: Request) -> Answer:
        """Download the file of a link. The address is the credential; keep it to those who may have the file."""
        found = await holders.admit(request, link, "GET")
        content = await files.open(found.holder, found.grant.environment_id, found.grant.path)
        entry = content.entry
        name = found.grant.name or show_path(entry.path.rpartition(b"/")[2])
        try:
            return answer_file(exchange_of(request.scope), content, entry.size_bytes, name, entry.tag)
        except RangeNotSatisfiable:
            content.close()
            raise


def _add_writing_route(api: Api, files: Files, holders: Holders) -> None:
    @api.operation(
        "PUT",
        _LINK,
        tag=TAG,
        audit=Audit.SUMMED,
        errors=(*_HELD, *CHANGES, errors.UnsupportedMediaType),
        extra=_BODY,
    )
    async def write_linked_file(link: LinkPart, request: Request) -> FileAnswer:
        """Upload the file of a link: the body, whatever its type."""
        found = await holders.admit(request, link, "PUT")
        grant = found.grant
        declared = int(exchange_of(request.scope).headers.get(b"content-length", b"0"))
        _check_length(grant, declared)
        body = _bounded(stream_body(request.scope, request.receive), grant)
        written = await files.write(
            found.holder,
            grant.environment_id,
            grant.path,
            body,
            overwrite=grant.overwrite,
            mode=None,
            size_bytes=declared,
        )
        return FileAnswer.of(written)


async def _bounded(body: AsyncIterator[bytes], grant: FileGrant) -> AsyncIterator[bytes]:
    size = 0
    async for piece in body:
        size += len(piece)
        _check_length(grant, size)
        yield piece


def _check_length(grant: FileGrant, size: int) -> None:
    """Raises ``FileTooLarge``."""
    if grant.most_bytes is not None and size > grant.most_bytes:
        raise FileTooLarge(
            f"The link is for a file of at most {grant.most_bytes} bytes", {"limit_bytes": grant.most_bytes}
        )
