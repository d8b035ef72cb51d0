"""Requests to registries: each over one connection to an address that was judged, as those of environments are."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

import h11

from sandgate.core.built import BuildFailed
from sandgate.core.destinations import SpecialAddresses, parse_host
from sandgate.core.errors import ConfigurationError
from sandgate.core.network import NetworkPolicy
from sandgate.sandbox.proxy.policy import Patterns
from sandgate.sandbox.proxy.problems import Problem
from sandgate.sandbox.proxy.resolver import Resolver

_CONNECT_LIMIT_S = 15.0
_SILENCE_LIMIT_S = 60.0
_MOST_HEAD_BYTES = 64 * 1024
_PIECE_BYTES = 256 * 1024
_MOST_REDIRECTS = 5
_MOST_INTERIM = 16
_REDIRECTS = (301, 302, 303, 307, 308)
_USUAL = {"http": 80, "https": 443}
# A certificate that signs itself, or whose issuer is not there. Source: OpenSSL, X509_STORE_CTX_get_error(3).
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
_NAME_AUTHORITY = "; the administrator of this server can name its authority in SANDGATE_REGISTRY_CERTIFICATES"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; ``pieces`` are of the body, as it comes."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes]

    async def read(self, most_bytes: int) -> bytes:
        """The whole body. Raises ``BuildFailed``."""
        body = bytearray()
        async for piece in self.pieces:
            body += piece
            if len(body) > most_bytes:
                raise BuildFailed(f"the registry answers with more than {most_bytes} bytes")
        return bytes(body)


class Fetcher:
    """``insecure`` are the registries, ``host`` or ``host:port``, that are reached without TLS."""

    def __init__(
        self, policy: NetworkPolicy, insecure: frozenset[str] = frozenset(), authorities: Path | None = None
    ) -> None:
        """``authorities`` is a file with certificates that are believed beside the system's.

        Raises ``ConfigurationError``.
        """
        self._resolver = Resolver(SpecialAddresses(policy.special, "SANDGATE_NETWORK_ALLOW_SPECIAL"))
        self._only = Patterns(policy.only, "SANDGATE_NETWORK_ONLY")
        self._deny = Patterns(policy.deny, "SANDGATE_NETWORK_DENY")
        self._insecure = insecure
        self._authorities = authorities
        self._tls: ssl.SSLContext | None = None
        if authorities is not None:
            _check_authorities(authorities)

    def scheme_of(self, authority: str) -> str:
        """How a registry is spoken to."""
        is_insecure = authority in self._insecure or authority.rpartition(":")[0] in self._insecure
        return "http" if is_insecure else "https"

    @asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str], owner: str) -> AsyncIterator[Reply]:
        """Ask for something; redirects are followed, without ``Authorization`` to others. Raises ``BuildFailed``."""
        for _number in range(_MOST_REDIRECTS + 1):
            target = self._check(url)
            writer = None
            try:
                reader, writer = await self._connect(target, owner)
                reply = await _exchange(target, headers, reader, writer)
                location = reply.headers.get("location")
                if reply.status not in _REDIRECTS or location is None:
                    yield reply
                    return
            except ssl.SSLCertVerificationError as error:
                mend = _NAME_AUTHORITY if error.verify_code in _UNKNOWN_AUTHORITY else ""
                raise BuildFailed(
                    f"the certificate of the registry at {target.netloc} is not believed: {error.verify_message}{mend}"
                ) from None
            except (h11.ProtocolError, OSError, TimeoutError, UnicodeError) as error:
                why = "it does not answer in time" if isinstance(error, TimeoutError) else str(error)
                raise BuildFailed(f"the registry at {target.netloc} cannot be read: {why[:200]}") from None
            finally:
                if writer is not None:
                    writer.transport.abort()
            following = urljoin(url, location)
            if urlsplit(following).netloc != target.netloc:
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            url = following
        raise BuildFailed("the registry redirects too often")

    def _check(self, url: str) -> SplitResult:
        """Raises ``BuildFailed``."""
        try:
            target = urlsplit(url)
            is_right = target.hostname and target.username is None and (target.port or 1) > 0
            secure = target.scheme == "https" or (target.scheme == "http" and self.scheme_of(target.netloc) == "http")
            if is_right and secure and url.isascii() and url.isprintable() and " " not in url:
                return target
        except ValueError:
            pass
        raise BuildFailed(f"the registry names an address that is not asked: {url[:200]!a}")

    async def _connect(self, target: SplitResult, owner: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises ``BuildFailed``, ``OSError``, ``TimeoutError``."""
        try:
            host = parse_host(target.hostname or "")
        except ValueError:
            raise BuildFailed(f"{target.netloc} is no name of a host") from None
        port = target.port or _USUAL[target.scheme]
        if self._deny.holds(host, port) or (self._only and not self._only.holds(host, port)):
            raise BuildFailed(f"{host} is denied by the administrator of this server")
        tls = await self._get_tls() if target.scheme == "https" else None
        async with asyncio.timeout(_CONNECT_LIMIT_S):
            try:
                addresses = await self._resolver.resolve(host, owner)
            except Problem as problem:
                raise BuildFailed(f"the registry cannot be reached: {problem}") from None
            if self._deny.holds_any(addresses, port):
                raise BuildFailed(f"{host} is denied by the administrator of this server")
            name = host if tls is not None else None
            for address in addresses[:-1]:
                with suppress(OSError):
                    return await asyncio.open_connection(address, port, ssl=tls, server_hostname=name)
            return await asyncio.open_connection(addresses[-1], port, ssl=tls, server_hostname=name)

    async def _get_tls(self) -> ssl.SSLContext:
        if self._tls is None:
            # Reads the certificates of the system from disk.
            self._tls = await asyncio.to_thread(_make_tls, self._authorities)
        return self._tls


def _make_tls(authorities: Path | None) -> ssl.SSLContext:
    """Raises ``OSError``."""
    context = ssl.create_default_context()
    if authorities is not None:
        context.load_verify_locations(authorities)
        # From Python 3.13 on, certificates are refused that lack extensions which authorities of one's own rarely set.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _check_authorities(authorities: Path) -> None:
    """Raises ``ConfigurationError``."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(authorities)
    except OSError as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigurationError(
            f"SANDGATE_REGISTRY_CERTIFICATES: {authorities} cannot be used: {reason or 'it holds no certificate'}. It "
            "has to be readable for the user of the gateway, with certificates in PEM."
        ) from None


async def _exchange(
    target: SplitResult, headers: Mapping[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Reply:
    """Raises ``h11.ProtocolError``, ``OSError``, ``TimeoutError``."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD_BYTES)
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    lines = [("Host", target.netloc), ("Connection", "close"), ("User-Agent", "sandgate"), *headers.items()]
    writer.write(connection.send(h11.Request(method="GET", target=path, headers=lines)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()
    for _number in range(_MOST_INTERIM):
        event = await _next(connection, reader)
        if isinstance(event, h11.Response):
            found = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in event.headers}
            return Reply(event.status_code, found, _pieces(connection, reader))
        if not isinstance(event, h11.InformationalResponse):
            break
    raise h11.RemoteProtocolError("it closes the connection without an answer")


async def _pieces(connection: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while isinstance(event := await _next(connection, reader), h11.Data):
        yield bytes(event.data)
    if not isinstance(event, h11.EndOfMessage):
        raise h11.RemoteProtocolError("it closes the connection in the middle")


async def _next(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        async with asyncio.timeout(_SILENCE_LIMIT_S):
            connection.receive_data(await reader.read(_PIECE_BYTES))
    return event
