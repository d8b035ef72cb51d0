"""For programs that use a server over HTTP: a client of it, what it answers and what it raises.

What takes long to import is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from sandgate.sdk.errors import ApiError, ClientError, ServerUnreachable, UnexpectedAnswer

if TYPE_CHECKING:
    from sandgate.sdk.client import Client
    from sandgate.sdk.volumes import Mount

__all__ = ["ApiError", "Client", "ClientError", "Mount", "ServerUnreachable", "UnexpectedAnswer"]

_PLACES = {"Client": "sandgate.sdk.client", "Mount": "sandgate.sdk.volumes"}


def __getattr__(name: str) -> object:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
