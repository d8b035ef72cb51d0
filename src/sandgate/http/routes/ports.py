"""What listens in environments: asked with the owner's token, or by a link."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request

from sandgate.auth.base import PortLinks
from sandgate.config.settings import Settings
from sandgate.core import errors
from sandgate.core.audit import Credential
from sandgate.core.port_link import LARGEST_PORT, OpenPortLink, PortGrant
from sandgate.environments.base import Ports
from sandgate.http.api import Api
from sandgate.http.audit import Audit
from sandgate.http.authentication import Caller
from sandgate.http.bodies import refuse_field
from sandgate.http.exchange import Exchange, exchange_of
from sandgate.http.file_answer import OCTETS_CONTENT
from sandgate.http.marks import ParsedBy, Path
from sandgate.http.models.ports import PORT_LINKS, CreatePortLink, PortLinkAnswer
from sandgate.http.paths import EnvironmentPath
from sandgate.http.port_answer import PortAnswer
from sandgate.http.port_headers import PortTarget
from sandgate.http.port_passage import PASSED_METHODS, PortLimits
from sandgate.http.rate import RequestRate, RequestsAtOnce

_PORT = "/api/v1/sandbox/environments/{environment_id}/ports/{port}"
_TAG = "ports"
_DEFAULT_LIFETIME_S = 3600
_REFUSALS = (
    errors.EnvironmentNotFound,
    errors.Forbidden,
    errors.EnvironmentNotRunning,
    errors.EnvironmentElsewhere,
    errors.LauncherUnavailable,
    errors.NetworkNotOffered,
)
_PASSED = (
    *_REFUSALS,
    errors.InvalidRequest,
    errors.PortNotServed,
    errors.TooManyPortConnections,
    errors.PortAnswerInvalid,
    errors.PortTimeout,
)
_HELD = (errors.PortLinkNotFound, errors.TooManyRequests, errors.TooManyRequestsAtOnce, errors.StoreUnavailable)
_ANY: dict[str, Any] = {
    "responses": {
        "200": {
            "description": "Whatever the server inside answers, with its status and type.",
            "content": OCTETS_CONTENT,
        }
    }
}


class _Rest(Convertor[str]):
    """The rest of an address, if there is any."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("rest", _Rest())


def parse_port(text: str) -> int:
    """Raises ``InvalidRequest``."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= LARGEST_PORT):
        refuse_field("port", f"is no number from 1 to {LARGEST_PORT}")
    return int(text)


PortPart = Annotated[int, Path(ge=1, le=LARGEST_PORT, examples=[8000]), ParsedBy(parse_port)]
RestPart = Annotated[str, Path(examples=["index.html"])]
LinkPart = Annotated[str, Path(examples=["eyJ1c2VyIjoi…"])]


@dataclass(frozen=True, slots=True)
class PortHolders:
    """Lets in whoever comes with a link; what they ask for counts for the user who has made it."""

    links: PortLinks
    rate: RequestRate
    at_once: RequestsAtOnce

    async def admit(self, exchange: Exchange, token: str) -> OpenPortLink:
        """Raises ``PortLinkNotFound``, ``TooManyRequests``, ``TooManyRequestsAtOnce``; whoever calls gives back."""
        exchange.credential = Credential.LINK
        found = await self.links.open(token)
        self.rate.take(found.holder.user_id)
        self.at_once.take(found.holder.user_id)
        exchange.caller = found.holder
        exchange.holds_place = True
        exchange.name_part("environment_id", found.grant.environment_id)
        exchange.name_part("port", str(found.grant.port))
        return found


@dataclass(frozen=True, slots=True)
class PortSite:
    """Where ports are found. ``domain`` empty: they have no names of their own."""

    ports: Ports
    holders: PortHolders
    limits: PortLimits
    domain: str
    longest_link_s: int

    @classmethod
    def of(cls, ports: Ports, holders: PortHolders, settings: Settings) -> "PortSite":
        """From the settings."""
        limits = PortLimits.of(settings)
        return cls(ports, holders, limits, settings.ports_domain, settings.max_port_link_lifetime_s)

    def origin_of(self, grant: PortGrant, exchange: Exchange) -> str | None:
        """Where a port is found under a name of its own, for who has asked so; None where it has none."""
        if not self.domain:
            return None
        return f"{exchange.scheme}://{grant.port}-{grant.environment_id}.{self.domain}{exchange.port_part}"


def add_port_routes(api: Api, site: PortSite) -> None:
    """Declare the operations."""
    for method in PASSED_METHODS:
        _add_port_route(api, site, method)
        _add_link_route(api, site, method)
    _add_making_route(api, site)


def _target_of(request: Request, grant: PortGrant, prefix: str) -> PortTarget:
    """What stands behind the prefix, byte for byte."""
    raw: bytes = request.scope["raw_path"].partition(b"?")[0]
    query: bytes = request.scope["query_string"]
    start = prefix.encode()
    # Whoever writes the prefix in another way finds nothing behind it.
    path = raw[len(start) :] if raw.startswith(start) else b""
    path = (path or b"/") + (b"?" + query if query else b"")
    return PortTarget(grant.environment_id, grant.port, path, start)


def _named(name: str, endpoint: Callable[..., Awaitable[PortAnswer]]) -> Callable[..., Awaitable[PortAnswer]]:
    """Each operation has a name of its own."""
    endpoint.__name__ = name
    return endpoint


def _add_port_route(api: Api, site: PortSite, method: str) -> None:
    async def pass_to_port(
        caller: Caller,
        environment_id: EnvironmentPath,
        port: PortPart,
        rest: RestPart,  # noqa: ARG001 - see _target_of
        request: Request,
    ) -> PortAnswer:
        """Ask what listens at a port of an environment. Your token, cookies and `Authorization` stay outside."""
        prefix = _PORT.format(environment_id=environment_id, port=port)
        target = _target_of(request, PortGrant(environment_id, port), prefix)
        return PortAnswer(site.ports, caller, target, site.limits)

    declare = api.operation(
        method, f"{_PORT}/{{rest:rest}}", tag=_TAG, audit=Audit.READ, errors=_PASSED, extra=_ANY
    )  # fmt: skip
    declare(_named(f"{method.lower()}_port", pass_to_port))


def _add_link_route(api: Api, site: PortSite, method: str) -> None:
    async def pass_to_linked_port(port_link: LinkPart, rest: RestPart, request: Request) -> PortAnswer:  # noqa: ARG001
        """Ask what listens at the port of a link. The address is the credential."""
        found = await site.holders.admit(exchange_of(request.scope), port_link)
        target = _target_of(request, found.grant, f"{PORT_LINKS}/{port_link}")

        async def check() -> object:
            return await site.holders.links.open(port_link)

        return PortAnswer(site.ports, found.holder, target, site.limits, check)

    path = f"{PORT_LINKS}/{{port_link}}/{{rest:rest}}"
    declare = api.operation(method, path, tag=_TAG, audit=Audit.READ, errors=(*_HELD, *_PASSED), extra=_ANY)
    declare(_named(f"{method.lower()}_linked_port", pass_to_linked_port))


def _add_making_route(api: Api, site: PortSite) -> None:
    @api.operation(
        "POST",
        "/api/v1/sandbox/environments/{environment_id}/port-links/{port}",
        tag=_TAG,
        status=201,
        audit=Audit.CHANGE,
        errors=_REFUSALS,
    )
    async def create_port_link(
        caller: Caller, environment_id: EnvironmentPath, port: PortPart, body: CreatePortLink, request: Request
    ) -> PortLinkAnswer:
        """Make a link with which anybody may talk to a port, without a token, until it expires.

        It ends with the environment, too, and when you are disabled or get a new password.
        """
        longest_s = site.longest_link_s
        lifetime_s = min(_DEFAULT_LIFETIME_S, longest_s) if body.expires_in is None else body.expires_in
        if lifetime_s > longest_s:
            refuse_field("expires_in", f"is more than {longest_s} seconds, the most that this server allows")
        await site.ports.check(caller, environment_id)
        grant = PortGrant(environment_id, port)
        link = site.holders.links.make(caller, grant, lifetime_s)
        return PortLinkAnswer.of(link, site.origin_of(grant, exchange_of(request.scope)))
