"""Which addresses a request may reach. A name is resolved here, and the very address that was judged is connected to,
so that a name that means something else a moment later helps nobody.
"""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from sandgate.core.errors import ConfigurationError
from sandgate.workflows.requests.problems import RequestProblem

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Not reached unless a setting says so. Source: the IANA special-purpose address registries.
_REFUSED_4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, metadata of clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# All that is reached lies in here; forms that hold an IPv4 address (::ffff:…, 64:ff9b::…) lie outside.
_GLOBAL_6 = IPv6Network("2000::/3")
_REFUSED_6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_RESOLVERS = 8
_MOST_ADDRESSES = 8


class Egress:
    """``allowed`` are networks and host names, separated by commas, that may be reached all the same."""

    def __init__(self, allowed: str = "") -> None:
        self._hosts: set[str] = set()
        self._networks: list[Network] = []
        self._resolvers: ThreadPoolExecutor | None = None
        for text in filter(None, map(str.strip, allowed.split(","))):
            self._allow(text)

    def _allow(self, text: str) -> None:
        try:
            self._networks.append(ip_network(text))
        except ValueError:
            if "/" in text or ":" in text or text.replace(".", "").isdigit():
                raise ConfigurationError(
                    f"SANDGATE_HTTP_STEP_ALLOW: {text} is neither a network, as in 10.1.0.0/16, nor the name of a host."
                ) from None
            self._hosts.add(_plain(text))

    def is_allowed(self, address: Address) -> bool:
        """Whether the address may be reached, whatever name led to it."""
        address = _bare(address)
        if any(address in network for network in self._networks):
            return True
        if isinstance(address, IPv4Address):
            return not any(address in network for network in _REFUSED_4)
        return address in _GLOBAL_6 and not any(address in network for network in _REFUSED_6)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host that may be reached, in the order to try them. Raises ``RequestProblem``."""
        found = await self._look_up(host, port)
        addresses = [_bare(address) for address in found if _plain(host) in self._hosts or self.is_allowed(address)]
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


def _bare(address: Address) -> Address:
    """``::ffff:192.0.2.1`` is judged, and connected to, as what it holds."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _plain(host: str) -> str:
    return host.lower().removesuffix(".")
