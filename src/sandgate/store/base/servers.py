"""Which servers use a database, and what is left by those that died."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Remains:
    """How much of a dead server's was ended: environments, executions, and claims of idempotency keys."""

    environments: int
    executions: int
    keys: int


class ServerStore(Protocol):
    """A row for each server that lives; its lease is timed by the clock of the database.

    Only where several servers may share a database: one that has it for itself has no row.
    """

    @property
    def is_shared(self) -> bool:
        """Whether other servers may use the database."""
        ...

    async def join(self, server_id: str, now: datetime, lease_s: float) -> None:
        """Add or renew the row.

        Servers that something is left of and that have no row get one whose lease has run out.
        """
        ...

    async def renew(self, server_id: str, now: datetime, lease_s: float) -> bool:
        """Hold the row for another ``lease_s``; False, and it is made anew, when somebody has buried the server."""
        ...

    async def list_dead(self, now: datetime) -> Sequence[str]:
        """The servers whose lease has run out."""
        ...

    async def bury(self, server_id: str, now: datetime) -> Remains | None:
        """End what a dead server had, and remove its row, in one transaction; None when it lives after all."""
        ...

    async def leave(self, server_id: str) -> None:
        """Remove the row of a server that has ended everything."""
        ...
