"""Ends what users have left running when their accounts are disabled or deleted.

An account may be changed by any server on the database, and by the command line, so that every server looks for itself:
at the accounts of those who have something live on it, and at nothing when nobody has.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

from sandgate.auth.accounts import Accounts
from sandgate.core.ids import UserId
from sandgate.telemetry.log import get_logger
from sandgate.telemetry.rounds import go_round

_INTERVAL_S = 2.0

_log = get_logger(__name__)


class Holdings(Protocol):
    """What users have live on this server."""

    def owners(self) -> Collection[UserId]:
        """Everybody who has something live."""
        ...

    def end_all_of(self, owner_id: UserId, reason: str) -> int:
        """Begin to end all that the user has live; answers how much that is. Nothing happens to what ends already."""
        ...


class Departures:
    """Looks every few seconds whether everybody who has something live may still have it."""

    def __init__(self, accounts: Accounts, holdings: Sequence[Holdings]) -> None:
        self._accounts = accounts
        self._holdings = holdings

    async def run(self, interval_s: float = _INTERVAL_S) -> None:
        """Look every ``interval_s`` seconds, until cancelled. A database that is away is asked again next time."""
        await go_round(self.look, interval_s, _log, "accounts not looked at")

    async def look(self) -> int:
        """End what nobody may have any more; answers how much that is. Raises ``StoreUnavailable``."""
        ended = 0
        for owner_id in {owner for holdings in self._holdings for owner in holdings.owners()}:
            reason = await self._reason_to_end(owner_id)
            if reason is None:
                continue
            count = sum(holdings.end_all_of(owner_id, reason) for holdings in self._holdings)
            if count:
                _log.info("what a user left is ended", owner_id=owner_id, reason=reason, count=count)
            ended += count
        return ended

    async def _reason_to_end(self, owner_id: UserId) -> str | None:
        user = await self._accounts.get(owner_id)
        if user is None:
            return "the account of its owner was deleted"
        return "the account of its owner is disabled" if user.disabled else None
