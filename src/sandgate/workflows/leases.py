"""Holds the leases of a process's runs, and takes over runs whose leases ran out.

A process without runs looks only when the lease of another one can have run out, and one that has the database for
itself does not look at all.
"""

import asyncio
import math
from collections.abc import Collection
from contextlib import suppress
from typing import Protocol

from sandgate.core.clock import Clock
from sandgate.core.errors import StoreUnavailable
from sandgate.core.ids import RunId
from sandgate.core.run import Run
from sandgate.store.base import Store
from sandgate.telemetry.log import get_logger

_MOST_CLAIMED = 10_000
_RENEWALS_A_LEASE = 5
_SHORTEST_PAUSE_S = 1.0
# Longer than a write that nobody waits for any more may still be on its way.
_DOUBT_S = 120.0
# Looked for a moment later than it is due, since two clocks are at work.
_LATE_S = 0.05

_log = get_logger(__name__)


class RunHolder(Protocol):
    """Who works on the runs."""

    def held(self) -> Collection[RunId]:
        """The runs that are worked on."""
        ...

    async def take_over(self, run: Run) -> None:
        """Go on with a run that nobody works on any more."""
        ...

    async def hold(self) -> None:
        """Let the code of the runs live on; it ends by itself when this is not said for two leases."""
        ...

    def let_go(self, run_id: RunId) -> None:
        """Stop working on a run that is somebody else's now, unless that is noticed anyway."""
        ...

    async def take_signals(self) -> None:
        """Act on what others ask of the runs."""
        ...

    def look(self) -> None:
        """Look at the time for every run."""
        ...


class LeaseKeeper:
    """``run`` is a task without end. ``lease_s`` is how long a run stays held without a word of its holder."""

    def __init__(self, store: Store, clock: Clock, owner: str, lease_s: float, holder: RunHolder) -> None:
        self.lease_s = lease_s
        self._store = store
        self._clock = clock
        self._owner = owner
        self._holder = holder
        self._stirred = asyncio.Event()
        self._look_at = 0.0
        self._renewed_at = -math.inf
        self._doubtful_until = -math.inf
        self._strangers: frozenset[RunId] = frozenset()
        self._unfit: set[RunId] = set()

    def stir(self, *, free: bool = False, doubtful: bool = False) -> None:
        """Look again soon: there is something to hold, or to take (``free``), or it is not known (``doubtful``)."""
        if free:
            self._look_at = 0.0
        if doubtful:
            self._doubtful_until = self._clock.monotonic() + _DOUBT_S
        self._stirred.set()

    async def claim_own(self) -> None:
        """Take over what an earlier process of this name left. Raises ``StoreUnavailable``."""
        self._renewed_at = self._clock.monotonic()
        await self._claim(own=True)

    async def run(self) -> None:
        """Hold and take over until cancelled."""
        while True:
            await self._rest()
            await self.go_round()

    async def go_round(self) -> None:
        """Do it once."""
        try:
            await self._keep()
            await self._take_free()
        except (StoreUnavailable, TimeoutError) as fault:
            self._bear(fault)
        self._holder.look()

    async def release(self, run_ids: Collection[RunId]) -> None:
        """Let others take over at once what this process stops working on."""
        if not (self._store.runs.is_shared and run_ids):
            return
        try:
            await self._store.runs.release(self._owner, run_ids)
        except StoreUnavailable as fault:
            _log.warning("leases not given back", reason=fault.message)

    def keep_unfit(self, run_id: RunId) -> None:
        """A run that cannot be worked on stays held, so that nobody tries again and again."""
        self._unfit.add(run_id)

    async def _rest(self) -> None:
        await asyncio.sleep(_SHORTEST_PAUSE_S)
        pause_s = self._look_at - asyncio.get_running_loop().time()
        if self._holder.held() or self._is_doubtful():
            pause_s = min(pause_s, self.lease_s / _RENEWALS_A_LEASE - _SHORTEST_PAUSE_S)
        if pause_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if math.isinf(pause_s) else pause_s):
                    await self._stirred.wait()
        self._stirred.clear()

    async def _keep(self) -> None:
        """Hold what is worked on; stop working on what another process has taken; find what was forgotten."""
        held = frozenset(self._holder.held())
        if not held and not self._is_doubtful():
            self._renewed_at = self._clock.monotonic()
            return
        kept = await self._renew(held)
        strangers = kept - frozenset(self._holder.held()) - self._unfit
        forgotten = strangers & self._strangers
        # Seen twice, it is not one that has just been begun, but one whose beginning got lost on its way back.
        self._strangers = strangers
        if forgotten:
            await self._store.runs.release(self._owner, forgotten)
            await self._claim(own=False)
        await self._holder.take_signals()

    async def _renew(self, held: frozenset[RunId]) -> frozenset[RunId]:
        """Hold what is worked on, and all else that this process has claimed, which is answered."""
        asked_at = self._clock.monotonic()
        # Whoever waits for longer does not see in time that the lease is over.
        async with asyncio.timeout(self.lease_s / 2):
            kept = await self._store.runs.renew(self._owner, self._clock.now(), self.lease_s)
        self._renewed_at = asked_at
        await self._holder.hold()
        for run_id in held - kept:
            self._holder.let_go(run_id)
        return kept

    def _is_doubtful(self) -> bool:
        """Whether there may be runs that are held, and not worked on."""
        return bool(self._strangers) or self._clock.monotonic() < self._doubtful_until

    async def _take_free(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._look_at:
            return
        free_in_s = await self._store.runs.find_free_in_s(self._owner, self._clock.now())
        if free_in_s is not None and free_in_s <= 0:
            await self._claim(own=False)
            free_in_s = await self._store.runs.find_free_in_s(self._owner, self._clock.now())
        # Whatever others begin meanwhile they hold for a whole lease.
        longest = self.lease_s if self._store.runs.is_shared else math.inf
        pause_s = longest if free_in_s is None else min(self.lease_s, max(_SHORTEST_PAUSE_S, free_in_s + _LATE_S))
        self._look_at = loop.time() + pause_s

    async def _claim(self, *, own: bool) -> None:
        now = self._clock.now()
        claimed = await self._store.runs.claim(self._owner, now, self.lease_s, _MOST_CLAIMED, own=own)
        if not claimed:
            return
        renewing = asyncio.create_task(self._renew_meanwhile(), name="leases of runs while others are taken over")
        try:
            for run in claimed:
                await self._holder.take_over(run)
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            with suppress(asyncio.CancelledError):
                renewing.result()

    async def _renew_meanwhile(self) -> None:
        """Until cancelled: to take over many runs, or to read one long definition, may take longer than a lease."""
        while True:
            await asyncio.sleep(self.lease_s / _RENEWALS_A_LEASE)
            try:
                await self._renew(frozenset(self._holder.held()))
            except (StoreUnavailable, TimeoutError) as fault:
                self._bear(fault)

    def _bear(self, fault: StoreUnavailable | TimeoutError) -> None:
        _log.warning("leases not renewed", reason=str(fault))
        self._give_up_in_time()

    def _give_up_in_time(self) -> None:
        """What could not be held for two leases may run elsewhere by now, so that it has to end here."""
        if not self._store.runs.is_shared or self._clock.monotonic() - self._renewed_at < 2 * self.lease_s:
            return
        for run_id in list(self._holder.held()):
            self._holder.let_go(run_id)
        self.stir(free=True, doubtful=True)
