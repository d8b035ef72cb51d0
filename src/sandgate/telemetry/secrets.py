"""Keeps secrets out of the log: the last line of defence, after not logging them in the first place."""

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

MASK = "***"

_SECRET_NAMES = frozenset(
    {
        "access_token",
        "api_key",
        "apikey",
        "authorization",
        "body",
        "code",
        "cookie",
        "credential",
        "credentials",
        "passwd",
        "password",
        "password_hash",
        "secret",
        "set_cookie",
        "token",
    }
)
_SECRET_ENDINGS = ("_password", "_secret", "_token", "_credential", "_password_hash")
_DEEPEST = 6

#: Tokens, API keys, tokens and secrets of webhooks, hashes of passwords, and passwords in the address of a database.
_SECRET_TEXT = re.compile(
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"
    r"|sgk_[0-9a-z]{8,}_[0-9A-Za-z]+"
    r"|wh[ks]_[0-9A-Za-z_-]{16,}"
    r"|\$argon2\w+\$[^\s'\"]+"
    r"|(?i:(?<=bearer )|(?<=basic ))[^\s'\",;]+"
    r"|(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"
)


def mask_text(text: str) -> str:
    """The text without what looks like a token, an API key or a password in a URL."""
    return _SECRET_TEXT.sub(MASK, text)


def is_secret_name(name: str) -> bool:
    """Whether a value of this name is a secret."""
    name = name.lower().replace("-", "_")
    return name in _SECRET_NAMES or name.endswith(_SECRET_ENDINGS)


def mask_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask an event's values, by name and by what they look like: a processor of structlog."""
    for name, value in event.items():
        event[name] = MASK if is_secret_name(name) else _mask(value, _DEEPEST)
    return event


def _mask(value: Any, depth: int) -> Any:
    """The value with everything in it masked, down to a depth."""
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if depth == 0:
        return MASK if isinstance(value, Mapping | list | tuple | set | frozenset) else value
    if isinstance(value, Mapping):
        return {
            key: MASK if isinstance(key, str) and is_secret_name(key) else _mask(item, depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_mask(item, depth - 1) for item in value]
    return value
