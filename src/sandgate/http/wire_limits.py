"""What clients may make the server wait for, and hold, before there is a request."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sandgate.config.settings import Settings
from sandgate.core.addresses import TrustedProxies, network_of
from sandgate.core.errors import SandgateError

# Who is told of what was refused before it was a request: the client's address, why, and the id in the answer.
TellRefused = Callable[[str, SandgateError, str], None]


def tell_nobody(_address: str, _error: SandgateError, _request_id: str) -> None:
    """Of what is refused."""


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What a client may make the server wait for, and hold; who is told when it was too much."""

    head_timeout_s: float
    body_timeout_s: float
    max_connections: int
    max_of_address: int = sys.maxsize
    proxies: TrustedProxies = field(default_factory=lambda: TrustedProxies(()))
    unread_answer_timeout_s: float = 120.0
    tell_refused: TellRefused = tell_nobody
    held: Counter[str] = field(default_factory=Counter)
    """Connections by the network of their client."""

    @classmethod
    def of(cls, settings: Settings, tell_refused: TellRefused = tell_nobody) -> "WireLimits":
        """From the settings."""
        proxies = TrustedProxies.parse(settings.trusted_proxies)
        return cls(
            settings.head_timeout_s,
            settings.body_timeout_s,
            settings.max_connections,
            settings.max_connections_per_address,
            proxies,
            settings.unread_answer_timeout_s,
            tell_refused,
        )

    def place_of(self, peer: Any) -> str | None:
        """What a connection from there is counted by; None when it is not: it is a proxy's, or from no network."""
        if not isinstance(peer, tuple) or self.proxies.holds(str(peer[0])):
            return None
        return network_of(str(peer[0]))
