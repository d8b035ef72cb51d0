"""What an image in a registry is called."""

import re
from dataclasses import dataclass
from typing import Self

from sandgate.core.destinations import parse_host

LONGEST_REFERENCE = 500
_NAME = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
# Source: the OCI distribution specification, "Pulling manifests".
_REFERENCE = re.compile(
    rf"(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::(?P<port>[0-9]{{1,5}}))?/(?P<name>{_NAME}(?:/{_NAME})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class ImageReference:
    """``digest`` None: what ``tag`` is at that time."""

    host: str
    port: int | None
    name: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``registry.example.com/name:tag@sha256:…``. Raises ``ValueError`` that says what is wrong."""
        match = _REFERENCE.fullmatch(text) if len(text) <= LONGEST_REFERENCE else None
        if match is None:
            raise ValueError("is not of the form registry/name:tag, registry/name@sha256:… or both")
        host, port = match["host"], match["port"]
        if "." not in host and port is None and host != "localhost" and not host.startswith("["):
            raise ValueError("does not begin with the host of a registry, as in registry.example.com/name:tag")
        if match["tag"] is None and match["digest"] is None:
            raise ValueError("has neither a tag nor a digest")
        if port is not None and not 0 < int(port) < 65_536:
            raise ValueError("has no port from 1 to 65535")
        return cls(parse_host(host), None if port is None else int(port), match["name"], match["tag"], match["digest"])

    @property
    def authority(self) -> str:
        """The registry, as it stands in an address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"
