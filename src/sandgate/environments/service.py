"""The use cases of environments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from sandgate.config.settings import Settings
from sandgate.core.audit import AuditSink
from sandgate.core.clock import Clock
from sandgate.core.environment import Environment
from sandgate.core.idempotency import Keep, KeptAnswer
from sandgate.core.ids import EnvironmentId, make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal
from sandgate.core.states import LIVE_ENVIRONMENT_STATUSES, EnvironmentStatus, Isolation
from sandgate.core.template import Template
from sandgate.environments.access import (
    check_can_change,
    check_can_see,
    check_can_write,
    check_is_here,
    environment_not_found,
)
from sandgate.environments.base import Metrics, NewEnvironment, Templates
from sandgate.environments.executions import Executions
from sandgate.environments.files import FileService
from sandgate.environments.granting import grant
from sandgate.environments.isolation import choose_isolation
from sandgate.environments.lifecycle import Lifecycle
from sandgate.environments.live import Ending
from sandgate.environments.lookup import Lookup
from sandgate.environments.measuring import measure
from sandgate.environments.quota import Quota
from sandgate.environments.quotas import UserQuotas
from sandgate.environments.running import CodeRunner
from sandgate.environments.tasks import TaskOwner
from sandgate.sandbox.base import Runtime, Sandbox
from sandgate.store.base import EnvironmentFilter, Store
from sandgate.telemetry.log import get_logger

# How long writes that are still tried again may go on when the service stops.
_SETTLE_S = 5.0

_NOT_WRITTEN = Ending(EnvironmentStatus.FAILED, "its record could not be written")
_STOPPED = Ending(EnvironmentStatus.TERMINATED, "the service was stopped")
_BURIED = Ending(EnvironmentStatus.FAILED, "the server that it was on was out of touch, and taken for dead")
_DELETED = Ending(EnvironmentStatus.TERMINATED, None, deleted=True)
# What has ended by itself, or with the service, can still be deleted.
_DELETABLE = frozenset({EnvironmentStatus.FAILED, EnvironmentStatus.EXPIRED, EnvironmentStatus.TERMINATED})

_log = get_logger(__name__)


class EnvironmentService(CodeRunner):
    """``Environments`` on a store and a runtime. One process has one of it, on one event loop.

    ``start`` comes first and ``stop`` last. ``on_fault`` is told of a bug in a background task, ``audit`` of
    environments that end without anybody deleting them. ``server_id`` names the server in rows: the same after a
    restart, another for every other server on the database.
    """

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        templates: Templates,
        clock: Clock,
        settings: Settings,
        on_fault: Callable[[BaseException], None] | None = None,
        audit: AuditSink | None = None,
        server_id: str = "server",
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._templates = templates
        self._clock = clock
        self._settings = settings
        self._draining = False
        self._server_id = server_id
        self._tasks = TaskOwner(on_fault)
        self._quota = Quota(settings)
        self.quotas = UserQuotas(store, self._quota, clock, settings)
        self._lifecycle = Lifecycle(store.environments, runtime, clock, self._quota, self._tasks, audit)
        self._lookup = Lookup(store, self._lifecycle, server_id)
        self.files = FileService(self._lookup, self._lifecycle, settings)
        self._executions = Executions(store.executions, runtime, self._lifecycle, clock, settings, self._tasks)

    @property
    def live_count(self) -> int:
        """How many environments are live."""
        return self._quota.total

    @property
    def running_count(self) -> int:
        """How many executions have not been recorded as ended."""
        return sum(len(live.running) for live in self._lifecycle.all())

    async def start(self, others: Mapping[EnvironmentId, Limits] | None = None) -> Sequence[Sandbox]:
        """Start the runtime and take over what an earlier process left. Raises ``MechanismFault``.

        ``others`` are sandboxes that are no environments and are to be left; answers those of them that are there.
        """
        await self._runtime.start(self._lifecycle.sandbox_ended)
        own = self._server_id if self._store.servers.is_shared else None
        rows = await self._store.environments.list_live(own)
        sandboxes = await self._runtime.adopt({**(others or {}), **{row.environment_id: row.limits for row in rows}})
        found = {sandbox.environment_id: sandbox for sandbox in sandboxes}
        for row in rows:
            self._lifecycle.adopt(row, found.get(row.environment_id))
        lost = await self._executions.lose_rest(self._lifecycle.all(), own)
        released = await self._store.idempotency.release_unanswered(own)
        _log.info(
            "environments adopted", rows=len(rows), sandboxes=len(found), executions_lost=len(lost), keys=released
        )
        adopted = {row.environment_id for row in rows}
        return [sandbox for name, sandbox in found.items() if name not in adopted]

    async def lose_rest(self) -> None:
        """What an earlier process left has been taken up by now, or never will be. Raises ``StoreUnavailable``."""
        own = self._server_id if self._store.servers.is_shared else None
        await self._executions.lose_rest(self._lifecycle.all(), own)

    async def stop(self) -> None:
        """Take no new work, let executions end within the grace, then end everything and stop the runtime."""
        self._draining = True
        await self._executions.drain(self._lifecycle.all(), self._settings.drain_grace_s)
        await self._lifecycle.end_all(_STOPPED)
        self._lifecycle.deadlines.close()
        await self._tasks.settle(_SETTLE_S)
        await self._runtime.stop(keep_sandboxes=False)

    async def end_buried(self) -> None:
        """Others took this server for dead and have ended its environments: end what is left of them here."""
        # One whose row is being written has not been there to be ended.
        before = [live for live in self._lifecycle.all() if live.is_written]
        rows = {row.environment_id for row in await self._store.environments.list_live(self._server_id)}
        for live in before:
            if live.environment_id not in rows:
                self._lifecycle.end(live, _BURIED)

    def end_expired(self) -> None:
        """Begin to end what has outlived its lifetime. A timer does so by itself."""
        self._lifecycle.deadlines.check()

    async def create(
        self, caller: Principal, wanted: NewEnvironment, keep: Keep[Environment] | None = None
    ) -> Environment:
        """See ``Environments``."""
        check_can_write(caller)
        allowed = await self.quotas.allowed(caller.user_id)
        self._check_not_draining()
        template = self._templates.check(wanted.template)
        isolation = choose_isolation(wanted, template, self._runtime)
        limits = template.limits
        if wanted.limits is not None:
            limits = grant(limits, wanted.limits, self.quotas.ceilings(allowed))
        self._quota.take(caller.user_id, limits.memory_bytes, allowed)
        row = self._new_row(caller, wanted, template, isolation, limits)
        # Once the row may have been written its sandbox has to follow, also when the caller goes away meanwhile.
        await self._tasks.finish(self._insert_and_launch(row, keep and keep(row)), f"insert {row.environment_id}")
        return row

    async def get(self, caller: Principal, environment_id: EnvironmentId) -> Environment:
        """See ``Environments``."""
        live = self._lifecycle.find(environment_id)
        row = live.row if live is not None else await self._lookup.find_row(environment_id)
        check_can_see(caller, row)
        return row

    async def metrics(self, caller: Principal, environment_id: EnvironmentId) -> Metrics:
        """See ``Environments``."""
        live = await self._lookup.get_live(caller, environment_id, changes=False)
        return await measure(live, self._clock)

    async def list(
        self,
        caller: Principal,
        page: PageRequest,
        *,
        statuses: frozenset[EnvironmentStatus] | None = None,
        template: str | None = None,
        name: str | None = None,
    ) -> Page[Environment]:
        """See ``Environments``."""
        wanted = EnvironmentFilter(
            owner_id=None if caller.is_admin else caller.user_id,
            statuses=LIVE_ENVIRONMENT_STATUSES if statuses is None else statuses,
            template=template,
            name=name,
        )
        rows = await self._store.environments.list(wanted, page)
        return replace(rows, items=tuple(map(self._lookup.newest, rows.items)))

    async def update(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        *,
        name: str | None = None,
        metadata: dict[str, str] | None = None,
        timeout_s: int | None = None,
    ) -> Environment:
        """See ``Environments``. Several changes of one environment are made one after the other."""
        live = await self._lookup.get_live(caller, environment_id)
        async with live.changing:
            if timeout_s is not None:
                # The wall comes first: an environment must never outlive what its sandbox is allowed.
                sandbox = await live.wait_for_sandbox()
                await sandbox.extend(timeout_s)
            row = live.row.with_details(self._clock.now(), name, metadata, timeout_s)
            written = await self._store.environments.update_details(
                environment_id,
                name=row.name,
                metadata=row.metadata,
                timeout_s=row.timeout_s,
                expires_at=row.expires_at,
            )
            if not written or live.ending is not None:
                raise live.refusal()
            # The status may have changed during the write.
            live.row = replace(row, status=live.row.status)
            if timeout_s is not None:
                self._lifecycle.prolong(live, timeout_s)
            return live.row

    async def delete(self, caller: Principal, environment_id: EnvironmentId) -> Environment:
        """See ``Environments``."""
        live = self._lifecycle.find(environment_id)
        if live is not None:
            check_can_change(caller, live.row)
            ending = await self._lifecycle.wait_for_end(live, _DELETED)
            if ending.deleted:
                return live.row
        row = await self._lookup.find_row(environment_id)
        check_can_change(caller, row)
        check_is_here(row, self._server_id)
        return await self._hide(row)

    def _new_row(
        self, caller: Principal, wanted: NewEnvironment, template: Template, isolation: Isolation, limits: Limits
    ) -> Environment:
        now = self._clock.now()
        timeout_s = wanted.timeout_s or self._settings.default_environment_timeout_s
        return Environment(
            environment_id=make_environment_id(),
            owner_id=caller.user_id,
            name=wanted.name,
            template=template.name,
            isolation=isolation,
            status=EnvironmentStatus.CREATING,
            timeout_s=timeout_s,
            created_at=now,
            expires_at=now + timedelta(seconds=timeout_s),
            limits=limits,
            metadata=dict(wanted.metadata or {}),
            server_id=self._server_id,
        )

    async def _insert_and_launch(self, row: Environment, answer: KeptAnswer | None) -> None:
        """The sandbox is made while the row is written. Raises ``StoreUnavailable``, and then it is ended again."""
        live = self._lifecycle.launch(row)
        try:
            # In the queue of writes before anything that the sandbox's task has to write about the row.
            await self._store.environments.insert(row, answer)
        except BaseException:
            # The row may be there all the same; its end is written when the database can be.
            self._lifecycle.end(live, _NOT_WRITTEN)
            raise
        live.is_written = True
        if self._draining:
            self._lifecycle.end(live, _STOPPED)
        _log.info("environment created", environment_id=row.environment_id, template=row.template)

    async def _hide(self, row: Environment) -> Environment:
        """Delete what has ended already."""
        now = self._clock.now()
        hidden = await self._store.environments.transition(
            row.environment_id, EnvironmentStatus.TERMINATED, expected=_DELETABLE, at=now, deleted=True
        )
        if not hidden:
            raise environment_not_found(row.environment_id)
        return replace(row, status=EnvironmentStatus.TERMINATED, deleted_at=now)
