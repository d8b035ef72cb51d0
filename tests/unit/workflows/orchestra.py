"""An engine and its service: a real store that breaks on demand, a fake runtime, a clock that stands still."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandgate.config.settings import Settings
from sandgate.core.clock import ManualClock
from sandgate.core.ids import EnvironmentId, RunId, WorkflowId, make_user_id
from sandgate.core.principal import Principal, Role
from sandgate.core.run import Run, StepRun
from sandgate.store.sql_store import SqlStore
from sandgate.testing.fake_runtime import FakeRuntime, FakeSandbox
from sandgate.testing.fake_templates import FakeTemplates
from sandgate.testing.faults import PlannedFaults
from sandgate.testing.faulty_store import FaultyStore
from sandgate.workflows.engine import Engine
from sandgate.workflows.sandboxes import RuntimeStepSandboxes
from sandgate.workflows.service import WorkflowService

LEASE_S = 60.0
LIMIT_S = 30.0
LOOP = "while True: pass"


def code(name: str, text: str = "pass", **more: Any) -> dict[str, Any]:
    """A step with code, as a user writes it."""
    return {"name": name, "type": "code_execution", "config": {"code": text, **more.pop("config", {})}, **more}


def make_principal(role: Role = Role.USER, name: str = "somebody") -> Principal:
    """Somebody new."""
    return Principal(make_user_id(), name, role)


@dataclass
class Orchestra:
    """One process of a server, but for HTTP. Others on the same ``store`` are other processes."""

    store: SqlStore
    owner: str = "one"
    clock: ManualClock = field(default_factory=ManualClock)
    machine: dict[EnvironmentId, FakeSandbox] = field(default_factory=dict)
    faults: PlannedFaults = field(default_factory=PlannedFaults)
    settings: Settings = field(default_factory=Settings)
    user: Principal = field(default_factory=make_principal)
    bugs: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runtime = FakeRuntime(self.machine)
        self.faulty = FaultyStore(self.store, self.faults)
        templates = FakeTemplates(self.settings.limits())
        self.sandboxes = RuntimeStepSandboxes(self.runtime, templates, lease_s=LEASE_S)
        self.engine = Engine(
            self.faulty,
            self.sandboxes,
            self.clock,
            self.owner,
            most_steps=self.settings.max_steps,
            most_steps_of_one=self.settings.max_steps_per_user,
            lease_s=LEASE_S,
            on_fault=self.bugs.append,
        )
        self.service = WorkflowService(self.faulty, self.engine, self.sandboxes, self.clock, self.settings)

    async def start(self) -> None:
        """As a process starts."""
        await self.runtime.start(lambda _environment_id, _reason: None)
        await self.service.start_engine()

    async def stop(self) -> None:
        """As a process ends in good order."""
        await self.service.stop()

    async def crash(self) -> None:
        """Let everything stop where it is; what runs in sandboxes goes on until the next process ends it."""
        engine = self.engine
        engine._stopping = True
        for task in list(engine._tasks):
            task.cancel()
        await asyncio.wait(engine._tasks or [asyncio.ensure_future(asyncio.sleep(0))])
        for sandbox in list(self.machine.values()):
            sandbox.on_end = lambda _sandbox: None

    async def patrol(self) -> None:
        """What the engine does now and then, now."""
        self.engine._leases.stir(free=True)
        await self.engine._leases.go_round()

    async def make(self, *steps: dict[str, Any], **more: Any) -> WorkflowId:
        """A workflow."""
        made = await self.service.create(self.user, {"name": "w", "steps": list(steps), **more})
        return made.workflow_id

    async def begin(self, *steps: dict[str, Any], **more: Any) -> RunId:
        """A run that has been started."""
        run = await self.service.start(self.user, await self.make(*steps, **more), {}, 0)
        return run.run_id

    async def play(self, *steps: dict[str, Any], **more: Any) -> Mapping[str, StepRun]:
        """A run to its end: its steps by name."""
        run_id = await self.begin(*steps, **more)
        await self.until_over(run_id)
        return await self.steps(run_id)

    async def row(self, run_id: RunId) -> Run:
        """The run's row."""
        found = await self.store.runs.find(run_id)
        assert found is not None
        return found

    async def steps(self, run_id: RunId) -> Mapping[str, StepRun]:
        """The rows of its steps; items are ``name.0`` and so on."""
        rows = await self.store.runs.list_steps(run_id)
        return {row.step if row.item is None else f"{row.step}.{row.item}": row for row in rows}

    async def words(self, run_id: RunId) -> list[str]:
        """What happened to it."""
        return [f"{e.kind}:{e.step}" if e.step else e.kind for e in await self.store.runs.list_history(run_id)]

    async def until(self, condition: Callable[[], object]) -> None:
        """Let other tasks run until the condition holds."""
        async with asyncio.timeout(LIMIT_S):
            while not condition():  # noqa: ASYNC110 - there is no event for everything a test may want to see
                await asyncio.sleep(0)

    async def until_over(self, run_id: RunId) -> Run:
        """Wait for the end of a run, as the rows say it."""
        async with asyncio.timeout(LIMIT_S):
            while (run := await self.row(run_id)).is_live:
                pass
        return run

    async def until_step(self, run_id: RunId, name: str, status: str) -> None:
        """Wait until the row of a step says so."""
        async with asyncio.timeout(LIMIT_S):
            while (row := (await self.steps(run_id)).get(name)) is None or row.status != status:
                pass

    async def until_running(self, count: int = 1) -> None:
        """Wait until this many sandboxes run code."""
        await self.until(lambda: sum(bool(sandbox._running) for sandbox in self.machine.values()) == count)
