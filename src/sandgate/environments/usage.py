"""How many executions each user has run today and runs now."""

import asyncio
from collections import Counter
from datetime import date, datetime, time, timedelta

from sandgate.auth.fresh import FreshCache
from sandgate.core.clock import Clock
from sandgate.core.errors import ExecutionQuotaExceeded, StoreUnavailable, TooManyExecutions
from sandgate.core.ids import UserId
from sandgate.core.quota import UserQuota
from sandgate.store.base import QuotaStore
from sandgate.telemetry.log import get_logger

# What other servers have added is seen within this time, and what is not added yet is lost with the process.
_ADD_EVERY_S = 5.0
_MOST_HELD = 10_000

_log = get_logger(__name__)


class ExecutionUse:
    """Counts executions in memory and adds them to their day in the database every few seconds, while ``run`` runs.

    What a write of unknown outcome may have added is added again: a connection that is lost in the middle of a commit
    may count those of some seconds twice. A process that is killed forgets those of as many.
    """

    def __init__(self, store: QuotaStore, clock: Clock, most_bytes: int, most_at_once: int) -> None:
        """``most_bytes`` is how much the executions of one user may hold, ``most_at_once`` how many all may be."""
        self._store = store
        self._clock = clock
        self._most_bytes = most_bytes
        self._most_at_once = most_at_once
        self._all_at_once = 0
        self._at_once: Counter[UserId] = Counter()
        self._bytes: Counter[UserId] = Counter()
        self._day = clock.now().date()
        self._new: Counter[UserId] = Counter()
        self._adding: Counter[UserId] = Counter()
        self._before: FreshCache[tuple[UserId, date], int] = FreshCache(clock, max_age_s=_ADD_EVERY_S, most=_MOST_HELD)

    def at_once(self, user_id: UserId) -> int:
        """How many run or wait now."""
        return self._at_once[user_id]

    async def today(self, user_id: UserId) -> int:
        """How many there were since midnight (UTC). Raises ``StoreUnavailable``."""
        self._turn_day()
        before = await self._before.get((user_id, self._day), self._load)
        return before + self._new[user_id] + self._adding[user_id]

    async def begin(self, user_id: UserId, allowed: UserQuota, size_bytes: int = 0) -> None:
        """Count one more, which holds so much. ``end`` has to follow, with the same size.

        Raises ``ExecutionQuotaExceeded``, ``TooManyExecutions`` and ``StoreUnavailable``, with nothing counted.
        """
        if allowed.executions_per_day is not None:
            used = await self.today(user_id)
            if used >= allowed.executions_per_day:
                raise self._refuse_day(used, allowed.executions_per_day)
        running = self._at_once[user_id]
        if allowed.executions_at_once is not None and running >= allowed.executions_at_once:
            raise ExecutionQuotaExceeded(
                f"You run {running} executions at once, and {allowed.executions_at_once} is the most allowed; wait "
                "until one has ended",
                {"limit": allowed.executions_at_once, "used": running, "scope": "at_once"},
            )
        held = self._bytes[user_id]
        if held + size_bytes > self._most_bytes:
            raise ExecutionQuotaExceeded(
                f"The code of all your executions that run or wait, and what comes with it, has {held} bytes, "
                f"and {self._most_bytes} is the most allowed; wait until some have ended",
                {"limit": self._most_bytes, "used": held, "scope": "bytes_at_once"},
            )
        if self._all_at_once >= self._most_at_once:
            raise TooManyExecutions(
                f"The server runs {self._all_at_once} executions at once, and {self._most_at_once} is the most it may; "
                "try again when some have ended",
                {"limit": self._most_at_once, "used": self._all_at_once, "scope": "server"},
            )
        self._turn_day()
        self._all_at_once += 1
        self._bytes[user_id] = held + size_bytes
        self._at_once[user_id] = running + 1
        self._new[user_id] += 1

    def end(self, user_id: UserId, size_bytes: int = 0) -> None:
        """Count one less that runs."""
        self._all_at_once -= 1
        self._at_once[user_id] -= 1
        self._bytes[user_id] -= size_bytes
        if not self._at_once[user_id]:
            del self._at_once[user_id], self._bytes[user_id]

    async def run(self) -> None:
        """Add what is new every few seconds until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(_ADD_EVERY_S)
                await self.add()
        finally:
            await self.add()

    async def add(self) -> None:
        """Add what is new to its day; what cannot be written is added the next time."""
        self._turn_day()
        if not self._new or self._adding:
            return
        day, self._adding, self._new = self._day, self._new, Counter()
        try:
            await self._store.add_executions(day, self._adding)
        except StoreUnavailable as fault:
            _log.warning("executions not counted yet", reason=fault.message)
            if day == self._day:
                self._new.update(self._adding)
        finally:
            added, self._adding = self._adding, Counter()
            for user_id in added:
                self._before.drop((user_id, day))

    async def _load(self, key: tuple[UserId, date]) -> int:
        return await self._store.count_executions(*key)

    def _turn_day(self) -> None:
        today = self._clock.now().date()
        if today != self._day:
            # The few that were not written yet are of a day that is over.
            self._day, self._new = today, Counter()

    def _refuse_day(self, used: int, limit: int) -> ExecutionQuotaExceeded:
        now = self._clock.now()
        midnight = datetime.combine(now.date() + timedelta(days=1), time.min, tzinfo=now.tzinfo)
        return ExecutionQuotaExceeded(
            f"You have run {used} executions today, and {limit} a day is the most allowed; the next day begins at "
            "midnight (UTC)",
            {"limit": limit, "used": used, "scope": "day"},
            retry_after_s=(midnight - now).total_seconds(),
        )
