"""Rows of secrets."""

from collections.abc import Collection, Sequence
from typing import Protocol

from sandgate.core.ids import UserId
from sandgate.core.secret import Secret


class SecretStore(Protocol):
    """Rows of secrets, sealed. They go with their user."""

    async def put(self, secret: Secret, most: int) -> Secret | None:
        """Add a row, or replace the value of the one that is there; the row as it is then.

        None, and nothing written, when the owner has ``most`` others. Raises ``UserNotFound`` when the owner is gone.
        """
        ...

    async def list(self, owner_id: UserId) -> Sequence[Secret]:
        """All of an owner by name; their sealed values are empty."""
        ...

    async def find(self, owner_id: UserId, names: Collection[str]) -> Sequence[Secret]:
        """Those that are there, with their sealed values."""
        ...

    async def delete(self, owner_id: UserId, name: str) -> bool:
        """Remove the row; False when there was none."""
        ...
