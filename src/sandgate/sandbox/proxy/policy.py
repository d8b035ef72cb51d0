"""What the administrator lets environments reach, whatever their own rules say."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from sandgate.core.destinations import Network, bare
from sandgate.core.errors import ConfigurationError
from sandgate.core.network import HostRule


@dataclass(frozen=True, slots=True)
class _Pattern:
    """``rule`` None is every host."""

    rule: HostRule | None
    port: int | None

    def holds(self, host: str, port: int) -> bool:
        return (self.rule is None or self.rule.names(host)) and self.port in (None, port)


class Patterns:
    """Hosts, ports and networks of a setting: ``name``, ``*.name``, ``*``, each with ``:port``, or ``192.0.2.0/24``."""

    def __init__(self, text: str, setting: str) -> None:
        """Raises ``ConfigurationError``."""
        self._patterns: list[_Pattern] = []
        self._networks: list[Network] = []
        for part in filter(None, map(str.strip, text.split(","))):
            try:
                self._add(part)
            except ValueError:
                raise ConfigurationError(
                    f"{setting}: {part} is not of the form name, *.name, *, each with :port or without, or a network."
                ) from None

    def _add(self, text: str) -> None:
        if "/" in text:
            self._networks.append(ip_network(text))
            return
        if text == "*" or text.startswith("*:"):
            # Any name, for the sake of its port.
            port = HostRule.parse(f"any{text[1:]}").port
            self._patterns.append(_Pattern(None, port))
            return
        rule = HostRule.parse(text)
        self._patterns.append(_Pattern(rule, rule.port))

    def __bool__(self) -> bool:
        return bool(self._patterns or self._networks)

    def holds(self, host: str, port: int) -> bool:
        """Whether a pattern is about the host at the port."""
        return any(pattern.holds(host, port) for pattern in self._patterns)

    def holds_any(self, addresses: Sequence[str], port: int) -> bool:
        """Whether one is about an address that a host has."""
        found = [bare(ip_address(text)) for text in addresses]
        return any(self.holds(str(address), port) for address in found) or any(
            address in network for address in found for network in self._networks
        )
