"""The use cases of environments."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sandgate.config.settings import Settings
from sandgate.core.audit import AuditSink
from sandgate.core.built import BuiltTemplate
from sandgate.core.clock import Clock
from sandgate.core.environment import Environment, EnvironmentChange
from sandgate.core.errors import MechanismFault
from sandgate.core.idempotency import Keep, KeptAnswer
from sandgate.core.ids import EnvironmentId, UserId
from sandgate.core.limits import Ceilings, Limits
from sandgate.core.network import NetworkRules
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal
from sandgate.core.quota import UserQuota
from sandgate.core.states import LIVE_ENVIRONMENT_STATUSES, EnvironmentStatus
from sandgate.environments.access import (
    check_can_change,
    check_can_see,
    check_can_write,
    check_is_here,
    environment_not_found,
)
from sandgate.environments.base import Metrics, NewEnvironment, Templates
from sandgate.environments.beginnings import begin
from sandgate.environments.capturing import Capturing
from sandgate.environments.copying import Copying
from sandgate.environments.executions import Executions
from sandgate.environments.files import FileService
from sandgate.environments.forking import Forking
from sandgate.environments.granting import grant
from sandgate.environments.isolation import choose_isolation
from sandgate.environments.lifecycle import Lifecycle
from sandgate.environments.live import Ending, LiveEnvironment
from sandgate.environments.lookup import Lookup
from sandgate.environments.measuring import measure
from sandgate.environments.network import NetworkService
from sandgate.environments.ports import PortService
from sandgate.environments.processes import ProcessService
from sandgate.environments.quota import Quota, check_memory, check_place
from sandgate.environments.quotas import UserQuotas
from sandgate.environments.running import CodeRunner
from sandgate.environments.sessions import SessionService
from sandgate.environments.snapshots import SnapshotService, check_fits
from sandgate.environments.tasks import TaskOwner
from sandgate.environments.variables import OpenSecrets, VariableGiver
from sandgate.environments.volumes import VolumeGiver, VolumeService
from sandgate.sandbox.base import Runtime, Sandbox
from sandgate.store.base import EnvironmentFilter, SnapshotFolder, Store
from sandgate.telemetry.log import get_logger

# How long writes that are still tried again may go on when the service stops.
_SETTLE_S = 5.0

_NOT_WRITTEN = Ending(EnvironmentStatus.FAILED, "its record could not be written")
_NEVER_WAS = Ending(EnvironmentStatus.FAILED, "its owner has as much as is allowed", deleted=True)
_STOPPED = Ending(EnvironmentStatus.TERMINATED, "the service was stopped")
_BURIED = Ending(EnvironmentStatus.FAILED, "the server that it was on was out of touch, and taken for dead")
_DELETED = Ending(EnvironmentStatus.TERMINATED, None, deleted=True)
# What has ended by itself, or with the service, can still be deleted.
_DELETABLE = frozenset({EnvironmentStatus.FAILED, EnvironmentStatus.EXPIRED, EnvironmentStatus.TERMINATED})

_log = get_logger(__name__)


class EnvironmentService(CodeRunner, Forking):
    """``Environments`` on a store and a runtime. One process has one of it, on one event loop.

    ``start`` comes first and ``stop`` last. ``on_fault`` is told of a bug in a background task, ``audit`` of
    environments that end without anybody deleting them. ``server_id`` names the server in rows: the same after a
    restart, another for every other server on the database. ``open_secrets`` reads those of users,
    ``snapshot_files`` are those of snapshots.
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
        open_secrets: OpenSecrets | None = None,
        *,
        snapshot_files: SnapshotFolder,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._templates = templates
        self._clock = clock
        self._settings = settings
        self._draining = False
        self._adopted = asyncio.Event()
        self._server_id = server_id
        self._tasks = TaskOwner(on_fault)
        self._quota = Quota(settings)
        self.quotas = UserQuotas(store, self._quota, clock, settings, server_id)
        self._lifecycle = Lifecycle(
            store.environments, runtime, clock, self._quota, self._tasks, audit, settings.max_paused_s, templates
        )
        self._lookup = Lookup(store, self._lifecycle, server_id)
        self.network = NetworkService(self._lookup, settings)
        self.ports = PortService(self._lookup, settings)
        self._variables = VariableGiver(settings, open_secrets)
        self._volume_giver = VolumeGiver(store.volumes, runtime.volumes, server_id)
        self.volumes = VolumeService(
            store.volumes, runtime.volumes, self, self.quotas, self._volume_giver, clock, settings, server_id
        )
        self.files = FileService(self._lookup, self._lifecycle, settings, self._tasks)
        parts = self._lookup, self._lifecycle, runtime, clock, settings, self._tasks, self._variables
        self.sessions = SessionService(*parts, templates=templates, check_open=self._check_not_draining)
        self.processes = ProcessService(*parts)
        self._copying = Copying(self._lifecycle, runtime, settings, self._tasks)
        self._capturing = Capturing(self._lookup, self._lifecycle, runtime, settings, self._tasks, self._copying)
        self._lifecycle.filling = self._capturing
        self.snapshots = SnapshotService(
            self._lookup, self._capturing, store.snapshots, snapshot_files, self.quotas, clock, settings, self._tasks,
            server_id, self._check_not_draining,
        )  # fmt: skip
        self._executions = Executions(store.executions, runtime, self._lifecycle, clock, settings, self._tasks)

    @property
    def live_count(self) -> int:
        """How many environments are live."""
        return self._quota.total

    @property
    def holdings(self) -> Lifecycle:
        """The live environments, by who they belong to."""
        return self._lifecycle

    @property
    def running_count(self) -> int:
        """How many executions have not been recorded as ended."""
        return sum(len(live.running) for live in self._lifecycle.all())

    @property
    def template_places(self) -> Quota:
        """Where whatever else is of built templates is counted, beside environments."""
        return self._quota

    def count_of(self, template: BuiltTemplate) -> int:
        """How many live environments there are of a template."""
        rows = [live.row for live in self._lifecycle.all() if live.row.template == template.reference]
        return sum(template.is_public or row.owner_id == template.owner_id for row in rows)

    async def count_snapshots_of(self, template: BuiltTemplate) -> int:
        """How many snapshots there are of a template, without which they are of no use. Raises ``StoreUnavailable``."""
        owner_id = None if template.is_public else template.owner_id
        return await self._store.snapshots.count_of(template.reference, self._server_id, owner_id)

    async def ceilings_of(self, user_id: UserId) -> Ceilings:
        """The most that one environment of a user may have. Raises ``StoreUnavailable``."""
        return self.quotas.ceilings(await self.quotas.allowed(user_id))

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
            sandbox = found.get(row.environment_id)
            if sandbox is not None:
                await self.network.open_again(sandbox, row)
            self._lifecycle.adopt(row, sandbox)
        processes = await self.processes.adopt()
        sessions = self.sessions.adopt()
        lost = await self._executions.lose_rest(self._lifecycle.all(), own)
        released = await self._store.idempotency.release_unanswered(own)
        _log.info(
            "environments adopted", rows=len(rows), sandboxes=len(found), executions_lost=len(lost), keys=released,
            processes=processes, sessions=sessions,
        )  # fmt: skip
        self._adopted.set()
        adopted = {row.environment_id for row in rows}
        return [sandbox for name, sandbox in found.items() if name not in adopted]

    async def lose_rest(self) -> None:
        """What an earlier process left has been taken up by now, or never will be. Raises ``StoreUnavailable``."""
        own = self._server_id if self._store.servers.is_shared else None
        await self._executions.lose_rest(self._lifecycle.all(), own)

    async def stop(self) -> None:
        """Take no new work, let executions end within the grace, then end everything and stop the runtime."""
        self._draining = self.processes.is_draining = True
        self._lifecycle.pausing.close()
        await self._executions.drain(self._lifecycle.all(), self._settings.drain_grace_s)
        await self._lifecycle.end_all(_STOPPED)
        self._lifecycle.deadlines.close()
        self.sessions.close()
        await self._tasks.settle(_SETTLE_S)
        await self._runtime.stop(keep_sandboxes=False)

    async def end_buried(self) -> None:
        """Others took this server for dead and have ended its environments: end what is left of them here.

        Waits until those of an earlier process have been taken over.
        """
        await self._adopted.wait()
        # One whose row is being written has not been there to be ended.
        before = [live for live in self._lifecycle.all() if live.is_written]
        rows = {row.environment_id for row in await self._store.environments.list_live(self._server_id)}
        for live in before:
            if live.environment_id not in rows:
                self._lifecycle.end(live, _BURIED)

    def end_expired(self) -> None:
        """Begin to end what has outlived its lifetime, and to pause what is not used. Timers do so by themselves."""
        self._lifecycle.deadlines.check()
        self._lifecycle.pausing.check_idle()

    async def create(
        self, caller: Principal, wanted: NewEnvironment, keep: Keep[Environment] | None = None
    ) -> Environment:
        """See ``Environments``."""
        check_can_write(caller)
        allowed = await self.quotas.allowed(caller.user_id)
        elsewhere = await self.quotas.elsewhere(caller.user_id)
        self._check_not_draining()
        snapshot = await self._find_snapshot(caller, wanted)
        named = wanted.template or (snapshot.template if snapshot else "")
        template = self._templates.check(named, caller.user_id)
        isolation = choose_isolation(wanted, template, self._runtime)
        self.network.check(wanted.network, isolation)
        if wanted.wants_pause:
            self._lifecycle.pausing.check(isolation)
        limits = template.limits
        if wanted.limits is not None:
            limits = grant(limits, wanted.limits, self.quotas.ceilings(allowed))
        if snapshot is not None:
            check_fits(snapshot, template.reference, limits, isolation)
        if wanted.variables:
            await self._variables.check(caller.user_id, wanted.variables)
            self._check_not_draining()
        volumes = await self._volume_giver.choose(caller.user_id, wanted.volumes, isolation)
        now = self._clock.now()
        row = begin(caller.user_id, wanted, template, isolation, limits, now, self._settings, self._server_id, volumes)
        source = None if snapshot is None else await self.snapshots.open(snapshot)
        try:
            self._check_not_draining()
            self._quota.take(row, allowed, elsewhere)
        except BaseException:
            if source is not None:
                source.release()
            raise
        if source is not None:
            self._capturing.expect(row.environment_id, source)
        # Once the row may have been written its sandbox has to follow, also when the caller goes away meanwhile.
        inserting = self._insert_and_launch(row, keep and keep(row), allowed)
        await self._tasks.finish(inserting, f"insert {row.environment_id}")
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
        return await measure(live, self._clock, self._settings.environment_disk)

    async def list(
        self,
        caller: Principal,
        page: PageRequest,
        *,
        statuses: frozenset[EnvironmentStatus] | None = None,
        template: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Page[Environment]:
        """See ``Environments``."""
        wanted = EnvironmentFilter(
            owner_id=None if caller.is_admin else caller.user_id,
            statuses=LIVE_ENVIRONMENT_STATUSES if statuses is None else statuses,
            template=template,
            name=name,
            metadata=tuple(sorted((metadata or {}).items())),
        )
        if statuses is not None:
            await self._lifecycle.note()
        rows = await self._store.environments.list(wanted, page)
        return replace(rows, items=tuple(map(self._lookup.newest, rows.items)))

    async def update(self, caller: Principal, environment_id: EnvironmentId, change: EnvironmentChange) -> Environment:
        """See ``Environments``. Several changes of one environment are made one after the other."""
        live = await self._lookup.get_live(caller, environment_id)
        if change.wants_pause:
            self._lifecycle.pausing.check(live.row.isolation)
        if change.network is None:
            async with live.changing, live.standing:
                return await self._change(live, change)
        self.network.check(change.network.rules, live.row.isolation)
        # What is open and what is written must be the same in the end, also when the caller goes away meanwhile.
        changing = self._change_network(live, change, change.network.rules)
        return await self._tasks.finish(changing, f"network of {environment_id}")

    async def _change_network(
        self, live: LiveEnvironment, change: EnvironmentChange, rules: NetworkRules | None
    ) -> Environment:
        async with live.changing:
            await self.network.change(live, rules)
            try:
                async with live.standing:
                    return await self._change(live, change)
            except MechanismFault:
                await self.network.undo(live)
                raise

    async def _change(self, live: LiveEnvironment, change: EnvironmentChange) -> Environment:
        # The wall comes first: an environment must never outlive what its sandbox is allowed.
        await self._lifecycle.extend(live, change)
        row = live.row.changed(change, self._clock.now())
        written = await self._store.environments.update_details(row)
        if not written or live.ending is not None:
            raise live.refusal()
        # The status may have changed during the write.
        live.row = replace(row, status=live.row.status)
        await self._lifecycle.take_up(live, change)
        return live.row

    async def pause(self, caller: Principal, environment_id: EnvironmentId) -> Environment:
        """See ``Environments``."""
        live = await self._lookup.get_live(caller, environment_id)
        return await self._lifecycle.pausing.pause(live)

    async def resume(self, caller: Principal, environment_id: EnvironmentId) -> Environment:
        """See ``Environments``."""
        live = await self._lookup.get_live(caller, environment_id)
        return await self._lifecycle.pausing.resume(live, durable=True)

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

    async def _insert_and_launch(self, row: Environment, answer: KeptAnswer | None, allowed: UserQuota) -> None:
        """The sandbox is made while the row is written.

        Raises ``StoreUnavailable``, ``TooManyEnvironments``, ``MemoryQuotaExceeded``, and then it is ended again.
        """
        # What is mounted is the affair of others, too: it has to be written first who has it.
        may_begin = asyncio.Event() if row.volumes else None
        live = self._lifecycle.launch(row, may_begin)
        try:
            # In the queue of writes before anything that the sandbox's task has to write about the row.
            held = await self._store.environments.insert(row, answer, self.quotas.shared(allowed))
        except BaseException:
            # The row may be there all the same; its end is written when the database can be.
            self._lifecycle.end(live, _NOT_WRITTEN)
            raise
        if held is not None:
            # On other servers the user has made more meanwhile.
            self._lifecycle.end(live, _NEVER_WAS)
            check_place(held, allowed)
            check_memory(held, row.limits.machine_bytes, allowed)
        live.is_written = True
        if may_begin is not None:
            may_begin.set()
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
