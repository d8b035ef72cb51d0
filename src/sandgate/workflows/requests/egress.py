"""Which addresses a request may reach. A name is resolved here, and the very address that was judged is connected to,
so that a name that means something else a moment later helps nobody.
"""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from sandgate.core.destinations import Address, SpecialAddresses
from sandgate.workflows.requests.problems import RequestProblem

_RESOLVERS = 8
_MOST_ADDRESSES = 8


class Egress:
    """``allowed`` are networks and host names, separated by commas, that may be reached all the same."""

    def __init__(self, allowed: str = "") -> None:
        """Raises ``ConfigurationError``."""
        self._special = SpecialAddresses(allowed, "SANDGATE_HTTP_STEP_ALLOW")
        self._resolvers: ThreadPoolExecutor | None = None

    def is_allowed(self, address: Address) -> bool:
        """Whether the address may be reached, whatever name led to it."""
        return self._special.is_allowed(address)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host that may be reached, in the order to try them. Raises ``RequestProblem``."""
        addresses = self._special.judge(host, await self._look_up(host, port))
        if not addresses:
            raise RequestProblem(
                "AddressRefused",
                # Not which: users are told no addresses of a network that they may not reach.
                f"{host} has no address that steps may reach; an administrator may allow it with "
                "SANDGATE_HTTP_STEP_ALLOW",
            )
        return [str(address) for address in addresses[:_MOST_ADDRESSES]]

    def close(self) -> None:
        """Resolve no more names."""
        if self._resolvers is not None:
            self._resolvers.shutdown(wait=False, cancel_futures=True)
            self._resolvers = None

    async def _look_up(self, host: str, port: int) -> Sequence[Address]:
        # Threads of their own: a name server that is slow holds up nothing but other names.
        if self._resolvers is None:
            self._resolvers = ThreadPoolExecutor(_RESOLVERS, "sandgate-resolver")
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(
                self._resolvers, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            )
        except (OSError, UnicodeError):
            raise RequestProblem("NameUnknown", f"The name {host} has no address") from None
        # A zone (fe80::1%eth0) names an interface of this machine; without it the address is judged the same.
        texts = dict.fromkeys(str(answer[4][0]).partition("%")[0] for answer in answers)
        return [ip_address(text) for text in texts]
