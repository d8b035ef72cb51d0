"""Puts the server together: the only place that knows which database and which runtime are in use."""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop

from sandgate import __version__
from sandgate.auth.accounts import Accounts
from sandgate.auth.departures import Departures
from sandgate.auth.derived_secrets import DerivedSecrets
from sandgate.auth.file_links import FileLinks
from sandgate.auth.first_admin import FirstAdmin, ensure_first_admin, forget_first_password
from sandgate.auth.keys import SEALING, KeyRing
from sandgate.auth.passwords import Passwords
from sandgate.auth.port_links import SignedPortLinks
from sandgate.auth.sealing import Sealer
from sandgate.auth.service import AuthService
from sandgate.auth.throttle import LoginThrottle
from sandgate.auth.tokens import Tokens
from sandgate.auth.users import UserService
from sandgate.cluster.membership import Membership
from sandgate.config.paths import (
    artifacts_folder,
    build_logs_folder,
    database_location,
    keys_folder,
    layers_folder,
    snapshots_folder,
    state_name,
)
from sandgate.config.settings import Settings
from sandgate.core.audit import by_service
from sandgate.core.clock import Clock, SystemClock
from sandgate.core.errors import TemplateUnavailable
from sandgate.core.states import Isolation
from sandgate.environments.builds.all_templates import AllTemplates
from sandgate.environments.builds.base import BuildTools
from sandgate.environments.builds.running_builds import RunningBuilds
from sandgate.environments.builds.service import TemplateService
from sandgate.environments.reaper import Reaper
from sandgate.environments.service import EnvironmentService
from sandgate.environments.templates import TemplateCatalogue
from sandgate.http.app import create_app
from sandgate.http.audit import AuditedConnections
from sandgate.http.server import serve
from sandgate.sandbox.layers import LayerFolders
from sandgate.sandbox.pools_probe import memory_of_machine, probe_pools
from sandgate.sandbox.registry.fetching import Fetcher
from sandgate.sandbox.registry.images import RegistryImages
from sandgate.sandbox.uv import find_uv
from sandgate.sandbox.zygote_runtime import ZygoteRuntime
from sandgate.store.artifact_files import ArtifactFiles
from sandgate.store.audit_trail import AuditTrail, audit_chain
from sandgate.store.folder_mark import claim_files
from sandgate.store.snapshot_files import SnapshotFiles
from sandgate.store.sql_store import SqlStore
from sandgate.telemetry.log import get_logger
from sandgate.workflows.artifacts import ArtifactService
from sandgate.workflows.collecting import Collecting
from sandgate.workflows.engine import Engine
from sandgate.workflows.holdings import LiveRuns, TemplateUses
from sandgate.workflows.requests import Egress, HttpSteps
from sandgate.workflows.sandboxes import UNHELD_LEASES, RuntimeStepSandboxes
from sandgate.workflows.schedules import ScheduleService
from sandgate.workflows.secrets import SecretService
from sandgate.workflows.service import WorkflowService
from sandgate.workflows.ticker import LONGEST_SLEEP_S, Ticker
from sandgate.workflows.webhooks import WebhookService
from sandgate.workflows.workspaces import Workspaces

_log = get_logger(__name__)

# Objects per generation before the collector looks: with the defaults it runs in the middle of every few requests.
_GC_THRESHOLDS = (20_000, 20, 50)
_SWITCH_INTERVAL_S = 0.0005
_POLL_S = 5.0


@dataclass(frozen=True, slots=True)
class Started:
    """What is said on the terminal when the server answers; ``admin`` is None when users existed before."""

    admin: FirstAdmin | None


def make_store(settings: Settings, *, checkpoint: bool = True) -> SqlStore:
    """The store that the settings name, not yet open. ``checkpoint`` is False beside a running server."""
    return SqlStore(
        database_location(settings),
        read_threads=settings.database_read_threads,
        deadline_s=settings.database_timeout_s,
        migrate=settings.database_migrate,
        checkpoint=checkpoint,
    )


def _make_requests(settings: Settings) -> HttpSteps:
    return HttpSteps(
        Egress(settings.http_step_allow),
        most=settings.max_http_steps,
        most_of_one=settings.max_http_steps_per_user,
        most_bytes=settings.http_step_bytes,
    )


def _make_auth(
    settings: Settings, store: SqlStore, accounts: Accounts, passwords: Passwords, keys: KeyRing, clock: Clock
) -> AuthService:
    return AuthService(
        accounts=accounts,
        credentials=store.credentials,
        passwords=passwords,
        tokens=Tokens(keys, clock, lifetime_s=settings.token_lifetime_s),
        throttle=LoginThrottle(clock, attempts=settings.login_attempts, window_s=settings.login_window_s),
        clock=clock,
    )


def _make_trail(settings: Settings, store: SqlStore, derived: DerivedSecrets, clock: Clock) -> AuditTrail:
    most_alike = settings.audit_alike_per_minute
    return AuditTrail(store.audit, audit_chain(derived.derive), store.users.find_by_name, clock, most_alike)


def _make_runtime(settings: Settings, isolation: Isolation, launcher: Path, tagged_s: float) -> ZygoteRuntime:
    policy = settings.network_policy()
    return ZygoteRuntime(isolation, launcher, settings.state / "spool", tagged_s=tagged_s, policy=policy)


def _make_build_tools(settings: Settings) -> BuildTools:
    layers = LayerFolders(
        layers_folder(settings), most_bytes=settings.max_template_bytes, most_files=settings.max_template_files
    )
    uv = find_uv()
    insecure = frozenset(filter(None, map(str.strip, settings.insecure_registries.split(","))))
    images = RegistryImages(Fetcher(settings.network_policy(), insecure, settings.registry_certificates))
    return BuildTools(layers, build_logs_folder(settings), None if uv is None else Path(uv), images)


def _warn_of_pools(settings: Settings) -> None:
    """Say at each start what one user could use up of the machine, as ``sandgate doctor`` does."""
    files, _terminals = probe_pools(memory_of_machine(), settings.max_environments)
    if not files.ok:
        _log.warning("environments could use up the open files of the machine", found=files.found, mend=files.mend)


class Gateway:
    """One gateway process: its store, services and application."""

    def __init__(self, settings: Settings, templates: TemplateCatalogue, isolation: Isolation, launcher: Path) -> None:
        self._settings = settings
        self._templates, self._all_templates = templates, AllTemplates(templates)
        self._clock = clock = SystemClock()
        self._stop = asyncio.Event()
        self._fault: BaseException | None = None
        self._store = store = make_store(settings)
        self._passwords = Passwords()
        self._keys = KeyRing(keys_folder(settings), clock)
        self._accounts = accounts = Accounts(store.users, clock)
        self._derived = DerivedSecrets(keys_folder(settings))
        self._derived.open()
        self._trail = _make_trail(settings, store, self._derived, clock)
        unheld_s = UNHELD_LEASES * settings.run_lease_s
        self._runtime = _make_runtime(settings, isolation, launcher, unheld_s)
        self._owner = f"{socket.gethostname()}-{state_name(settings)}"
        self._sealing_keys = KeyRing(keys_folder(settings), clock, SEALING)
        self._secrets = SecretService(store.secrets, Sealer(self._sealing_keys), clock, settings)
        self._environments = self._make_environments()
        self._membership = Membership(
            store.servers, clock, self._owner, settings.server_lease_s, self._environments.end_buried
        )
        sandboxes = RuntimeStepSandboxes(
            self._runtime, self._all_templates, lease_s=settings.run_lease_s, places=self._environments.template_places
        )
        is_shared = bool(settings.database_url.get_secret_value())
        self._workspaces = Workspaces(sandboxes, settings.workspace_idle_s, unheld_s if is_shared else None)
        files = ArtifactFiles(artifacts_folder(settings))
        self._artifacts = ArtifactService(store, files, clock, settings)
        self._engine = Engine(
            store,
            sandboxes,
            clock,
            self._owner,
            most_steps=settings.max_steps,
            most_steps_of_one=settings.max_steps_per_user,
            most_runs=settings.max_runs,
            most_depth=settings.max_run_depth,
            requests=_make_requests(settings),
            workspaces=self._workspaces,
            environments=self._environments,
            lease_s=settings.run_lease_s,
            secrets=self._secrets,
            collecting=Collecting(store.artifacts, files, clock, settings),
            on_fault=self._on_fault,
        )
        self._builds.heed(TemplateUses(self._engine, sandboxes))
        self._workflows = WorkflowService(store, self._engine, sandboxes, clock, settings)
        # Beside others on one database a schedule may be changed, or a run may end, where nobody here is told of it.
        poll_s = _POLL_S if is_shared else LONGEST_SLEEP_S
        self._ticker = Ticker(store, self._workflows, clock, poll_s=poll_s, on_fault=self._on_fault)
        self._engine.tell_of_ends(self._ticker.run_ended)
        self._engine.tell_of_schedules(self._ticker.wake)
        self._schedules = ScheduleService(store, self._workflows, self._workflows, clock, settings, self._ticker.wake)
        self._webhooks = WebhookService(store, self._workflows, self._workflows, self._derived, clock, settings)
        self._users = UserService(
            store.users, accounts, self._passwords, clock, partial(forget_first_password, settings.state)
        )
        self._auth = _make_auth(settings, store, accounts, self._passwords, self._keys, clock)
        self._reaper = Reaper(store, clock, settings, prune_audit=self._trail.prune)

    def _make_environments(self) -> EnvironmentService:
        environments = EnvironmentService(
            self._store,
            self._runtime,
            self._all_templates,
            self._clock,
            self._settings,
            on_fault=self._on_fault,
            audit=self._trail,
            server_id=self._owner,
            open_secrets=self._secrets.open,
            snapshot_files=SnapshotFiles(snapshots_folder(self._settings)),
        )
        self._builds = self._make_builds(environments)
        return environments

    def _make_builds(self, environments: EnvironmentService) -> TemplateService:
        store, runtime, settings = self._store.templates, self._runtime, self._settings
        tools, known, clock = _make_build_tools(settings), self._all_templates, self._clock
        running = RunningBuilds(store, runtime, tools, known, clock, settings, self._on_fault, self._trail)
        return TemplateService(store, known, running, runtime, clock, settings, self._owner, environments)

    def _make_departures(self) -> Departures:
        runs = LiveRuns(self._engine)
        return Departures(self._accounts, [self._environments.holdings, runs, self._builds.holdings])

    def _on_fault(self, error: BaseException) -> None:
        """A bug in a background task: end the process, so that a fresh one takes over."""
        _log.error("a background task died", error=repr(error))
        self._fault = error
        self._stop.set()

    async def _drain(self) -> None:
        await self._ticker.stop()
        await self._webhooks.stop()
        await self._workflows.stop()
        await self._builds.stop()
        await self._environments.stop()

    async def _check_template(self) -> None:
        if not any(template.available for template in self._templates.list()):
            raise TemplateUnavailable(
                "No template is available; install one with: sandgate template install python-3.13"
            )

    async def run(self, sock: socket.socket, started: Callable[[Started], None]) -> int:
        """Serve on a bound socket until SIGTERM; the exit code. Raises ``SandgateError`` when it cannot start."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        await self._store.open()
        self._keys.open()
        self._sealing_keys.open()
        await self._trail.check()
        await self._claim_files()
        admin = await ensure_first_admin(
            self._store.users,
            self._passwords,
            self._clock,
            given_password=self._settings.admin_password.get_secret_value(),
            state=self._settings.state,
        )
        await self._membership.join()
        # From now on others wait for signs of life, however long it takes to look through what is there.
        membership = loop.create_task(self._membership.run(), name="membership")
        try:
            await self._take_over()
            await self._serve(sock, lambda: started(Started(admin)), membership)
            await self._membership.leave()
        finally:
            membership.cancel()
            self._passwords.close()
            await self._store.close()
        return 1 if self._fault is not None else 0

    async def _claim_files(self) -> None:
        """Before anything is removed, and before anything makes the database look used. Raises as it says."""
        settings, identity = self._settings, await self._store.identity()
        folders = [find(settings) for find in (artifacts_folder, snapshots_folder, layers_folder, build_logs_folder)]
        is_new = not await self._store.users.count()
        await asyncio.to_thread(claim_files, settings.state, identity, folders, is_new=is_new)

    async def _take_over(self) -> None:
        """Find what an earlier process left, and go on with it."""
        _warn_of_pools(self._settings)
        held = await self._store.runs.list_held(self._owner)
        expected = self._workspaces.expected(held, self._settings.limits())
        self._workspaces.adopt(await self._environments.start(expected))
        await self._environments.snapshots.prepare()
        # What goes on may be of templates that were built.
        await self._builds.start()
        await self._workflows.start_engine()
        await self._environments.lose_rest()
        self._ticker.start()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)

    async def _serve(self, sock: socket.socket, started: Callable[[], None], membership: asyncio.Task[None]) -> None:
        app = create_app(
            authenticator=self._auth,
            users=self._users,
            environments=self._environments,
            files=self._environments.files,
            sessions=self._environments.sessions,
            processes=self._environments.processes,
            links=FileLinks(self._derived.derive, self._accounts, self._clock),
            networks=self._environments.network,
            ports=self._environments.ports,
            port_links=SignedPortLinks(self._derived.derive, self._accounts, self._clock),
            quotas=self._environments.quotas,
            snapshots=self._environments.snapshots,
            volumes=self._environments.volumes,
            templates=self._builds,
            workflows=self._workflows,
            secrets=self._secrets,
            artifacts=self._artifacts,
            schedules=self._schedules,
            webhooks=self._webhooks,
            idempotency=self._store.idempotency,
            audit=self._trail,
            audit_rows=self._store.audit,
            checks={
                "database": self._store.check,
                "launcher": self._runtime.check,
                "templates": self._check_template,
            },
            clock=self._clock,
            settings=self._settings,
            server_id=self._owner,
            gauges={
                "sandgate_environments_live": ("Live environments.", lambda: self._environments.live_count),
                "sandgate_runs_live": ("Runs of workflows that are not over.", lambda: self._engine.live_count),
                "sandgate_executions_running": ("Running executions.", lambda: self._environments.running_count),
            },
        )
        self._trail.note(by_service("start_service", self._clock.now(), None, {"version": __version__}))
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(_await(membership), name="membership while serving"),
                tasks.create_task(self._reaper.run(), name="reaper"),
                tasks.create_task(self._auth.run(), name="api key uses"),
                tasks.create_task(self._make_departures().run(), name="departures"),
                tasks.create_task(self._artifacts.run(), name="artifacts"),
                tasks.create_task(self._environments.snapshots.run(), name="snapshots"),
                tasks.create_task(self._trail.run(), name="audit"),
                tasks.create_task(self._environments.quotas.use.run(), name="executions of the day"),
                tasks.create_task(self._environments.volumes.run(), name="volumes"),
                tasks.create_task(self._builds.leaving.run(), name="templates"),
            ]
            refused = AuditedConnections(self._trail, self._clock).tell_refused
            await serve(
                app, self._settings, sock, started=started, stop=self._stop, drain=self._drain, tell_refused=refused
            )
            self._trail.note(by_service("stop_service", self._clock.now(), None, {}))
            for task in background:
                task.cancel()


async def _await(task: asyncio.Task[None]) -> None:
    """A task that began before the group that is to end with it."""
    await task


def run_gateway(
    settings: Settings,
    templates: TemplateCatalogue,
    isolation: Isolation,
    launcher: Path,
    sock: socket.socket,
    started: Callable[[Started], None],
) -> int:
    """Run a gateway in this process until SIGTERM; the exit code."""

    # The thread that writes to the database asks for the interpreter several times a transaction, and would wait for
    # the default of 5 ms each time that this thread is busy.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)

    async def main() -> int:
        return await Gateway(settings, templates, isolation, launcher).run(sock, started)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
