"""Removal of what is over for long."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from sandgate.core.ids import UserId


class RetentionStore(Protocol):
    """Each method removes at most ``most`` things in one transaction, and answers how many went."""

    async def prune_runs(self, finished_before: datetime, most: int) -> int:
        """Runs that ended before, with all that belongs to them."""
        ...

    async def prune_workflows(self, deleted_before: datetime, most: int) -> int:
        """Workflows that were deleted before, with their versions, once no run of them is left."""
        ...

    async def prune_versions(self, most: int) -> int:
        """Versions of at most ``most`` workflows that no run needs any more, and that are not the newest."""
        ...

    async def find_over(self, most_bytes: int, since: datetime | None = None) -> Sequence[tuple[UserId, int]]:
        """Owners of whose ended runs more is kept, versions of workflows that only these need included, and how much
        more; with ``since`` only of owners of whom a run has ended since.
        """
        ...

    async def prune_oldest_runs(self, owner_id: UserId, excess_bytes: int, most: int) -> int:
        """The owner's oldest ended runs, with all that belongs to them, until that makes up for the excess."""
        ...

    async def prune_environments(self, ended_before: datetime, most: int) -> int:
        """Environments that ended before, once no execution of them is left."""
        ...
