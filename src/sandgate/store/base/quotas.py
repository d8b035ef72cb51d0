"""Rows of what users may use, and have used."""

from collections.abc import Mapping
from datetime import date
from typing import Protocol

from sandgate.core.ids import UserId
from sandgate.core.quota import UserQuota


class QuotaStore(Protocol):
    """Quotas that admins have set, and executions of the days."""

    async def find(self, user_id: UserId) -> UserQuota | None:
        """What was set for a user."""
        ...

    async def put(self, user_id: UserId, quota: UserQuota) -> bool:
        """Set it; False, with nothing written, when there is no such user."""
        ...

    async def delete(self, user_id: UserId) -> bool:
        """Set nothing any more; False when nothing was set."""
        ...

    async def count_executions(self, user_id: UserId, day: date) -> int:
        """How many executions of a user were added to a day, by all servers."""
        ...

    async def add_executions(self, day: date, counts: Mapping[UserId, int]) -> None:
        """Add executions to a day, and forget the days before the one before it. Users who are gone are left out."""
        ...
