"""Origins of web pages, by which browsers tell whose scripts ask. Source: RFC 6454."""

import re

# As a browser writes one: no path, no capitals, a port only where it is not the usual one.
_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:]+\])(?::(?P<port>\d{1,5}))?"
)
_USUAL_PORTS = {"http": "80", "https": "443"}


def parse_origins(text: str) -> frozenset[str]:
    """Origins, separated by commas. Raises ``ValueError`` that names what no browser would send."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    for origin in found:
        match = _ORIGIN.fullmatch(origin)
        if match is None or match["port"] == _USUAL_PORTS[match["scheme"]]:
            raise ValueError(
                f"{origin!r} is no origin; write https://app.example.com, in lower case, with a port only where it is "
                "not the usual one, and without a path or a wildcard"
            )
    return frozenset(found)
