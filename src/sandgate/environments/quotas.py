"""What each user may use: as admins have set it, and as the settings say where they have not."""

from dataclasses import replace

from sandgate.auth.fresh import FreshCache
from sandgate.config.settings import Settings
from sandgate.core.clock import Clock
from sandgate.core.errors import Forbidden, UserNotFound
from sandgate.core.ids import UserId
from sandgate.core.limits import Ceilings
from sandgate.core.principal import Principal
from sandgate.core.quota import EnvironmentsHeld, QuotaReport, QuotaUse, UserQuota
from sandgate.environments.quota import Quota
from sandgate.environments.usage import ExecutionUse
from sandgate.store.base import Store

#: How old an answer of the database may be: another server may have changed it.
_FRESH_FOR_S = 1.0
_MOST_HELD = 10_000

_NOTHING_SET = UserQuota()
_NOTHING_HELD = EnvironmentsHeld()


class UserQuotas:
    """Implements :class:`sandgate.environments.base.Quotas`; ``allowed`` and ``executing`` come before any work.

    ``use.run`` has to be running for executions of the day to be remembered.
    """

    def __init__(self, store: Store, held: Quota, clock: Clock, settings: Settings, server_id: str) -> None:
        self._store = store
        self._held = held
        self._server_id = server_id
        self.use = ExecutionUse(
            store.quotas, clock, settings.max_execution_bytes_at_once_per_user, settings.max_executions_at_once
        )
        self._defaults = UserQuota(
            environments=settings.max_environments_per_user,
            memory_bytes=settings.max_memory_bytes_per_user or None,
            executions_per_day=settings.max_executions_per_day_per_user or None,
            executions_at_once=settings.max_executions_at_once_per_user,
            environment_memory_bytes=settings.max_environment_memory_bytes,
            environment_cpu_millis=settings.max_environment_cpu_millis,
            environment_processes=settings.max_environment_processes,
            environment_disk_bytes=settings.max_environment_disk_bytes,
            snapshots=settings.max_snapshots_per_user,
            snapshot_bytes=settings.max_snapshot_bytes_per_user,
            volumes=settings.max_volumes_per_user,
            volume_bytes=settings.max_volume_bytes_per_user,
        )
        self._server_ceilings = _ceilings(self._defaults, "server")
        self._allowed: FreshCache[UserId, UserQuota] = FreshCache(clock, max_age_s=_FRESH_FOR_S, most=_MOST_HELD)
        self._elsewhere: FreshCache[UserId, EnvironmentsHeld] = FreshCache(
            clock, max_age_s=_FRESH_FOR_S, most=_MOST_HELD
        )

    async def allowed(self, user_id: UserId) -> UserQuota:
        """What the user may use, at most a second old. Raises ``StoreUnavailable``."""
        return await self._allowed.get(user_id, self._load)

    async def elsewhere(self, user_id: UserId) -> EnvironmentsHeld:
        """What the user has of live environments on other servers, at most a second old. Raises ``StoreUnavailable``.

        What is older than it seems is found when the row is written: see :meth:`shared`.
        """
        if not self._store.servers.is_shared:
            return _NOTHING_HELD
        return await self._elsewhere.get(user_id, self._find_elsewhere)

    def shared(self, allowed: UserQuota) -> UserQuota | None:
        """What the database has to hold a new row against: other servers may be adding to the same; None: nothing."""
        return allowed if self._store.servers.is_shared else None

    def ceilings(self, allowed: UserQuota) -> Ceilings:
        """The most that may be asked for with one environment by whoever may use this much."""
        own = _ceilings(allowed, "server")
        return own if own == self._server_ceilings else replace(own, scope="user")

    async def begin(self, user_id: UserId, size_bytes: int) -> None:
        """Count an execution until :meth:`end`.

        Raises ``ExecutionQuotaExceeded``, ``TooManyExecutions``, ``StoreUnavailable``.
        """
        await self.use.begin(user_id, await self.allowed(user_id), size_bytes)

    def end(self, user_id: UserId, size_bytes: int) -> None:
        """An execution that was counted, with the same size, has ended."""
        self.use.end(user_id, size_bytes)

    async def report(self, caller: Principal) -> QuotaReport:
        """See :class:`sandgate.environments.base.Quotas`."""
        return await self._report(caller.user_id)

    async def get(self, caller: Principal, user_id: UserId) -> QuotaReport:
        """See :class:`sandgate.environments.base.Quotas`."""
        await self._check(caller, user_id)
        return await self._report(user_id)

    async def put(self, caller: Principal, user_id: UserId, quota: UserQuota) -> QuotaReport:
        """See :class:`sandgate.environments.base.Quotas`."""
        _check_admin(caller)
        try:
            if not await self._store.quotas.put(user_id, quota):
                raise _no_user(user_id)
        finally:  # A cancelled write may be done all the same.
            self._allowed.drop(user_id)
        return await self._report(user_id)

    async def delete(self, caller: Principal, user_id: UserId) -> QuotaReport:
        """See :class:`sandgate.environments.base.Quotas`."""
        await self._check(caller, user_id)
        try:
            await self._store.quotas.delete(user_id)
        finally:
            self._allowed.drop(user_id)
        return await self._report(user_id)

    async def _check(self, caller: Principal, user_id: UserId) -> None:
        _check_admin(caller)
        if await self._store.users.find(user_id) is None:
            raise _no_user(user_id)

    async def _report(self, user_id: UserId) -> QuotaReport:
        own = await self._store.quotas.find(user_id) or _NOTHING_SET
        kept = await self._store.snapshots.measure(user_id)
        volumes = await self._store.volumes.held(user_id)
        held = self._held.of(user_id).plus(await self.elsewhere(user_id))
        use = QuotaUse(
            environments=held.count,
            memory_bytes=held.memory_bytes,
            executions_today=await self.use.today(user_id),
            executions_at_once=self.use.at_once(user_id),
            snapshots=kept.count,
            snapshot_bytes=kept.size_bytes,
            volumes=volumes.count,
            volume_bytes=volumes.size_bytes,
        )
        return QuotaReport(own, own.over(self._defaults), use)

    async def _find_elsewhere(self, user_id: UserId) -> EnvironmentsHeld:
        return await self._store.environments.held_elsewhere(user_id, self._server_id)

    async def _load(self, user_id: UserId) -> UserQuota:
        own = await self._store.quotas.find(user_id) or _NOTHING_SET
        return own.over(self._defaults)


def _ceilings(quota: UserQuota, scope: str) -> Ceilings:
    """Of a quota in which the settings stand where nothing was set."""
    return Ceilings(
        memory_bytes=quota.environment_memory_bytes or 0,
        cpu_millis=quota.environment_cpu_millis or 0,
        processes=quota.environment_processes or 0,
        disk_bytes=quota.environment_disk_bytes or 0,
        scope=scope,
    )


def _check_admin(caller: Principal) -> None:
    if not caller.is_admin:
        raise Forbidden(
            f"Quotas are set by admins; {caller.name} has the role {caller.role}. Yours is at GET /api/v1/me"
        )


def _no_user(user_id: UserId) -> UserNotFound:
    return UserNotFound(f"There is no user {user_id}")
