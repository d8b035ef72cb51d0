"""One server among those that share a database: it says that it lives, and buries those that do not say so any more."""

import asyncio
from collections.abc import Awaitable, Callable

from sandgate.core.clock import Clock
from sandgate.core.errors import StoreUnavailable
from sandgate.store.base import ServerStore
from sandgate.telemetry.log import get_logger

_RENEWALS_A_LEASE = 3

_log = get_logger(__name__)


class Membership:
    """``join`` comes first, then ``run`` as a task without end, and ``leave`` last.

    A server that has the database for itself does none of it. ``on_buried`` is awaited when others have taken this
    server for dead, and with it all that it had, or may have; it is awaited again when it raises ``StoreUnavailable``.
    """

    def __init__(
        self,
        servers: ServerStore,
        clock: Clock,
        server_id: str,
        lease_s: float,
        on_buried: Callable[[], Awaitable[None]],
    ) -> None:
        self._servers = servers
        self._clock = clock
        self._server_id = server_id
        self._lease_s = lease_s
        self._on_buried = on_buried
        self._renewed_at = clock.monotonic()
        self._watches_since = self._renewed_at
        # Whether this server may have been buried without having ended what it had.
        self._is_in_doubt = False

    async def join(self) -> None:
        """Say for the first time that the server lives. Raises ``StoreUnavailable``."""
        if self._servers.is_shared:
            await self._servers.join(self._server_id, self._clock.now(), self._lease_s)
        self._renewed_at = self._watches_since = self._clock.monotonic()

    async def run(self) -> None:
        """Say it in time, and bury the dead, until cancelled."""
        while self._servers.is_shared:
            await asyncio.sleep(self._lease_s / _RENEWALS_A_LEASE)
            await self.go_round()

    async def go_round(self) -> None:
        """Do it once. A database that is away is tried again next time."""
        try:
            await self._renew()
            await self._bury_dead()
        except StoreUnavailable as fault:
            _log.warning("the server could not say that it lives", reason=fault.message)

    async def leave(self) -> None:
        """Say that the server has ended everything."""
        if not self._servers.is_shared:
            return
        try:
            await self._servers.leave(self._server_id)
        except StoreUnavailable as fault:
            _log.warning("the server could not say that it has ended", reason=fault.message)

    async def _renew(self) -> None:
        now = self._clock.monotonic()
        try:
            held = await self._servers.renew(self._server_id, self._clock.now(), self._lease_s)
        except StoreUnavailable as fault:
            # What was answered and got lost may have been that others have buried this server.
            self._is_in_doubt |= fault.details.get("outcome") == "unknown"
            raise
        if now - self._renewed_at > self._lease_s:
            # The database was away, or this process was stopped: the others may not have been able to renew either.
            self._watches_since = now
        self._renewed_at = now
        if not held:
            _log.warning("others took this server for dead", server_id=self._server_id)
            self._is_in_doubt = True
        if self._is_in_doubt:
            await self._on_buried()
            self._is_in_doubt = False

    async def _bury_dead(self) -> None:
        """Only what stayed silent for a whole lease in which this server heard the database all the time."""
        if self._renewed_at - self._watches_since < self._lease_s:
            return
        for server_id in await self._servers.list_dead(self._clock.now()):
            remains = await self._servers.bury(server_id, self._clock.now())
            if remains is not None:
                _log.warning(
                    "a server is gone",
                    server_id=server_id,
                    environments=remains.environments,
                    executions=remains.executions,
                    keys=remains.keys,
                )
