"""What an environment may reach of the network, and what it has reached."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from sandgate.core.destinations import parse_address, parse_host

USUAL_PORTS = (80, 443)
LONGEST_RULE = 300
_RULE = re.compile(r"(\*\.)?(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@*\s]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class HostRule:
    """One host, or with ``below`` every name below it but not itself; at one port, or at the usual ones."""

    host: str
    below: bool = False
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the form ``name``, ``*.name``, ``name:port``, ``192.0.2.1`` or ``[2001:db8::1]:port``.

        Raises ``ValueError`` that says what is wrong.
        """
        match = _RULE.fullmatch(text) if len(text) <= LONGEST_RULE else None
        if match is None:
            raise ValueError("is not of the form name, *.name, name:port or *.name:port")
        below, host, port = match[1] is not None, parse_host(match[2]), match[3]
        if below and parse_address(host) is not None:
            raise ValueError("has a star before an address")
        if port is not None and not 0 < int(port) < 65_536:
            raise ValueError("has no port from 1 to 65535")
        return cls(host, below, None if port is None else int(port))

    def __str__(self) -> str:
        """As it is parsed."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'*.' if self.below else ''}{host}{'' if self.port is None else f':{self.port}'}"

    def names(self, host: str) -> bool:
        """Whether it is about the host, in the form of :func:`parse_host`."""
        return host.endswith(f".{self.host}") if self.below else host == self.host

    def holds(self, host: str, port: int) -> bool:
        """Whether it is about the host at the port."""
        return self.names(host) and (port in USUAL_PORTS if self.port is None else port == self.port)


@dataclass(frozen=True, slots=True)
class NetworkRules:
    """Which hosts an environment may reach; none by default."""

    allow: tuple[HostRule, ...] = ()

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Self:
        """Raises ``ValueError`` that names what is wrong."""
        rules = []
        for text in texts:
            try:
                rules.append(HostRule.parse(text))
            except ValueError as error:
                raise ValueError(f"{text[:80]!r} {error}") from None
        return cls(tuple(dict.fromkeys(rules)))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls.parse(value["allow"])

    def to_json(self) -> dict[str, Any]:
        """As it is kept and told."""
        return {"allow": self.texts()}

    def texts(self) -> list[str]:
        """The rules as they are parsed."""
        return [str(rule) for rule in self.allow]

    def hold(self, host: str, port: int) -> bool:
        """Whether the host may be reached at the port."""
        return any(rule.holds(host, port) for rule in self.allow)


class Verdict(StrEnum):
    """What became of a connection that code asked for."""

    ALLOWED = "allowed"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection that code asked for. ``host`` and ``port`` are None where nothing readable was asked.

    ``reason`` says why it was denied, why it failed, or how it ended; it is empty while it is open. Bytes are those of
    the code: sent to the host and received from it.
    """

    started_at: datetime
    host: str | None
    port: int | None
    verdict: Verdict
    reason: str
    sent_bytes: int
    received_bytes: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class NetworkTotals:
    """What all connections of an environment came to since its proxy was started."""

    allowed: int = 0
    denied: int = 0
    failed: int = 0
    open: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class NetworkReport:
    """What an environment may reach, has reached in all, and its newest connections, newest first."""

    rules: NetworkRules | None
    totals: NetworkTotals
    connections: tuple[Connection, ...]


@dataclass(frozen=True, slots=True)
class NetworkLimits:
    """How much network there is; times in seconds."""

    connections: int = 1024
    connections_of_owner: int = 256
    connections_of_environment: int = 64
    total_bytes: int = 10 * 1024**3
    head_timeout_s: float = 10.0
    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 120.0
    lifetime_s: float = 3600.0
    kept_connections: int = 256
    logged_per_minute: int = 60


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """What the administrator says. ``special`` as :class:`SpecialAddresses` takes it, ``only`` and ``deny`` are
    patterns of hosts, separated by commas; ``only`` empty is every host.
    """

    special: str = ""
    only: str = ""
    deny: str = ""
    limits: NetworkLimits = NetworkLimits()
