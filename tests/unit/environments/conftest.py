"""A service on a real store and a fake runtime."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sandgate.config.settings import Settings
from sandgate.core.clock import ManualClock
from sandgate.core.environment import Environment
from sandgate.core.execution import Execution
from sandgate.core.ids import EnvironmentId, make_user_id
from sandgate.core.principal import Principal, Role
from sandgate.core.states import EnvironmentStatus
from sandgate.environments.base import NewEnvironment
from sandgate.environments.service import EnvironmentService
from sandgate.store.snapshot_files import SnapshotFiles
from sandgate.store.sql_store import SqlStore
from sandgate.testing.fake_runtime import FakeRuntime
from sandgate.testing.fake_templates import FakeTemplates
from tests.sqlite_store import database_path, empty_database, store

__all__ = ["database_path", "empty_database", "store"]


def make_principal(role: Role = Role.USER) -> Principal:
    """Somebody new."""
    return Principal(make_user_id(), "somebody", role)


@dataclass
class World:
    """A service and everything around it."""

    store: SqlStore
    settings: Settings = field(default_factory=lambda: Settings(drain_grace_s=0.02))
    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    clock: ManualClock = field(default_factory=ManualClock)
    user: Principal = field(default_factory=make_principal)
    faults: list[BaseException] = field(default_factory=list)
    snapshot_files: SnapshotFiles = field(default_factory=lambda: SnapshotFiles(Path("nowhere")))

    def __post_init__(self) -> None:
        self.service = self.make_service()

    def make_service(self) -> EnvironmentService:
        """A service that has not been started."""
        templates = FakeTemplates(self.settings.limits())
        return EnvironmentService(
            self.store, self.runtime, templates, self.clock, self.settings, self.faults.append,
            snapshot_files=self.snapshot_files,
        )  # fmt: skip

    async def create(self, user: Principal | None = None, timeout_s: int | None = None) -> Environment:
        """An environment whose sandbox is being made."""
        wanted = NewEnvironment("test-env", "python-3.9", timeout_s)
        return await self.service.create(user or self.user, wanted)

    async def create_running(self, user: Principal | None = None, timeout_s: int | None = None) -> EnvironmentId:
        """An environment with a sandbox."""
        row = await self.create(user, timeout_s)
        live = self.service._lifecycle.find(row.environment_id)
        assert live is not None
        await live.wait_for_sandbox()
        return row.environment_id

    async def until_status(self, environment_id: EnvironmentId, status: EnvironmentStatus) -> Environment:
        """The row, once the store has it in this status."""
        async with asyncio.timeout(30):
            while True:
                row = await self.store.environments.find(environment_id)
                assert row is not None
                if row.status is status:
                    return row

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let other tasks run until the condition holds."""
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - there is no event for everything a test may want to see
                await asyncio.sleep(0)

    async def start_execution(self, environment_id: EnvironmentId, code: str) -> "asyncio.Future[Execution]":
        """A task that executes code, once it has been handed to the sandbox."""
        before = self.service.running_count
        task = asyncio.ensure_future(self.service.execute(self.user, environment_id, code, None))
        await self.until(lambda: self.service.running_count > before)
        return task

    async def restart(self, *, machine_survives: bool = True) -> None:
        """Lose the service as kill -9 does, and start another one."""
        self.runtime = FakeRuntime(self.runtime.sandboxes if machine_survives else None)
        self.service = self.make_service()
        await self.service.start()


@pytest.fixture
async def world(store: SqlStore, tmp_path: Path) -> AsyncIterator[World]:
    """A started service; no background task of it may have failed in the end."""
    made = World(store, snapshot_files=SnapshotFiles(tmp_path / "snapshots"))
    await made.service.start()
    yield made
    made.runtime.unavailable = False
    await made.service.stop()
    assert not made.faults
