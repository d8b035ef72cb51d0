"""A server without a network: what the tests of the HTTP layer talk to."""

import functools
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import httpx

from sandgate.auth.accounts import Accounts
from sandgate.auth.derived_secrets import DerivedSecrets
from sandgate.auth.file_links import FileLinks
from sandgate.auth.keys import SEALING, KeyRing
from sandgate.auth.passwords import PasswordCost, Passwords
from sandgate.auth.port_links import SignedPortLinks
from sandgate.auth.sealing import Sealer
from sandgate.auth.service import AuthService
from sandgate.auth.throttle import LoginThrottle
from sandgate.auth.tokens import Tokens
from sandgate.auth.users import UserService
from sandgate.config.settings import Settings
from sandgate.core.artifact import Artifact, make_artifact_id
from sandgate.core.audit import AuditChain
from sandgate.core.built import BuiltTemplate, LayerSize
from sandgate.core.clock import ManualClock
from sandgate.core.errors import LauncherUnavailable
from sandgate.core.ids import RunId, make_template_id
from sandgate.core.principal import Principal, Role
from sandgate.core.recipe import Recipe
from sandgate.core.states import TemplateStatus
from sandgate.environments.builds.all_templates import AllTemplates
from sandgate.environments.service import EnvironmentService
from sandgate.http.app import create_app
from sandgate.store.artifact_files import ArtifactFiles
from sandgate.store.audit_trail import AuditTrail
from sandgate.store.base import RunChange
from sandgate.store.snapshot_files import SnapshotFiles
from sandgate.store.sql_store import SqlStore
from sandgate.testing.builds import Builds, make_builds
from sandgate.testing.fake_runtime import FakeRuntime
from sandgate.testing.fake_templates import FakeTemplates
from sandgate.workflows.artifacts import ArtifactService
from sandgate.workflows.engine import Engine
from sandgate.workflows.holdings import TemplateUses
from sandgate.workflows.sandboxes import RuntimeStepSandboxes
from sandgate.workflows.schedules import ScheduleService
from sandgate.workflows.secrets import SecretService
from sandgate.workflows.service import WorkflowService
from sandgate.workflows.ticker import Ticker
from sandgate.workflows.webhooks import WebhookService

PASSWORD = "correct horse battery staple"
ENVIRONMENTS = "/api/v1/sandbox/environments"
_DOCUMENT: dict[str, Any] = {}
_CHEAP = PasswordCost(passes=1, memory_kib=8, lanes=1)


@dataclass(frozen=True)
class Account:
    """Somebody with a token."""

    principal: Principal
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """What to send along."""
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Site:
    """Everything around the application, and a client of it that checks each answer against the document."""

    store: SqlStore
    settings: Settings
    clock: ManualClock
    runtime: FakeRuntime
    passwords: Passwords
    tokens: Tokens
    users: UserService
    service: EnvironmentService
    workflows: WorkflowService
    secrets: SecretService
    artifacts: ArtifactService
    files: ArtifactFiles
    ticker: Ticker
    schedules: ScheduleService
    webhooks: WebhookService
    trail: AuditTrail
    links: FileLinks
    port_links: SignedPortLinks
    templates: Builds
    app: Any
    accounts: dict[str, Account] = field(default_factory=dict)
    chain: ClassVar[AuditChain] = AuditChain(b"the key of the tests")

    @classmethod
    async def open(cls, store: SqlStore, folder: Path) -> "Site":
        """Put it together and start it."""
        settings = Settings(drain_grace_s=0.01)
        clock, runtime, passwords = ManualClock(), FakeRuntime(), Passwords(_CHEAP)
        keys = KeyRing(folder / "keys", clock)
        keys.open()
        accounts = Accounts(store.users, clock)
        tokens = Tokens(keys, clock, lifetime_s=settings.token_lifetime_s)
        auth = AuthService(
            accounts=accounts,
            credentials=store.credentials,
            passwords=passwords,
            tokens=tokens,
            throttle=LoginThrottle(clock, attempts=settings.login_attempts, window_s=settings.login_window_s),
            clock=clock,
        )
        users = UserService(store.users, accounts, passwords, clock)
        trail = AuditTrail(store.audit, cls.chain, store.users.find_by_name, clock)
        sealing_keys = KeyRing(folder / "keys", clock, SEALING)
        sealing_keys.open()
        secrets = SecretService(store.secrets, Sealer(sealing_keys), clock, settings)
        all_templates = AllTemplates(FakeTemplates(settings.limits()))
        service = EnvironmentService(
            store, runtime, all_templates, clock, settings, audit=trail, open_secrets=secrets.open,
            snapshot_files=SnapshotFiles(folder / "snapshots"),
        )  # fmt: skip
        builds = make_builds(store, runtime, all_templates, service, clock, settings, folder / "logs")
        sandboxes = RuntimeStepSandboxes(runtime, all_templates, places=service.template_places)
        files = ArtifactFiles(folder / "artifacts")
        artifacts = ArtifactService(store, files, clock, settings)
        engine = Engine(store, sandboxes, clock, "site", secrets=secrets)
        builds.service.heed(TemplateUses(engine, sandboxes))
        workflows = WorkflowService(store, engine, sandboxes, clock, settings)
        # Not started: a test looks when it has moved the clock.
        ticker = Ticker(store, workflows, clock)
        schedules = ScheduleService(store, workflows, workflows, clock, settings, ticker.wake)
        derived = DerivedSecrets(folder / "keys")
        derived.open()
        webhooks = WebhookService(store, workflows, workflows, derived, clock, settings)
        triggers = ticker, schedules, webhooks
        app = _shared_app()
        site = cls(
            store, settings, clock, runtime, passwords, tokens, users, service, workflows, secrets, artifacts, files,
            *triggers, trail, FileLinks(derived.derive, accounts, clock),
            SignedPortLinks(derived.derive, accounts, clock), builds, app.serve,
        )  # fmt: skip
        app.turn_to(site, auth)
        await service.start()
        await builds.service.start()
        await workflows.start_engine()
        for name in ("admin", "user", "viewer", "stranger"):
            await site.add_account(name, Role(name) if name != "stranger" else Role.USER)
        return site

    async def add_account(self, name: str, role: Role) -> Account:
        """A new user with a token."""
        user = await self.users.create(None, name, PASSWORD, role)
        token = self.tokens.issue(user.user_id, self.clock.now()).access_token
        self.accounts[name] = Account(Principal(user.user_id, name, role), token)
        return self.accounts[name]

    async def renew_account(self, name: str) -> None:
        """A new account of the name's role in its place, whatever became of the old one."""
        role = self.accounts[name].principal.role
        account = await self.add_account(f"{name}-{len(self.accounts)}", role)
        self.accounts[name] = account

    async def close(self) -> None:
        """Stop it."""
        await self.webhooks.stop()
        await self.workflows.stop()
        await self.templates.service.stop()
        await self.service.stop()
        self.passwords.close()

    async def check_launcher(self) -> None:
        """Raises when the runtime was made to be away."""
        if self.runtime.unavailable:
            raise LauncherUnavailable("The launcher does not answer")

    async def send(self, method: str, path: str, who: str | None = "user", **named: Any) -> httpx.Response:
        """Send a request as somebody (None: as nobody)."""
        headers = {**(self.accounts[who].headers if who else {}), **named.pop("headers", {})}
        async with httpx.AsyncClient(transport=_CheckedTransport(self.app), base_url="http://sandgate.test") as client:
            return await client.request(method, path, headers=headers, **named)

    async def get(self, path: str, who: str | None = "user", **named: Any) -> httpx.Response:
        """Send a GET."""
        return await self.send("GET", path, who, **named)

    async def post(self, path: str, json: Any = None, who: str | None = "user", **named: Any) -> httpx.Response:
        """Send a POST with a JSON body, unless there is none."""
        if json is not None:
            named["json"] = json
        return await self.send("POST", path, who, **named)

    async def create_environment(self, who: str = "user", **fields: Any) -> str:
        """A new environment's id."""
        answer = await self.post(ENVIRONMENTS, {"name": "test-env", "template": "python-3.9", **fields}, who)
        assert answer.status_code == 201, answer.text
        environment_id: str = answer.json()["environment_id"]
        return environment_id

    async def add_template(self, who: str = "user", **changes: Any) -> BuiltTemplate:
        """One that has been built."""
        owner = self.accounts[who].principal.user_id
        row = BuiltTemplate(
            make_template_id(), owner, "built", 0, TemplateStatus.BUILDING, "digest", "/usr/bin/python3.9", False,
            "server", self.clock.now(), Recipe("python-3.9"),
        )  # fmt: skip
        row = replace(row, **changes)
        kept = await self.store.templates.insert(row, 100)
        assert isinstance(kept, BuiltTemplate)
        self.templates.layers.kept[kept.template_id] = size = LayerSize(3, 1000)
        if row.root is not None:
            self.templates.layers.kept[row.root.name] = row.root.size
        assert await self.store.templates.finish(
            kept.template_id,
            TemplateStatus.READY,
            expected=[kept.status],
            at=self.clock.now(),
            size=size,
            lock="six==1",
            root=row.root,
        )
        await self.templates.service.start()
        return kept

    async def add_artifact(self, run_id: str, path: str, *pieces: bytes) -> Artifact:
        """What a step of the run would have left."""
        run = await self.store.runs.find(RunId(run_id))
        assert run is not None
        pack = self.files.create(run.run_id)
        pack.write([path, *pieces])
        (file,) = pack.finish()
        artifact = Artifact(
            make_artifact_id(), run.run_id, "ask", None, 1, path, file.size_bytes, file.sha256, self.clock.now(),
            pack.name, file.offset_bytes,
        )  # fmt: skip
        assert await self.store.runs.apply(RunChange(run, artifacts=[artifact]))
        return artifact


class _Turned:
    """Stands for a service of the site that is open now."""

    def __init__(self) -> None:
        self.target: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)


class _App:
    """One application for all tests, because making it takes longer than most of them, with the site's services."""

    def __init__(self) -> None:
        self._parts = {
            name: _Turned()
            for name in (
                "authenticator",
                "users",
                "environments",
                "files",
                "sessions",
                "processes",
                "links",
                "networks",
                "ports",
                "port_links",
                "quotas",
                "snapshots",
                "volumes",
                "templates",
                "workflows",
                "secrets",
                "artifacts",
                "schedules",
                "webhooks",
                "idempotency",
                "audit",
                "audit_rows",
                "clock",
            )
        }
        self._site: Site | None = None
        self.serve = create_app(
            **self._parts,
            checks={"database": self._check_database, "launcher": self._check_launcher},
            # Ports have names of their own.
            settings=Settings(stream_lifetime_s=60.0, ports_domain="ports.test", port_answer_timeout_s=30.0),
            server_id="server",
            gauges={"sandgate_environments_live": ("Live environments.", self._count)},
        )

    def turn_to(self, site: Site, auth: AuthService) -> None:
        """Serve this site from now on."""
        self._site = site
        store = site.store
        services = (
            auth, site.users, site.service, site.service.files, site.service.sessions, site.service.processes,
            site.links, site.service.network, site.service.ports, site.port_links, site.service.quotas,
            site.service.snapshots, site.service.volumes, site.templates.service,
            site.workflows, site.secrets, site.artifacts, site.schedules,
            site.webhooks, store.idempotency, site.trail, store.audit, site.clock,
        )  # fmt: skip
        for part, service in zip(self._parts.values(), services, strict=True):
            part.target = service

    async def _check_database(self) -> None:
        assert self._site
        await self._site.store.check()

    async def _check_launcher(self) -> None:
        assert self._site
        await self._site.check_launcher()

    def _count(self) -> float:
        return self._site.service.live_count if self._site else 0


@functools.cache
def _shared_app() -> _App:
    return _App()


class _CheckedTransport(httpx.ASGITransport):
    """Hands requests to the application, and fails on an answer that its document does not know."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        await response.aread()
        if request.url.path != "/openapi.json":
            document = await self._document(request)
            check_against_document(document, request.method, request.url.path, response)
        return response

    async def _document(self, request: httpx.Request) -> dict[str, Any]:
        if not _DOCUMENT:
            # Made once: it is the same for every site, and long.
            asked = httpx.Request("GET", request.url.copy_with(path="/openapi.json"))
            response = await super().handle_async_request(asked)
            _DOCUMENT.update(httpx.Response(200, content=await response.aread()).json())
        return _DOCUMENT


def check_against_document(document: dict[str, Any], method: str, path: str, response: httpx.Response) -> None:
    """Each operation answers only what is documented of it: statuses, media types, error codes, required fields."""
    assert response.headers["x-request-id"]
    assert response.headers["x-content-type-options"] == "nosniff"
    operation = find_operation(document, method, path)
    if operation is None:
        return
    documented = operation["responses"].get(str(response.status_code))
    assert documented, f"{method} {path} answers {response.status_code}, which is not documented: {response.text}"
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in documented["content"], f"{method} {path} answers {media_type}, which is not documented"
    if response.status_code >= 400:
        check_error(documented, response)
    elif media_type == "application/json":
        name = documented["content"][media_type]["schema"]["$ref"].rpartition("/")[2]
        schema = document["components"]["schemas"][name]
        # A document that describes another one has no fields of its own.
        assert "properties" not in schema or set(response.json()) == set(schema["properties"])


def check_error(documented: dict[str, Any], response: httpx.Response) -> None:
    """An error has the one form, and a code that is documented for its status."""
    body = response.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"code", "message", "details"}
    assert isinstance(body["error"]["message"], str)
    assert isinstance(body["error"]["details"], dict)
    assert body["error"]["code"] in documented["content"]["application/json"]["examples"]


def find_operation(document: dict[str, Any], method: str, path: str) -> dict[str, Any] | None:
    """The operation of the document that a request is for."""
    for template, operations in document["paths"].items():
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path):
            operation: dict[str, Any] | None = operations.get(method.lower())
            return operation
    return None
