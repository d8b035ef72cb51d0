"""Addresses of servers and credentials, from text: checked before anything is sent anywhere."""

import ipaddress
import re
from urllib.parse import urlsplit

from sandgate.sdk.errors import InvalidAddress

# What may stand in a header without a doubt; tokens and API keys are made of less.
_CREDENTIAL = re.compile(r"[\x21-\x7e]{1,16384}")


def parse_address(text: str) -> str:
    """The base URL of a server, without a slash at its end. Raises ``InvalidAddress``."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise InvalidAddress(f"{text!r} is not the address of a server: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidAddress(f"{text!r} is not the address of a server; write it as in https://sandgate.example:8080")
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidAddress("The address of a server has no user name, no query and no fragment")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


def check_credential(credential: str) -> str:
    """A token or an API key as it may be sent. Raises ``InvalidAddress``, which does not show it."""
    if not _CREDENTIAL.fullmatch(credential):
        raise InvalidAddress("The token or API key is empty or has characters that none has")
    return credential


def is_loopback(address: str) -> bool:
    """Whether what is sent to this address stays on the machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_readable_on_the_way(address: str) -> bool:
    """Whether others on the network may read what is sent to this address."""
    return address.startswith("http:") and not is_loopback(address)
