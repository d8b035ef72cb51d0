"""Removes records whose time is over."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from sandgate.config.settings import Settings
from sandgate.core.clock import Clock
from sandgate.core.lookback import Lookback
from sandgate.store.base import Store
from sandgate.telemetry.log import get_logger
from sandgate.telemetry.rounds import go_round

# Small batches, so that no write of a user waits for long behind one.
_BATCH = 500
_INTERVAL_S = 60.0
_ROWS_OF_A_RUN = 20

Prune = Callable[[datetime, int], Awaitable[int]]
"""Removes what was over before a time, at most so much of it, and answers how much."""

_log = get_logger(__name__)


class Reaper:
    """Prunes what ended long ago (executions, runs, environments, deleted workflows), what is the oldest of users of
    whom more is kept than may be, revoked tokens that have expired, first answers of idempotent requests, and, through
    ``prune_audit``, what is old in the audit log.
    """

    def __init__(
        self, store: Store, clock: Clock, settings: Settings, batch: int = _BATCH, prune_audit: Prune | None = None
    ) -> None:
        self._store = store
        self._batch = batch
        self._clock = clock
        self._retention = timedelta(seconds=settings.execution_retention_s)
        self._run_retention = timedelta(seconds=settings.run_retention_s)
        self._idempotency_retention = timedelta(seconds=settings.idempotency_retention_s)
        self._most_output_bytes = settings.max_kept_output_bytes_per_user
        self._most_run_bytes = settings.max_kept_run_bytes_per_user
        # A run brings many rows with it.
        self._run_batch = max(1, batch // _ROWS_OF_A_RUN)
        self._ended = Lookback(clock)
        self._prune_audit = prune_audit
        self._audit_retention = timedelta(seconds=settings.audit_retention_s)

    async def run(self, interval_s: float = _INTERVAL_S) -> None:
        """Sweep every ``interval_s`` seconds, until cancelled. A database that is away is tried again next time."""
        await go_round(self.sweep, interval_s, _log, "records not pruned", at_once=True)

    async def sweep(self) -> int:
        """Prune once; answers how many records went. Raises ``StoreUnavailable``."""
        now = self._clock.now()
        pruned = await self._store.credentials.prune_revoked(now)
        pruned += await self._store.idempotency.prune(now - self._idempotency_retention)
        pruned += await self._prune_all(self._store.executions.prune, now - self._retention, self._batch)
        retention, before = self._store.retention, now - self._run_retention
        await self._prune_output()
        removed_runs = await self._prune_all(retention.prune_runs, before, self._run_batch)
        pruned += removed_runs + await self._prune_kept_runs(are_fewer=removed_runs > 0)
        pruned += await self._prune_all(retention.prune_workflows, before, self._batch)
        pruned += await self._prune_all(retention.prune_environments, before, self._batch)
        if self._prune_audit is not None:
            pruned += await self._prune_all(self._prune_audit, now - self._audit_retention, self._batch)
        if pruned:
            _log.info("records pruned", count=pruned)
        return pruned

    async def _prune_output(self) -> None:
        """Let each user keep so many bytes of output."""
        for owner_id, excess_bytes in await self._store.executions.find_over(self._most_output_bytes):
            while excess_bytes > 0:
                gone = await self._store.executions.prune_oldest(owner_id, excess_bytes, self._batch)
                if not gone:
                    break
                excess_bytes -= gone

    async def _prune_kept_runs(self, *, are_fewer: bool) -> int:
        """Let each user keep so many bytes of runs, and of workflows such versions only as somebody needs.

        Only with a run ends somebody's need of a version, and has somebody more than before.
        """
        retention, since = self._store.retention, self._ended.begin()
        pruned = await self._prune_versions() if are_fewer or since is None else 0
        while over := await retention.find_over(self._most_run_bytes, since):
            gone = 0
            for owner_id, excess_bytes in over:
                gone += await retention.prune_oldest_runs(owner_id, excess_bytes, self._run_batch)
            gone += await self._prune_versions()
            pruned += gone
            if not gone:
                # All that is left of it is needed by runs that have not ended.
                break
        self._ended.end(since)
        return pruned

    async def _prune_versions(self) -> int:
        pruned = 0
        while gone := await self._store.retention.prune_versions(self._batch):
            pruned += gone
        return pruned

    async def _prune_all(self, prune: Prune, before: datetime, batch: int) -> int:
        pruned = 0
        while (count := await prune(before, batch)) == batch:
            pruned += count
        return pruned + count
