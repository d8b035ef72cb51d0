"""Sandboxes that are made before they are needed, and end before they are."""

import asyncio

import pytest

from sandgate.core.errors import LauncherUnavailable, MechanismFault, SandboxFailed
from sandgate.core.execution import StepData, Termination
from sandgate.core.states import ExecutionStatus
from sandgate.testing.fake_runtime import FakeRuntime, FakeSandbox
from sandgate.testing.fake_templates import FakeTemplates
from sandgate.workflows.sandboxes import RuntimeStepSandboxes
from sandgate.workflows.step_templates import StepTemplate

TEMPLATE = StepTemplate("python-3.9")
FOREVER = "import time; time.sleep(60)"


class Bench:
    """Sandboxes of steps on a runtime."""

    def __init__(self) -> None:
        self.runtime = FakeRuntime()
        self.sandboxes = RuntimeStepSandboxes(self.runtime, FakeTemplates())

    def begin(self, attempt: str, code: str = "pass") -> "asyncio.Task[Termination]":
        """An attempt under way."""
        working = self.sandboxes.execute(attempt, TEMPLATE, code, 60, StepData({}, {}))
        return asyncio.get_running_loop().create_task(working)

    async def expect(self, count: int) -> list[FakeSandbox]:
        """So many that wait."""
        there = len(self.runtime.sandboxes)
        for _ in range(count):
            self.sandboxes.expect(TEMPLATE)
        while len(self.runtime.sandboxes) < there + count:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        return list(self.runtime.sandboxes.values())[there:]

    async def lose_one(self, attempt: str) -> None:
        """An attempt whose sandbox ends under it."""
        working = self.begin(attempt, FOREVER)
        sandbox = next(iter(self.runtime.sandboxes.values()))
        while not sandbox._running:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        self.runtime.kill(sandbox.environment_id, "killed")
        assert (await working).status is ExecutionStatus.LOST


@pytest.mark.parametrize("fault", [SandboxFailed("ended"), LauncherUnavailable("gone")])
async def test_one_that_ended_unknown_to_anybody_costs_no_attempt(
    fault: MechanismFault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the launcher all end, whose ends are heard of one by one; after the first, the others are asked."""
    bench = Bench()
    made = await bench.expect(3)

    async def extend(_lifetime_s: float) -> None:
        raise fault

    for dead in made[1:]:
        monkeypatch.setattr(dead, "extend", extend)
        monkeypatch.setattr(dead, "execute", None)
    await bench.lose_one("first")
    assert (await bench.begin("second")).status is ExecutionStatus.COMPLETED
    for attempt in ("first", "second"):
        bench.sandboxes.settle(attempt)
    await bench.sandboxes.close()
    assert not bench.runtime.sandboxes


async def test_one_that_lives_is_used_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """One lost sandbox says nothing of others, which are not thrown away; nobody is asked otherwise."""
    bench = Bench()
    _lost, waiting = await bench.expect(2)
    asked: list[float] = []

    async def extend(lifetime_s: float) -> None:
        asked.append(lifetime_s)

    monkeypatch.setattr(waiting, "extend", extend)
    await bench.lose_one("first")
    second = bench.begin("second", FOREVER)
    while not waiting._running:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)
    assert len(asked) == 1
    second.cancel()
    await asyncio.wait({second})
    (unsuspected,) = await bench.expect(1)
    monkeypatch.setattr(unsuspected, "extend", extend)
    assert (await bench.begin("third")).status is ExecutionStatus.COMPLETED
    assert len(asked) == 1
    await bench.sandboxes.close()


async def test_sandboxes_that_all_end_cost_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not made for ever; and whoever is cancelled meanwhile leaves none behind."""
    bench = Bench()
    create = bench.runtime.create

    async def create_dead(spec: object) -> FakeSandbox:
        sandbox = await create(spec)  # type: ignore[arg-type]
        sandbox._failure = "killed"
        return sandbox

    monkeypatch.setattr(bench.runtime, "create", create_dead)
    with pytest.raises(SandboxFailed):
        await bench.begin("first")
    monkeypatch.undo()
    (waiting,) = await bench.expect(1)
    hanging = asyncio.Event()

    async def extend(_lifetime_s: float) -> None:
        hanging.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(waiting, "extend", extend)
    bench.sandboxes._suspect_others()
    second = bench.begin("second")
    await hanging.wait()
    second.cancel()
    await asyncio.wait({second})
    await bench.sandboxes.close()
    assert waiting.environment_id not in bench.runtime.sandboxes
