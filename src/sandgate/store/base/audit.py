"""Rows of the audit log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sandgate.core.audit import AuditChain, AuditEntry, AuditHead, AuditOutcome, AuditRow
from sandgate.core.ids import UserId


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows are wanted; None does not narrow."""

    actor_id: UserId | None = None
    action: str | None = None
    resource_id: str | None = None
    outcome: AuditOutcome | None = None
    after: datetime | None = None
    before: datetime | None = None


class AuditStore(Protocol):
    """Rows that are added to the end, and go from the beginning when their time is over; nothing else."""

    async def append(self, entries: Sequence[AuditEntry], chain: AuditChain) -> int:
        """Add entries behind the last row, in this order; answers the number of the last.

        An entry that is there already is left out. Others may do the same on the same database at the same time.
        """
        ...

    async def list(self, wanted: AuditFilter, before_number: int | None, limit: int) -> Sequence[AuditRow]:
        """At most ``limit`` rows, newest first, with numbers below ``before_number``."""
        ...

    async def read(self, after_number: int, limit: int) -> Sequence[AuditRow]:
        """At most ``limit`` rows with numbers above ``after_number``, oldest first."""
        ...

    async def find_head(self) -> AuditHead | None:
        """Where the log ends and begins; None when nothing was ever added."""
        ...

    async def prune(self, before: datetime, most: int, chain: AuditChain) -> int:
        """Remove at most ``most`` rows from the beginning, up to the first one that is not older; answers how many."""
        ...
