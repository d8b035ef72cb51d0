"""Removal of what is over for long."""

from datetime import datetime
from typing import Protocol


class RetentionStore(Protocol):
    """Each method removes at most ``most`` things in one transaction, and answers how many went."""

    async def prune_runs(self, finished_before: datetime, most: int) -> int:
        """Runs that ended before, with all that belongs to them."""
        ...

    async def prune_workflows(self, deleted_before: datetime, most: int) -> int:
        """Workflows that were deleted before, with their versions, once no run of them is left."""
        ...

    async def prune_environments(self, ended_before: datetime, most: int) -> int:
        """Environments that ended before, once no execution of them is left."""
        ...
