"""Addresses of clients: what one customer holds, and who is believed about others."""

import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network_of(address: str) -> str:
    """What an address is counted by: itself, and for IPv6 its /64, which is what one customer is given."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(parsed), 64), strict=False).network_address)
    return str(parsed)


class TrustedProxies:
    """Proxies that are believed about the clients before them."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks

    @classmethod
    def parse(cls, text: str) -> "TrustedProxies":
        """From networks and addresses, separated by commas. Raises ``ValueError`` that names what is none."""
        return cls([ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()])

    def __bool__(self) -> bool:
        return bool(self._networks)

    def holds(self, address: str) -> bool:
        """Whether the address is that of such a proxy."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._networks)

    def find_client(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """The client, of a connection from ``peer`` with these values of ``X-Forwarded-For``.

        Each proxy adds whom it got the request from to the end of the list, so that it is read from there, for as
        long as whoever added is believed. What a client writes into it stands before that, and is not.
        """
        hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
        address = peer
        while hops and self.holds(address):
            hop = hops.pop()
            try:
                address = str(ipaddress.ip_address(hop))
            except ValueError:
                break
        return address
