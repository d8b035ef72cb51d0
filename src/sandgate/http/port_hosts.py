"""Ports under names of their own: ``8000-env-….DOMAIN``, each an origin to itself for browsers.

A browser brings no token of its own accord. It comes with a link once, which becomes a cookie for that name alone; a
request that another page made is refused, because names below one domain count as one site.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode

from starlette.types import ASGIApp, Receive, Scope, Send

from sandgate.auth.base import Authenticator
from sandgate.core.errors import Forbidden, MethodNotAllowed, NotAuthenticated, NotFound, PortLinkNotFound
from sandgate.core.ids import EnvironmentId
from sandgate.core.port_link import LARGEST_PORT, PortGrant
from sandgate.core.principal import Principal
from sandgate.http.answer import Answer
from sandgate.http.authentication import authenticate
from sandgate.http.exchange import Exchange, exchange_of
from sandgate.http.port_answer import PortAnswer
from sandgate.http.port_headers import COOKIE, SECURE_COOKIE, PortTarget, find_cookies
from sandgate.http.port_passage import PASSED_METHODS, Check
from sandgate.http.routes.ports import PortSite

_LINK = "sandgate-link"
# A head holds no more of any use.
_MOST_COOKIES = 64
_HOST = r"([1-9][0-9]{0,4})-(env-[0-9a-z]{12,64})\.%s(?::[0-9]{1,5})?"


class PortHosts:
    """An application in front of another one: it serves requests for names below the domain, and no others."""

    def __init__(self, app: ASGIApp, site: PortSite, authenticator: Authenticator) -> None:
        self._app = app
        self._site = site
        self._authenticator = authenticator
        self._host = re.compile(_HOST % re.escape(site.domain), re.IGNORECASE)
        self._below = re.compile(rf"(?:.*\.)?{re.escape(site.domain)}(?::[0-9]+)?", re.IGNORECASE | re.DOTALL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        exchange = exchange_of(scope)
        host = exchange.headers.get(b"host", b"").decode("latin-1")
        if not self._site.domain or self._below.fullmatch(host) is None:
            await self._app(scope, receive, send)
            return
        exchange.operation = "use_port_host"
        exchange.has_origin = True
        if scope["method"] not in PASSED_METHODS:
            raise MethodNotAllowed(
                f"{scope['method'][:32]} is not passed in; {', '.join(PASSED_METHODS)} are",
                {"allowed": [*PASSED_METHODS]},
            )
        grant = self._read(host)
        link = _find_link(scope)
        if link is not None:
            await self._begin(scope, send, exchange, grant, link)
            return
        try:
            caller, check = await self._admit(scope, exchange, grant)
            target = PortTarget(grant.environment_id, grant.port, _path_of(scope), has_origin=True)
            answer = PortAnswer(self._site.ports, caller, target, self._site.limits, check)
            await answer.serve(scope, receive, send)
        finally:
            if exchange.holds_place and exchange.caller is not None:
                self._site.holders.at_once.give_back(exchange.caller.user_id)

    def _read(self, host: str) -> PortGrant:
        match = self._host.fullmatch(host)
        if match is None or int(match[1]) > LARGEST_PORT:
            raise NotFound(f"There is nothing at {host[:200]}; ports are found at PORT-ENVIRONMENT.{self._site.domain}")
        return PortGrant(EnvironmentId(match[2].lower()), int(match[1]))

    async def _begin(self, scope: Scope, send: Send, exchange: Exchange, grant: PortGrant, link: str) -> None:
        """Turn a link in the address into a cookie. Raises ``PortLinkNotFound``."""
        found = await self._site.holders.links.open(link)
        if found.grant != grant:
            raise PortLinkNotFound("The link is for another port; get a new one made")
        self._site.holders.rate.take(found.holder.user_id)
        query = [pair for pair in parse_qsl(scope["query_string"].decode("latin-1"), True) if pair[0] != _LINK]
        location = scope["raw_path"].partition(b"?")[0] + (f"?{urlencode(query)}".encode() if query else b"")
        # A path that begins with two slashes would name another host.
        location = b"/" + location.lstrip(b"/\\")
        attributes = b"; Path=/; HttpOnly; SameSite=Lax" + (b"; Secure" if exchange.is_secure else b"")
        cookie = _cookie(exchange) + b"=" + link.encode() + attributes
        headers = ((b"location", location), (b"set-cookie", cookie))
        await Answer(HTTPStatus.SEE_OTHER, b"", b"text/plain", headers).send(send)

    async def _admit(self, scope: Scope, exchange: Exchange, grant: PortGrant) -> tuple[Principal, Check]:
        """Who asks: by the cookie of a link, or with a token."""
        cookies = find_cookies(scope["headers"], _cookie(exchange))
        holders = self._site.holders
        if cookies:
            _check_own_page(exchange.headers, scope["method"])
            token = await self._choose(cookies, grant)
            found = await holders.admit(exchange, token)
            return found.holder, lambda: holders.links.open(token)
        if b"authorization" not in exchange.headers:
            raise NotAuthenticated("This port needs a link of its owner's, or a token in Authorization: Bearer")
        caller = exchange.caller = await authenticate(exchange, self._authenticator)
        holders.rate.take(caller.user_id)
        holders.at_once.take(caller.user_id)
        exchange.holds_place = True
        return caller, lambda: authenticate(exchange, self._authenticator)

    async def _choose(self, cookies: Sequence[bytes], grant: PortGrant) -> str:
        """The one that is for this port. Raises ``PortLinkNotFound``."""
        for cookie in cookies[:_MOST_COOKIES]:
            token = cookie.decode("latin-1")
            with suppress(PortLinkNotFound):
                if (await self._site.holders.links.open(token)).grant == grant:
                    return token
        raise PortLinkNotFound("The link is for another port, or not good any more; get a new one made")


def _cookie(exchange: Exchange) -> bytes:
    return SECURE_COOKIE if exchange.is_secure else COOKIE


def _find_link(scope: Scope) -> str | None:
    query = scope["query_string"]
    if scope["method"] != "GET" or _LINK.encode() not in query:
        return None
    return dict(parse_qsl(query.decode("latin-1"))).get(_LINK)


def _path_of(scope: Scope) -> bytes:
    raw: bytes = scope["raw_path"].partition(b"?")[0]
    query: bytes = scope["query_string"]
    return raw + (b"?" + query if query else b"")


def _check_own_page(headers: Mapping[bytes, bytes], method: str) -> None:
    """The cookie comes with what pages of other ports ask for, too. Raises ``Forbidden``.

    Source: Fetch Metadata Request Headers of the W3C; ``Origin`` of who does not send those.
    """
    site, mode = headers.get(b"sec-fetch-site"), headers.get(b"sec-fetch-mode")
    origin = headers.get(b"origin")
    own = headers.get(b"host", b"")
    foreign = origin is not None and origin.partition(b"://")[2] != own
    if site in (b"same-site", b"cross-site"):
        foreign = not (mode == b"navigate" and method == "GET")
    if foreign:
        raise Forbidden("A page of another origin asked for this; open it by itself")
