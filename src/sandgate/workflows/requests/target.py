"""Where a request goes: a URL, taken apart once, so that what is judged is what is connected to."""

from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from sandgate.workflows.requests.problems import RequestProblem

_PORTS = {"http": 80, "https": 443}
# What may stand in a path or query as it is; everything else is written as bytes of UTF-8.
_AS_IT_IS = "%/:?@!$&'()*+,;=~-._[]"


@dataclass(frozen=True, slots=True)
class Target:
    """``host`` is a name or an address without brackets; ``path`` has the query and is ready to be sent."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host and port: all of a URL that may be shown."""
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse_target(url: str) -> Target:
    """Raises ``RequestProblem`` for what is no http or https URL, and for one with a user or a password in it."""
    if any(ord(sign) <= 32 or ord(sign) == 127 or "\ud800" <= sign <= "\udfff" for sign in url) or "\\" in url:
        raise _bad("holds a space, a backslash, a control character or half of a surrogate pair")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _bad("has a host or a port that cannot be read") from None
    if parts.scheme not in _PORTS:
        raise _bad("has to start with https:// or http://")
    if "@" in parts.netloc:
        raise _bad("has a user or a password in it; put credentials into a header")
    if not host or "%" in host or port == 0:
        raise _bad("names no host")
    path = quote(parts.path or "/", safe=_AS_IT_IS) + (f"?{quote(parts.query, safe=_AS_IT_IS)}" if parts.query else "")
    return Target(parts.scheme, _ascii(host), port or _PORTS[parts.scheme], path)


def follow(target: Target, location: str) -> Target:
    """Where a redirect leads. Raises ``RequestProblem``."""
    try:
        url = urljoin(f"{target.origin}{target.path}", location)
    except ValueError:
        raise _bad("cannot be read, which a redirect led to") from None
    found = parse_target(url)
    if (target.scheme, found.scheme) == ("https", "http"):
        raise RequestProblem("RedirectRefused", f"{target.origin} redirects from https to http")
    return found


def _ascii(host: str) -> str:
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise _bad("names a host that has no form in ASCII") from None


def _bad(what: str) -> RequestProblem:
    return RequestProblem("BadUrl", f"The URL {what}")
