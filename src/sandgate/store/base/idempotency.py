"""Answers that are kept for requests that come twice."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sandgate.core.idempotency import KeyClaim
from sandgate.core.ids import UserId


@dataclass(frozen=True, slots=True)
class SavedAnswer:
    """The first answer to a request with an idempotency key.

    ``status`` is None while it is being made; a ``body`` that is there all the same is a draft of it.
    """

    request_sha256: bytes
    status: int | None
    body: bytes
    created_at: datetime


class IdempotencyStore(Protocol):
    """First answers by (user, key).

    Writes that carry a request out take a ``KeptAnswer``; they raise ``IdempotencyInProgress``, and nothing is
    written, when its key has been given back meanwhile.
    """

    async def claim(
        self, claim: KeyClaim, request_sha256: bytes, *, at: datetime, fresh_after: datetime
    ) -> SavedAnswer | None:
        """Take the key for a new request (None), or answer what it holds.

        A row older than ``fresh_after`` is replaced, as if the key had never been used.
        """
        ...

    async def find(self, user_id: UserId, key: str) -> SavedAnswer | None:
        """What the key holds."""
        ...

    async def save(self, claim: KeyClaim, status: int, body: bytes) -> None:
        """Keep the answer for a claimed key; the first one stays."""
        ...

    async def release(self, claim: KeyClaim) -> None:
        """Give back a claimed key whose request was not carried out; an answer that was drafted for it is given now."""
        ...

    async def release_unanswered(self, server_id: str | None = None) -> int:
        """Give back the claimed keys of a server (None: of all) without an answer: their requests died with it.

        Keys that have a draft are answered by it. Answers how many were given back.
        """
        ...

    async def prune(self, before: datetime) -> int:
        """Forget answers from before; answers how many."""
        ...
