"""Users as the checking of credentials sees them: at most a second old, and never older than a change made here."""

import asyncio
from datetime import datetime, timedelta

from sandgate.auth.fresh import FreshCache
from sandgate.core.account_stores import UserStore
from sandgate.core.clock import Clock
from sandgate.core.ids import UserId
from sandgate.core.principal import Role, User

#: How old an answer of the database may be: the command line changes users from another process.
FRESH_FOR_S = 1.0

_MOST_HELD = 10_000
#: Tokens issued in the very instant of a change are refused too.
_INSTANT = timedelta(microseconds=1)


class Accounts:
    """Reads users through a cache and writes them past it. Every method may raise ``StoreUnavailable``."""

    def __init__(self, rows: UserStore, clock: Clock) -> None:
        self._rows = rows
        self._clock = clock
        self._held: FreshCache[UserId, User | None] = FreshCache(clock, max_age_s=FRESH_FOR_S, most=_MOST_HELD)
        self._changing = asyncio.Lock()

    async def get(self, user_id: UserId) -> User | None:
        """The user, at most a second old."""
        return await self._held.get(user_id, self._rows.find)

    async def find_by_name(self, name: str) -> User | None:
        """The user as the database has it now."""
        return await self._rows.find_by_name(name)

    async def update(
        self,
        user_id: UserId,
        *,
        role: Role | None = None,
        password_hash: str | None = None,
        disabled: bool | None = None,
    ) -> User | None:
        """Change what is not None; a new password and disabling end all tokens issued before. Raises ``LastAdmin``."""
        ends_tokens = password_hash is not None or disabled is True
        valid_from: datetime | None = self._clock.now() + _INSTANT if ends_tokens else None
        async with self._changing:
            try:
                return await self._rows.update(
                    user_id, role=role, password_hash=password_hash, disabled=disabled, tokens_valid_from=valid_from
                )
            finally:  # A cancelled write may be done all the same.
                self._held.drop(user_id)

    async def replace_hash(self, user: User, password_hash: str) -> None:
        """Keep the same password at another cost, unless it was changed since ``user`` was read."""
        async with self._changing:
            present = await self._rows.find(user.user_id)
            if present is not None and present.password_hash == user.password_hash:
                await self._rows.update(user.user_id, password_hash=password_hash)

    async def delete(self, user_id: UserId) -> bool:
        """Remove the user; False when there was none. Raises ``LastAdmin``."""
        try:
            return await self._rows.delete(user_id)
        finally:
            self._held.drop(user_id)
