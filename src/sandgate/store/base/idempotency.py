"""Answers that are kept for requests that come twice."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sandgate.core.ids import UserId


@dataclass(frozen=True, slots=True)
class SavedAnswer:
    """The first answer to a request with an idempotency key. ``status`` is None while it is being made."""

    request_sha256: bytes
    status: int | None
    body: bytes
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DraftAnswer:
    """What is answered to a request with a key when its process dies before it has answered: all went well."""

    user_id: UserId
    key: str
    body: bytes


class IdempotencyStore(Protocol):
    """First answers by (user, key)."""

    async def claim(
        self, user_id: UserId, key: str, request_sha256: bytes, *, at: datetime, fresh_after: datetime
    ) -> SavedAnswer | None:
        """Take the key for a new request (None), or answer what it holds.

        A row older than ``fresh_after`` is replaced, as if the key had never been used.
        """
        ...

    async def save(self, user_id: UserId, key: str, status: int, body: bytes) -> None:
        """Keep the answer for a claimed key."""
        ...

    async def release(self, user_id: UserId, key: str) -> None:
        """Give back a claimed key whose request was not carried out; an answer that was drafted for it is given now."""
        ...

    async def release_unanswered(self) -> int:
        """Give back every claimed key without an answer: at the start, their requests died with the last process.

        Keys that have a draft are answered by it. Answers how many were given back.
        """
        ...

    async def prune(self, before: datetime) -> int:
        """Forget answers from before; answers how many."""
        ...
