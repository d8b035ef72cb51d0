"""Services and engines on one database, as servers that share it are, with a runtime that only pretends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sandgate.config.settings import Settings
from sandgate.core.clock import ManualClock
from sandgate.core.ids import RunId, UserId
from sandgate.core.principal import Principal, Role
from sandgate.core.run import Run
from sandgate.store.sql_store import SqlStore
from sandgate.testing.fake_runtime import FakeRuntime
from sandgate.testing.fake_templates import FakeTemplates
from sandgate.workflows.engine import Engine
from sandgate.workflows.positions import END, FeedEvent, Position, parse_position
from sandgate.workflows.sandboxes import RuntimeStepSandboxes
from sandgate.workflows.service import WorkflowService

LIMIT_S = 30.0
OWNER = Principal(UserId("user-000000000001"), "owner", Role.USER)
STRANGER = Principal(UserId("user-000000000002"), "stranger", Role.USER)


def code(name: str, text: str = "pass", **more: Any) -> dict[str, Any]:
    """A step with code."""
    return {"name": name, "type": "code_execution", "config": {"code": text}, **more}


def ask(name: str = "ask", **more: Any) -> dict[str, Any]:
    """A step that waits for an approval."""
    return {"name": name, "type": "approval", **more}


class Stand:
    """One server of several."""

    def __init__(self, store: SqlStore, clock: ManualClock, name: str) -> None:
        self.store = store
        self.clock = clock
        self.runtime = FakeRuntime()
        # Nobody says that they are held on while a test is slow.
        sandboxes = RuntimeStepSandboxes(self.runtime, FakeTemplates(), lease_s=60.0)
        self.engine = Engine(store, sandboxes, clock, name)
        self.service = WorkflowService(store, self.engine, sandboxes, clock, Settings())

    async def start(self, *steps: dict[str, Any], **more: Any) -> Run:
        """A run of a new workflow of these steps."""
        workflow = await self.service.create(OWNER, {"name": "w", "steps": list(steps), **more})
        return await self.service.start(OWNER, workflow.workflow_id, {}, 0)

    async def run_to_end(self, *steps: dict[str, Any], **more: Any) -> Run:
        """The same once it has ended."""
        run = await self.start(*steps, **more)
        return await self.until_over(run.run_id)

    async def until_over(self, run_id: RunId) -> Run:
        """The run once it has ended."""
        live = self.engine.find(run_id)
        if live is not None:
            await live.wait_for_end(LIMIT_S)
        run = await self.store.runs.find(run_id)
        assert run is not None
        assert not run.is_live, f"it is still {run.status}"
        return run

    async def statuses(self, run_id: RunId) -> dict[str, str]:
        """How each step stands."""
        return {row.step: row.status.value for row in await self.store.runs.list_steps(run_id) if row.item is None}

    async def events(self, run_id: RunId, after: str = "0", most: int = 10_000) -> list[FeedEvent]:
        """What a follower gets until the end, or until it has so many."""
        position = parse_position(after) or Position()
        found: list[FeedEvent] = []
        async with asyncio.timeout(LIMIT_S):
            batches = await self.service.follow(OWNER, run_id, position)
            async for batch in batches:
                for event in batch:
                    found.append(event)
                    if len(found) == most or event.kind == END:
                        await batches.aclose()
                        return found
        return found


async def until(seen: Callable[[], Awaitable[Any]]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(LIMIT_S):
        while not await seen():  # noqa: ASYNC110 - what is waited for is told to nobody
            await asyncio.sleep(0.001)  # waits: other tasks act in their own time


def output_of(events: Sequence[FeedEvent]) -> dict[tuple[str, int | None, int, str], str]:
    """The texts that a client puts together: by step, item, attempt and stream."""
    texts: dict[tuple[str, int | None, int, str], str] = {}
    for event in events:
        if event.kind in ("stdout", "stderr"):
            data = event.data
            key = (data["step"], data["item"], data["attempt"], event.kind)
            texts[key] = texts.get(key, "") + data["text"]
    return texts


@asynccontextmanager
async def stands(store: SqlStore, *names: str) -> AsyncIterator[list[Stand]]:
    """Servers that have started; stopped in the end."""
    clock = ManualClock()
    made = [Stand(store, clock, name) for name in names]
    try:
        for stand in made:
            await stand.service.start_engine()
        yield made
    finally:
        for stand in made:
            await stand.service.stop()
