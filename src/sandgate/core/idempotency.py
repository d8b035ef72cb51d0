"""Keys that make a request safe to send again, and the answers that are kept for them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sandgate.core.ids import UserId

RecordT = TypeVar("RecordT")


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """A key that a request has taken.

    ``claim_id`` tells it from every other claim of the same key, and ``server_id`` who gives it back should the
    server of the request die.
    """

    user_id: UserId
    key: str
    claim_id: str
    server_id: str


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What is answered to a request with a key, on disk together with what it did, or neither is.

    ``status`` None makes it a draft, in the place of which a later answer may be kept; it counts if none is.
    """

    claim: KeyClaim
    status: int | None
    body: bytes


Keep = Callable[[RecordT], KeptAnswer]
"""Makes what is kept with a new record of the record."""
