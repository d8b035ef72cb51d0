"""The way of entries into the audit log: many at once, in the order in which they came, and none twice."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from sandgate.core.audit import AuditChain, AuditEntry, AuditSink, Credential, by_service
from sandgate.core.clock import Clock
from sandgate.core.errors import StoreUnavailable
from sandgate.core.ids import make_audit_id
from sandgate.core.principal import User
from sandgate.store.audit_repeats import Repeats
from sandgate.store.base.audit import AuditStore
from sandgate.telemetry.log import get_logger

# How long entries that nobody waits for are put together.
_GATHER_S = 0.25
_RETRY_S = 1.0
_LOOK_EVERY_S = 5.0
_MOST_AT_ONCE = 200
# Kept while the database is away. Beyond that the oldest are lost, which the log says.
_MOST_KEPT = 20_000
MOST_ALIKE_DONE = 60

_log = get_logger(__name__)

#: What the key of the chain is derived for.
AUDIT_PURPOSE = "audit"

FindUser = Callable[[str], Awaitable[User | None]]


def audit_chain(derive: Callable[[str], bytes]) -> AuditChain:
    """The chain of the servers that share a folder of keys; ``derive`` makes a key for a purpose."""
    return AuditChain(derive(AUDIT_PURPOSE))


class AuditTrail(AuditSink):
    """See :class:`sandgate.core.audit.AuditSink`. ``run`` has to be running, and writes what is left when it ends.

    ``find_user`` answers whose a name is: of a name that was tried in vain, only that of a user is kept, because people
    type their password where the name belongs.
    """

    def __init__(
        self,
        store: AuditStore,
        chain: AuditChain,
        find_user: FindUser,
        clock: Clock,
        most_alike_done: int = MOST_ALIKE_DONE,
    ) -> None:
        self._store = store
        self._chain = chain
        self._find_user = find_user
        self._clock = clock
        self._repeats = Repeats(clock)
        self._often = Repeats(clock, most_alike_done, by_thing=True)
        self._kept: deque[AuditEntry] = deque()
        self._lost = 0
        self._failed_at = -math.inf
        self._writing = asyncio.Lock()
        self._some = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many entries are not on disk yet."""
        return len(self._kept)

    def note(self, entry: AuditEntry) -> None:
        """Keep the entry; it is on disk within a second."""
        self._kept.append(entry)
        if len(self._kept) > _MOST_KEPT:
            self._kept.popleft()
            self._lost += 1
        self._some.set()

    def refuse(self, entry: AuditEntry) -> None:
        """Like :meth:`note`; many that are alike within a minute are put together."""
        if self._repeats.take(entry):
            self.note(entry)

    def note_often(self, entry: AuditEntry) -> None:
        """Like :meth:`note`; many that are alike within a minute are put together, thing by thing."""
        if self._often.take(entry):
            self.note(replace(entry, audit_id=make_audit_id()))

    async def record(self, entry: AuditEntry) -> None:
        """Keep the entry; it is on disk when this returns, unless the database is away, or was a moment ago."""
        self.note(entry)
        try:
            await self._flush(unless_away=True)
        except StoreUnavailable as fault:
            _log.warning("audit entry not written yet", action=entry.action, reason=fault.message)

    async def flush(self) -> None:
        """Write what is kept. Raises ``StoreUnavailable``; nothing is lost then."""
        await self._flush(unless_away=False)

    async def _flush(self, *, unless_away: bool) -> None:
        if not self._kept:
            return
        end = self._kept[-1].audit_id
        async with self._writing:
            # Identifiers of one process are in the order in which they were made.
            while self._kept and self._kept[0].audit_id <= end and not (unless_away and self._is_away()):
                await self._write([self._kept[index] for index in range(min(len(self._kept), _MOST_AT_ONCE))])

    async def check(self) -> None:
        """Say in the log when the end of the audit log was made with another key, or changed."""
        head = await self._store.find_head()
        if head is not None and not self._chain.is_ours(head):
            _log.error("the audit log does not fit the key of this server; run: sandgate audit verify")

    async def prune(self, before: datetime, most: int) -> int:
        """Remove at most ``most`` of what is older than ``before``; answers how many. Raises ``StoreUnavailable``."""
        count = await self._store.prune(before, most, self._chain)
        if count:
            self.note(by_service("prune_audit", self._clock.now(), None, {"rows": count}))
        return count

    async def run(self) -> None:
        """Write what is noted, until cancelled, and the rest then."""
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_S):
                        await self._some.wait()
                await asyncio.sleep(_GATHER_S)
                self._some.clear()
                self.sum_up()
                await self._flush_or_wait()
        finally:
            self.sum_up(everything=True)
            await self._flush_at_end()

    def sum_up(self, *, everything: bool = False) -> None:
        """Note how many entries were put together: of those whose minute is over, or of all."""
        for repeats in (self._repeats, self._often):
            for entry in repeats.drain(everything=everything):
                self.note(entry)

    async def _write(self, entries: Sequence[AuditEntry]) -> None:
        try:
            await self._store.append([await self._name(entry) for entry in entries], self._chain)
        except StoreUnavailable:
            self._failed_at = self._clock.monotonic()
            raise
        written = {entry.audit_id for entry in entries}
        # Some may have been pushed out meanwhile.
        while self._kept and self._kept[0].audit_id in written:
            self._kept.popleft()
        if self._lost:
            _log.error("audit entries lost while the database was away", count=self._lost)
            self._lost = 0

    def _is_away(self) -> bool:
        """Whether the database was away so lately that those who wait for their own entries need not try, too."""
        return self._clock.monotonic() - self._failed_at < _RETRY_S

    async def _name(self, entry: AuditEntry) -> AuditEntry:
        """The entry with the user whom the name belongs to that was given with a password."""
        if entry.credential is not Credential.PASSWORD or entry.actor_name is None:
            return entry
        user = await self._find_user(entry.actor_name)
        if user is None:
            return replace(entry, actor_name=None)
        return replace(entry, actor_id=user.user_id, actor_name=user.name)

    async def _flush_or_wait(self) -> None:
        try:
            await self.flush()
        except StoreUnavailable as fault:
            _log.warning("audit entries not written yet", count=len(self._kept), reason=fault.message)
            self._some.set()
            await asyncio.sleep(_RETRY_S)

    async def _flush_at_end(self) -> None:
        try:
            async with asyncio.timeout(_RETRY_S):
                await self.flush()
        except (StoreUnavailable, TimeoutError):
            _log.error("audit entries lost at the end", count=len(self._kept))
