"""Fake sandboxes that stand still."""

from collections.abc import Collection
from typing import Protocol

from sandgate.core.errors import SandboxFailed, SandgateError
from sandgate.core.execution import ExecutionRequest
from sandgate.testing.fake_execution import FakeExecution, Home


class Stoppable(Home, Protocol):
    """A sandbox, as far as it matters here."""

    # What is done while the rest stands still.
    apart: list[FakeExecution]

    @property
    def failure(self) -> str | None:
        """See ``Sandbox``."""
        ...

    def running(self) -> Collection[FakeExecution]:
        """What has begun and not ended."""
        ...

    def start_next(self) -> None:
        """Start what waits, as far as it may run now."""
        ...


class FakeStandstill:
    """See ``SandboxStandstill``. ``failure`` is raised instead, when it is set."""

    def __init__(self, sandbox: Stoppable) -> None:
        self._sandbox = sandbox
        self.is_on = False
        self.failure: SandgateError | None = None

    async def begin(self) -> bool:
        """See ``SandboxStandstill``."""
        self._check()
        if not self.is_on:
            self.is_on = True
            for execution in self._sandbox.running():
                execution.stand_still()
        return True

    async def begin_but(self) -> "FakeApart":
        """See ``SandboxStandstill``."""
        await self.begin()
        return FakeApart(self._sandbox)

    async def end(self) -> None:
        """See ``SandboxStandstill``."""
        self._check()
        if self.is_on:
            self.is_on = False
            for execution in self._sandbox.running():
                execution.go_on()
            self._sandbox.start_next()

    def _check(self) -> None:
        if self._sandbox.failure is not None:
            raise SandboxFailed(f"The sandbox has ended: {self._sandbox.failure}")
        if self.failure is not None:
            raise self.failure


class FakeApart:
    """See ``SandboxApart``."""

    def __init__(self, sandbox: Stoppable) -> None:
        self._sandbox = sandbox
        self._execution: FakeExecution | None = None

    def execute(self, request: ExecutionRequest) -> FakeExecution:
        """See ``SandboxApart``."""
        self._execution = FakeExecution(self._sandbox, request)
        self._sandbox.apart.append(self._execution)
        self._execution.start()
        return self._execution

    def close(self) -> None:
        """See ``SandboxApart``."""
        if self._execution is not None:
            self._execution.cancel()
