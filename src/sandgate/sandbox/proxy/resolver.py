"""From a host to the addresses that are connected to: the very ones that were judged."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Address, ip_address

from sandgate.core.destinations import Address, SpecialAddresses, bare, parse_address
from sandgate.sandbox.proxy.problems import Problem, Reason

_THREADS = 32
# Of one owner, so that names whose servers are slow hold up those of others at most for a while.
_MOST_OF_OWNER = 8
_MOST_ADDRESSES = 8

LookUp = Callable[[str], Sequence[str]]


def look_up(host: str) -> Sequence[str]:
    """What the machine's resolver says of a name. Blocks; raises ``OSError``, ``UnicodeError``."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # A zone (fe80::1%eth0) names an interface of this machine; without it the address is judged the same.
    return list(dict.fromkeys(str(answer[4][0]).partition("%")[0] for answer in found))


class Resolver:
    """``special`` tells which addresses may be reached; this machine's own may not, unless they are listed."""

    def __init__(self, special: SpecialAddresses, look_up: LookUp = look_up) -> None:
        self._special = special
        self._look_up = look_up
        self._threads: ThreadPoolExecutor | None = None
        self._busy: Counter[str] = Counter()

    async def resolve(self, host: str, owner: str) -> Sequence[str]:
        """The addresses to connect to, in order. Raises ``Problem``."""
        literal = parse_address(host)
        found = [literal] if literal is not None else await self._ask(host, owner)
        allowed = [
            address
            for address in self._special.judge(host, found)
            if self._special.names(host) or self._special.is_listed(address) or not is_own(address)
        ]
        if not allowed:
            raise Problem(Reason.ADDRESS_REFUSED, f"{host} has no address that environments may reach")
        return [str(address) for address in allowed[:_MOST_ADDRESSES]]

    async def _ask(self, host: str, owner: str) -> list[Address]:
        if self._busy[owner] >= _MOST_OF_OWNER:
            raise Problem(Reason.TOO_MANY_NAMES, "too many names are being looked up for you already")
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "resolver")
        looking = asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, host)
        # Counted until the thread is free, also when nobody waits for it any more.
        self._busy[owner] += 1
        looking.add_done_callback(lambda _looked: self._give_back(owner))
        try:
            return [bare(ip_address(text)) for text in await asyncio.shield(looking)]
        except (OSError, UnicodeError, ValueError):
            raise Problem(Reason.NAME_UNKNOWN, f"the name {host} has no address") from None

    def _give_back(self, owner: str) -> None:
        self._busy[owner] -= 1
        if not self._busy[owner]:
            del self._busy[owner]

    def close(self) -> None:
        """Look up no more names."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def is_own(address: Address) -> bool:
    """Whether an address is one of this machine's, whose services would take us for a program of this machine.

    The kernel chooses the address itself to talk to it from. Nothing is sent: a datagram socket that is connected only
    looks for a route.
    """
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
        except OSError:
            return False
        return ip_address(probe.getsockname()[0].partition("%")[0]) == address
