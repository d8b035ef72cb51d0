"""A workflow service on a real store and a fake runtime, whose clock stands still until a test moves it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sandgate.config.settings import Settings
from sandgate.core.clock import ManualClock
from sandgate.core.ids import EnvironmentId, RunId, WorkflowId, make_user_id
from sandgate.core.principal import Principal, Role
from sandgate.core.run import Run, RunStatus, StepRun, StepStatus
from sandgate.environments.base import NewEnvironment
from sandgate.environments.builds.all_templates import AllTemplates
from sandgate.environments.service import EnvironmentService
from sandgate.store.snapshot_files import SnapshotFiles
from sandgate.store.sql_store import SqlStore
from sandgate.testing.fake_runtime import FakeRuntime
from sandgate.testing.fake_templates import FakeTemplates
from sandgate.workflows.engine import Engine
from sandgate.workflows.leases import LeaseKeeper
from sandgate.workflows.sandboxes import RuntimeStepSandboxes
from sandgate.workflows.service import WorkflowService
from sandgate.workflows.workspaces import Workspaces
from tests.sqlite_store import database_path, empty_database, store
from tests.unit.workflows.orchestra import Orchestra

__all__ = ["database_path", "empty_database", "store"]


def make_principal(role: Role = Role.USER) -> Principal:
    """Somebody new."""
    return Principal(make_user_id(), "somebody", role)


def code(name: str, text: str = "pass", **more: Any) -> dict[str, Any]:
    """A step with code; what is no key of a step goes into its config."""
    keys = {"needs", "if", "foreach", "strategy", "timeout", "retry", "env"}
    config = {"code": text} | {key: value for key, value in more.items() if key not in keys}
    rest = {key: value for key, value in more.items() if key in keys}
    return {"name": name, "type": "code_execution", "config": config, **rest}


def child(name: str, workflow_id: str, inputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A step that starts a workflow."""
    config = {"workflow_id": workflow_id, "inputs": inputs or {}}
    return {"name": name, "type": "workflow", "config": config, **more}


@dataclass
class World:
    """A service, its engine and everything around them."""

    store: SqlStore
    settings: Settings = field(default_factory=lambda: Settings(drain_grace_s=0.01))
    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    clock: ManualClock = field(default_factory=ManualClock)
    user: Principal = field(default_factory=make_principal)
    faults: list[BaseException] = field(default_factory=list)
    owner: str = "one"
    templates: AllTemplates = field(default_factory=lambda: AllTemplates(FakeTemplates()))

    def __post_init__(self) -> None:
        self.environments = EnvironmentService(
            self.store, self.runtime, self.templates, self.clock, self.settings, self.faults.append,
            snapshot_files=SnapshotFiles(Path("nowhere")),
        )  # fmt: skip
        places = self.environments.template_places
        # Nobody says that they are held on while a test is slow.
        self.sandboxes = sandboxes = RuntimeStepSandboxes(self.runtime, self.templates, lease_s=60.0, places=places)
        self.workspaces = Workspaces(sandboxes, self.settings.workspace_idle_s)
        self.engine = Engine(
            self.store, sandboxes, self.clock, self.owner,
            most_runs=self.settings.max_runs, most_depth=self.settings.max_run_depth, on_fault=self.faults.append,
            workspaces=self.workspaces, environments=self.environments,
        )  # fmt: skip
        self.service = WorkflowService(self.store, self.engine, sandboxes, self.clock, self.settings)

    async def start(self) -> "World":
        """Take over what is there."""
        held = await self.store.runs.list_held(self.owner)
        kept = await self.environments.start(self.workspaces.expected(held, self.settings.limits()))
        self.workspaces.adopt(kept)
        await self.service.start_engine()
        await self.environments.lose_rest()
        return self

    async def stop(self) -> None:
        """What SIGTERM does."""
        await self.service.stop()
        await self.environments.stop()

    async def create_environment(self, user: Principal | None = None) -> EnvironmentId:
        """An environment that runs."""
        row = await self.environments.create(user or self.user, NewEnvironment("e", "python-3.9"))
        await self.until(lambda: row.environment_id in self.runtime.sandboxes)
        return row.environment_id

    async def create(self, *steps: dict[str, Any], user: Any = None, **more: Any) -> WorkflowId:
        """A workflow of these steps."""
        made = await self.service.create(user or self.user, {"name": "w", "steps": list(steps), **more})
        return made.workflow_id

    async def begin(self, workflow_id: WorkflowId, wait_s: float = 0, **inputs: Any) -> Run:
        """A run of it."""
        return await self.service.start(self.user, workflow_id, inputs, wait_s)

    async def run(self, *steps: dict[str, Any], **more: Any) -> Run:
        """A run of these steps, ended."""
        return await self.begin(await self.create(*steps, **more), wait_s=30)

    async def find(self, run_id: RunId | None) -> Run:
        """A run as it is on disk."""
        run = await self.store.runs.find(RunId(str(run_id)))
        assert run is not None
        return run

    async def step(self, run: Run, name: str, item: int | None = None) -> StepRun:
        """A step as it is on disk; it may have none of its row yet."""
        rows = {row.key: row for row in await self.store.runs.list_steps(run.run_id)}
        return rows.get((name, item)) or StepRun(run.run_id, name, item)

    async def until_step(self, run: Run, name: str, status: StepStatus, item: int | None = None) -> StepRun:
        """The step, once it stands so."""
        async with asyncio.timeout(30):
            while True:
                row = await self.step(run, name, item)
                if row.status is status:
                    return row

    async def until_run(self, run_id: RunId | None, *statuses: RunStatus) -> Run:
        """The run, once it has one of these statuses; without any, once it is over."""
        async with asyncio.timeout(30):
            while True:
                run = await self.find(run_id)
                if run.status in statuses or not (statuses or run.is_live):
                    return run

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let other tasks run until the condition holds."""
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - there is no event for everything a test may want to see
                await asyncio.sleep(0)

    def pass_time(self, seconds: float) -> None:
        """Move the clock, and let the engine look at it."""
        self.clock.advance(seconds)
        self.engine.look()

    async def crash(self) -> "World":
        """What follows a kill -9: the runtime's sandboxes live on, and another service takes over."""
        self.engine._stopping = True  # the first process says no more word
        for task in list(self.environments._tasks._tasks):
            task.cancel()
        await self.runtime.stop(keep_sandboxes=True)
        for task in list(self.engine._tasks):
            task.cancel()
        await asyncio.wait(self.engine._tasks) if self.engine._tasks else None
        runtime = FakeRuntime(self.runtime.sandboxes)
        return await replace(self, runtime=runtime, faults=self.faults).start()


@pytest.fixture
async def world(store: SqlStore) -> AsyncIterator[World]:
    """A started service; no background task of it may have failed in the end."""
    made = await World(store).start()
    yield made
    await made.stop()
    assert not made.faults


@pytest.fixture(autouse=True)
def _rounds_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines make no round of their own accord: it would come by real time, whatever a test has come to by then."""

    async def rest(_keeper: LeaseKeeper) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(LeaseKeeper, "_rest", rest)


MakeOrchestra = Callable[..., Orchestra]


@pytest.fixture
async def make_orchestra(store: SqlStore) -> AsyncIterator[MakeOrchestra]:
    """Processes on one database; all are stopped at the end, and none may have met a bug."""
    made: list[Orchestra] = []

    def make(**changes: object) -> Orchestra:
        made.append(Orchestra(store, **changes))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for orchestra in made:
        await orchestra.stop()
    assert [bug for orchestra in made for bug in orchestra.bugs] == []


@pytest.fixture
async def orchestra(make_orchestra: MakeOrchestra) -> Orchestra:
    """One process, started."""
    one = make_orchestra()
    await one.start()
    return one
