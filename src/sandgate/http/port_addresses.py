"""Addresses that a server in an environment names in its headers, seen from outside.

Clients follow them by themselves, and to the same host they take their token along. What leads to the host that was
asked leads below the port there, or nowhere.
"""

import re
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
# Clients do not agree on what these mean in an address.
_UNCLEAR = re.compile(r"[\x00-\x20\\\x7f-\xff]")
_WRITTEN_OTHERWISE = re.compile(r"%(2[ef]|5c)", re.IGNORECASE)
_SLASHES = re.compile("/+")
_LINKED = re.compile(rb"<([^>]*)>")


def inside_out(address: bytes, port: int, prefix: bytes) -> bytes:
    """What the server calls its own is below the prefix outside; other addresses are what they are."""
    if address.startswith(b"/") and not address.startswith((b"//", b"/\\")):
        return prefix + address
    try:
        parts = urlsplit(address.decode("latin-1"))
        own = parts.scheme == "http" and parts.hostname in _LOCAL_HOSTS and parts.port == port
    except ValueError:
        return address
    if not own:
        return address
    rest = parts._replace(scheme="", netloc="").geturl().encode("latin-1")
    return prefix + (rest if rest.startswith(b"/") else b"/" + rest)


def find_links(value: bytes) -> list[bytes]:
    """The addresses in a header ``Link``."""
    return _LINKED.findall(value)


class Surroundings:
    """Where a port is found within an address that is not its own: ``path`` was asked for, below ``prefix``.

    ``hosts`` are the names that the service was asked by.
    """

    def __init__(self, hosts: Collection[bytes], prefix: bytes, path: bytes) -> None:
        self._hosts = {name for host in hosts if (name := _name_of("//" + host.decode("latin-1"))) is not None}
        self._prefix = prefix.decode("latin-1")
        self._path = path.partition(b"?")[0].decode("latin-1")

    def hold(self, address: bytes) -> bool:
        """Whether an address, seen from outside, leads below the port, or to another host, whoever reads it."""
        text = address.decode("latin-1")
        if _UNCLEAR.search(text):
            return False
        try:
            parts = urlsplit(text)
        except ValueError:
            return False
        if parts.scheme not in ("", "http", "https"):
            return True
        if parts.scheme or text.startswith("//"):
            return self._is_elsewhere(text) or (bool(parts.netloc) and self._is_below(parts.path))
        return self._is_below(self._joined(parts))

    def _is_elsewhere(self, text: str) -> bool:
        """Who is sent to another host does not take a token along."""
        name = _name_of(text)
        return name is not None and name not in self._hosts

    def _joined(self, parts: SplitResult) -> str:
        if parts.path.startswith("/"):
            return parts.path
        whole = self._prefix + self._path
        return whole.rpartition("/")[0] + "/" + parts.path if parts.path else whole

    def _is_below(self, path: str) -> bool:
        """However dots and slashes are written."""
        plain = _WRITTEN_OTHERWISE.sub(lambda found: "." if found[1].lower() == "2e" else "/", path)
        # Between here and there may be somebody for whom several slashes are one.
        return all(_resolve(each).startswith(self._prefix + "/") for each in (plain, _SLASHES.sub("/", plain)))


def _resolve(path: str) -> str:
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del kept[-1:]
        elif part != ".":
            kept.append(part)
    return "/".join(kept)


def _name_of(address: str) -> str | None:
    """The name of the host; None when there is none that all would read alike."""
    try:
        name = urlsplit(address).hostname
    except ValueError:
        return None
    return name.rstrip(".").lower() if name and "%" not in name else None
