"""Which addresses of the world may be reached from here, and by which names hosts are called.

Shared by all that connects for somebody who is not trusted: requests of workflows' steps, the proxy of environments.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import idna

from sandgate.core.errors import ConfigurationError

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

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LONGEST_NAME = 253
# Some readers take a name whose last label is one of these for an address. Source: WHATWG URL, "ends in a number".
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class SpecialAddresses:
    """Tells addresses of the public network from all others.

    ``allowed`` are networks and host names, separated by commas, that may be reached all the same; ``setting`` is the
    setting that they come from.
    """

    def __init__(self, allowed: str, setting: str) -> None:
        """Raises ``ConfigurationError``."""
        self._hosts: set[str] = set()
        self._networks: list[Network] = []
        self._setting = setting
        for text in filter(None, map(str.strip, allowed.split(","))):
            self._allow(text)

    def _allow(self, text: str) -> None:
        try:
            self._networks.append(ip_network(text))
        except ValueError:
            if "/" in text or ":" in text or text.replace(".", "").isdigit():
                raise ConfigurationError(
                    f"{self._setting}: {text} is neither a network, as in 10.1.0.0/16, nor the name of a host."
                ) from None
            self._hosts.add(_plain(text))

    def is_allowed(self, address: Address) -> bool:
        """Whether the address may be reached, whatever name led to it."""
        address = bare(address)
        if self.is_listed(address):
            return True
        if isinstance(address, IPv4Address):
            return not any(address in network for network in _REFUSED_4)
        return address in _GLOBAL_6 and not any(address in network for network in _REFUSED_6)

    def is_listed(self, address: Address) -> bool:
        """Whether the setting names a network that the address is in."""
        return any(bare(address) in network for network in self._networks)

    def names(self, host: str) -> bool:
        """Whether the setting names the host, which then may have any address."""
        return _plain(host) in self._hosts

    def judge(self, host: str, found: Iterable[Address]) -> list[Address]:
        """Those of a host's addresses that may be reached, in the form to connect to."""
        return [bare(address) for address in found if self.names(host) or self.is_allowed(address)]


def bare(address: Address) -> Address:
    """``::ffff:192.0.2.1`` is judged, and connected to, as what it holds."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _plain(host: str) -> str:
    return host.lower().removesuffix(".")


def parse_host(text: str) -> str:
    """A host's name or address in the one form in which two are compared: lower case, ASCII, no dot at the end.

    Raises ``ValueError`` that says what is wrong with it; addresses in other forms than the usual one are wrong.
    """
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in inner or inner != text:
        address = parse_address(inner)
        if not isinstance(address, IPv6Address) or address.scope_id is not None:
            raise ValueError("is no address")
        return str(bare(address))
    name = _to_ascii(_plain(text))
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise ValueError("is no name of a host")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        return str(_parse_dotted(name))
    return name


def _parse_dotted(name: str) -> IPv4Address:
    try:
        return IPv4Address(name)
    except ValueError:
        raise ValueError("is an address in a form other than 192.0.2.1") from None


def _to_ascii(name: str) -> str:
    if name.isascii():
        return name
    try:
        return idna.encode(name, uts46=True).decode("ascii").removesuffix(".")
    except idna.IDNAError:
        raise ValueError("has no form in ASCII") from None


def parse_address(host: str) -> Address | None:
    """The address that a host of :func:`parse_host` is, None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None
