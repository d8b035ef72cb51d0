"""Decides which hosts an environment may reach, and connects to them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from sandgate.core.byte_stream import Stream, connect
from sandgate.core.network import NetworkLimits, NetworkRules
from sandgate.sandbox.proxy.ledger import Ledger
from sandgate.sandbox.proxy.policy import Patterns
from sandgate.sandbox.proxy.problems import Problem, Reason
from sandgate.sandbox.proxy.resolver import Resolver


@dataclass(slots=True)
class Place:
    """Where a connection comes from: an environment, whose it is, what it may reach, and what is written down of it."""

    environment_id: str
    owner: str
    rules: NetworkRules
    ledger: Ledger


class Gatekeeper:
    """Decides which hosts may be reached, and connects to them."""

    def __init__(self, resolver: Resolver, only: Patterns, deny: Patterns, limits: NetworkLimits) -> None:
        self._resolver = resolver
        self._only = only
        self._deny = deny
        self.limits = limits

    async def open(self, place: Place, host: str, port: int) -> Stream:
        """A connection to a host that an environment may reach. Raises ``Problem``."""
        if not place.rules.hold(host, port):
            text = f"{host}:{port} is not among the hosts that this environment may reach"
            raise Problem(Reason.HOST_NOT_ALLOWED, text)
        if self._deny.holds(host, port) or (self._only and not self._only.holds(host, port)):
            raise _denied(host)
        place.ledger.check_bytes()
        try:
            async with asyncio.timeout(self.limits.connect_timeout_s):
                addresses = await self._resolver.resolve(host, place.owner)
                if self._deny.holds_any(addresses, port):
                    raise _denied(host)
                return await self._connect(host, addresses, port)
        except TimeoutError:
            raise Problem(Reason.TIMED_OUT, f"{host}:{port} did not answer in time") from None

    @staticmethod
    async def _connect(host: str, addresses: Sequence[str], port: int) -> Stream:
        why = "it cannot be reached"
        for address in addresses:
            try:
                return await connect(address, port)
            except OSError as error:
                why = error.strerror or why
        raise Problem(Reason.CONNECTION_FAILED, f"there is no connection to {host}:{port}: {why}")


def _denied(host: str) -> Problem:
    return Problem(Reason.DENIED_BY_ADMINISTRATOR, f"{host} is denied by the administrator of this server")
