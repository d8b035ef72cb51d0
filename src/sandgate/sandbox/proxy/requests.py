"""What a client of the proxy asks for, taken apart once, so that what is judged is what is sent on.

Source: RFC 9112, sections 3.2 and 3.3; RFC 9110, sections 7.6.1 and 9.3.6.
"""

import re
from dataclasses import dataclass

import h11

from sandgate.core.destinations import parse_host
from sandgate.sandbox.proxy.problems import Problem, Reason

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\\?#%\s]+)(?::([0-9]{1,5}))?")
_ABSOLUTE = re.compile(r"http://([^/?#\\]+)(/[^#]*|\?[^#]*)?", re.IGNORECASE)
HTTP_PORT = 80


@dataclass(frozen=True, slots=True)
class Asked:
    """``path`` is None where a tunnel is asked for; ``authority`` is for the Host header."""

    host: str
    port: int
    authority: str
    path: str | None


def read_request(request: h11.Request) -> Asked:
    """Where a request wants to go. Raises ``Problem`` for all that could be understood in two ways."""
    _check_framing(request)
    target = request.target.decode("latin-1")
    if request.method == b"CONNECT":
        if any(name in (b"content-length", b"transfer-encoding") for name, _ in request.headers):
            raise _bad("a tunnel is asked for without a body")
        host, port, _authority = _parse_authority(target, None)
        _check_host_header(request, host, port, None)
        return Asked(host, port, target, None)
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise _bad("the target has to be a whole URL that begins with http://; for https ask for a tunnel")
    host, port, authority = _parse_authority(match[1], HTTP_PORT)
    _check_host_header(request, host, port, HTTP_PORT)
    path = match[2] or "/"
    return Asked(host, port, authority, path if path.startswith("/") else f"/{path}")


def _check_framing(request: h11.Request) -> None:
    """The parser takes what follows from the second of two statements about the length; others take the first."""
    names = [name for name, _ in request.headers]
    if b"content-length" in names and b"transfer-encoding" in names:
        raise _bad("the length of the body is stated in two ways")
    if names.count(b"host") > 1 or names.count(b"transfer-encoding") > 1:
        raise _bad("a header is given twice that can be given once")


def _check_host_header(request: h11.Request, host: str, port: int, usual: int | None) -> None:
    given = dict(request.headers).get(b"host")
    if given is None:
        return
    named = _parse_authority(given.decode("latin-1"), port if usual is None else usual)
    if named[:2] != (host, port):
        raise _bad("the header Host names another host than the target")


def _parse_authority(text: str, usual: int | None) -> tuple[str, int, str]:
    """Host, port, and both as they are sent on."""
    match = _AUTHORITY.fullmatch(text)
    if match is None or (match[2] is None and usual is None):
        raise _bad("the target names no host and port")
    port = usual if match[2] is None else int(match[2])
    if port is None or not 0 < port < 65_536:
        raise _bad("the target has no port from 1 to 65535")
    try:
        host = parse_host(match[1])
    except ValueError:
        raise _bad("the target names no host") from None
    shown = f"[{host}]" if ":" in host else host
    return host, port, shown if port == usual else f"{shown}:{port}"


def _bad(text: str) -> Problem:
    return Problem(Reason.BAD_REQUEST, text)
