"""Executing: answers, records, and every way to stop."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sandgate.core.errors import (
    CodeTooLarge,
    EnvironmentNotRunning,
    ExecutionNotFound,
    ExecutionNotRunning,
    StoreUnavailable,
    TooManyExecutions,
)
from sandgate.core.execution import Execution, ExecutionRequest, Surroundings
from sandgate.core.ids import ExecutionId, make_execution_id
from sandgate.core.language import Language
from sandgate.core.page import PageRequest
from sandgate.core.states import EnvironmentStatus, ExecutionStatus
from sandgate.environments.executions import clean_text, decode_output
from tests.unit.environments.conftest import World


class WatchedStore:
    """The store of executions with a list of the writes, the first of which can be made to fail."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.writes: list[str] = []
        self.failures = 0

    async def insert_running(self, execution: Execution) -> None:
        """Add a row."""
        await self._write("insert_running", self.inner.insert_running, execution)

    async def finish(self, execution: Execution) -> None:
        """Write the end."""
        await self._write("finish", self.inner.finish, execution)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def _write(self, name: str, write: Callable[[Execution], Awaitable[None]], execution: Execution) -> None:
        self.writes.append(name)
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the database is away")
        await write(execution)


@pytest.fixture
def watched(world: World) -> WatchedStore:
    """The store behind the world's service, watched."""
    made = WatchedStore(world.store.executions)
    world.service._executions._store = made
    return made


async def test_a_short_execution_costs_one_write(
    world: World, watched: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was answered is recorded, with nothing written or read besides."""
    # On a busy machine nothing is short.
    monkeypatch.setattr("sandgate.environments.executions._WORTH_A_ROW_S", 60.0)
    environment_id = await world.create_running()
    execution = await world.service.execute(world.user, environment_id, "print('hello')", 5)
    assert watched.writes == ["finish"]
    assert (execution.status, execution.stdout, execution.exit_code) == (ExecutionStatus.COMPLETED, "hello\n", 0)
    assert (execution.timeout_s, execution.environment_id) == (5, environment_id)
    assert await world.store.executions.find(execution.execution_id) == execution


async def test_a_long_execution_can_be_seen_while_it_runs(world: World, watched: WatchedStore) -> None:
    """It gets a row of its own once it has lasted for a while."""
    environment_id = await world.create_running()
    running = await world.start_execution(environment_id, "while True: pass")
    await world.until(lambda: watched.writes == ["insert_running"])
    page = await world.service.list_executions(world.user, environment_id, PageRequest())
    while not page.items:
        page = await world.service.list_executions(world.user, environment_id, PageRequest())
    (row,) = page.items
    assert row.status is ExecutionStatus.RUNNING
    ended = await world.service.cancel_execution(world.user, environment_id, row.execution_id)
    assert ended == await running == await world.store.executions.find(row.execution_id)


async def test_a_young_execution_is_found_in_memory(world: World) -> None:
    """It can be read and cancelled before it has a row."""
    environment_id = await world.create_running()
    running = await world.start_execution(environment_id, "while True: pass")
    live = world.service._lifecycle.find(environment_id)
    assert live is not None
    (execution_id,) = live.running
    row = await world.service.get_execution(world.user, environment_id, execution_id)
    assert row.status is ExecutionStatus.RUNNING
    await world.service.cancel_execution(world.user, environment_id, execution_id)
    assert (await running).status is ExecutionStatus.CANCELLED


async def test_failing_code_is_an_answer(world: World) -> None:
    """An exception of the code is told, not raised."""
    environment_id = await world.create_running()
    execution = await world.service.execute(world.user, environment_id, "raise ValueError('no')", None)
    assert execution.status is ExecutionStatus.FAILED
    assert execution.error is not None
    assert (execution.error.name, execution.error.value) == ("ValueError", "no")
    assert execution.timeout_s == world.settings.default_execution_timeout_s


async def test_an_execution_ends_at_its_time_limit(world: World) -> None:
    """The limit of the request is handed to the sandbox."""
    environment_id = await world.create_running()
    execution = await world.service.execute(world.user, environment_id, "while True: pass", 0.01)
    assert execution.status is ExecutionStatus.TIMED_OUT


async def test_a_client_that_goes_away_takes_its_execution_along(world: World) -> None:
    """Cancelling the coroutine kills the code and still records how it ended."""
    environment_id = await world.create_running()
    running = await world.start_execution(environment_id, "while True: pass")
    live = world.service._lifecycle.find(environment_id)
    assert live is not None
    (execution_id,) = live.running
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await world.until(lambda: world.service.running_count == 0)
    recorded = await world.store.executions.find(execution_id)
    assert recorded is not None
    assert recorded.status is ExecutionStatus.CANCELLED


async def test_executions_of_a_sandbox_that_dies_are_lost(world: World) -> None:
    """The execution is answered, the environment fails with the reason, the next one is refused."""
    environment_id = await world.create_running()
    running = await world.start_execution(environment_id, "while True: pass")
    world.runtime.kill(environment_id, "the kernel killed it")
    assert (await running).status is ExecutionStatus.LOST
    with pytest.raises(EnvironmentNotRunning, match="the kernel killed it"):
        await world.service.execute(world.user, environment_id, "pass", None)
    row = await world.until_status(environment_id, EnvironmentStatus.FAILED)
    assert row.status_reason == "the kernel killed it"


async def test_a_dead_sandbox_is_noticed_before_the_runtime_tells(world: World) -> None:
    """Executing in it fails the environment."""
    environment_id = await world.create_running()
    sandbox = world.runtime.sandboxes[environment_id]
    sandbox.on_end = lambda _: None
    sandbox.die("it fell over")
    with pytest.raises(EnvironmentNotRunning, match="it fell over"):
        await world.service.execute(world.user, environment_id, "pass", None)
    await world.until_status(environment_id, EnvironmentStatus.FAILED)


async def test_code_has_a_size(world: World) -> None:
    """The limit counts bytes of UTF-8, not characters."""
    environment_id = await world.create_running()
    limit = world.settings.max_code_bytes
    await world.service.execute(world.user, environment_id, "#" * limit, None)
    with pytest.raises(CodeTooLarge):
        await world.service.execute(world.user, environment_id, "#" + "é" * (limit // 2), None)


async def test_the_queue_of_a_sandbox_is_bounded(world: World) -> None:
    """Beyond it executions are refused, and those that run go on."""
    environment_id = await world.create_running()
    blocked = [await world.start_execution(environment_id, "while True: pass") for _ in range(16)]
    queued = [asyncio.ensure_future(world.service.execute(world.user, environment_id, "pass", None)) for _ in range(64)]
    await world.until(lambda: world.service.running_count == 16 + 64)
    with pytest.raises(TooManyExecutions):
        await world.service.execute(world.user, environment_id, "pass", None)
    await world.service.delete(world.user, environment_id)
    ended = await asyncio.gather(*blocked, *queued)
    assert {execution.status for execution in ended} == {ExecutionStatus.CANCELLED}


async def test_a_record_that_could_not_be_written_is_written_later(world: World, watched: WatchedStore) -> None:
    """The caller is told that the database is away; the record follows when it is back."""
    environment_id = await world.create_running()
    watched.failures = 2
    with pytest.raises(StoreUnavailable):
        await world.service.execute(world.user, environment_id, "print('kept')", None)
    assert world.service.running_count == 0
    page = await world.store.executions.list(environment_id, PageRequest())
    async with asyncio.timeout(30):
        while not page.items:
            page = await world.store.executions.list(environment_id, PageRequest())
    assert page.items[0].stdout == "kept\n"


async def test_what_has_ended_cannot_be_cancelled(world: World) -> None:
    """The refusal names the status."""
    environment_id = await world.create_running()
    execution = await world.service.execute(world.user, environment_id, "pass", None)
    with pytest.raises(ExecutionNotRunning) as caught:
        await world.service.cancel_execution(world.user, environment_id, execution.execution_id)
    assert caught.value.details == {"status": "completed"}


async def test_executions_belong_to_their_environment(world: World) -> None:
    """An execution is not found under another environment, nor is an unknown one."""
    first, second = await world.create_running(), await world.create_running()
    execution = await world.service.execute(world.user, first, "pass", None)
    unknown: list[ExecutionId] = [execution.execution_id, make_execution_id()]
    for execution_id in unknown:
        with pytest.raises(ExecutionNotFound):
            await world.service.get_execution(world.user, second, execution_id)
        with pytest.raises(ExecutionNotFound):
            await world.service.cancel_execution(world.user, second, execution_id)
    assert await world.service.get_execution(world.user, first, execution.execution_id) == execution


async def test_output_that_is_cut_has_no_torn_character(world: World) -> None:
    """A limit in the middle of a character leaves the whole ones."""
    environment_id = await world.create_running()
    count = world.settings.output_bytes
    execution = await world.service.execute(world.user, environment_id, f"print('é' * {count}, end='x')", None)
    assert execution.stdout_truncated
    assert execution.stdout == "é" * (count // 2)


@pytest.mark.parametrize(
    ("data", "truncated", "text"),
    [
        (b"plain", False, "plain"),
        ("é".encode()[:1], True, ""),
        ("é".encode()[:1], False, "\ufffd"),
        (b"a\xffb", True, "a\ufffdb"),
        ("😀".encode()[:3], True, ""),
        (b"nul\x00", False, "nul\x00"),
    ],
)
def test_output_is_text(data: bytes, truncated: bool, text: str) -> None:
    """What is no UTF-8 becomes U+FFFD; a character cut by the limit is left out."""
    assert decode_output(data, truncated=truncated) == text


def test_no_lone_surrogate_leaves_a_sandbox() -> None:
    """Whatever an agent says can be encoded."""
    assert clean_text("a\ud800b") == "a?b"
    assert clean_text("é") == "é"


async def test_what_a_killed_program_left_is_removed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it was; one that came to its end has removed it, and code of the interpreter's has no file."""
    live = world.service._lifecycle.find(await world.create_running())
    assert live is not None
    sandbox, run, asked = await live.wait_for_sandbox(), world.service._executions.run, list[ExecutionRequest]()
    execute = sandbox.execute

    def note(request: ExecutionRequest) -> Any:
        asked.append(request)
        return execute(request)

    monkeypatch.setattr(sandbox, "execute", note)
    bash = Language("bash", (("bash",),), ".sh")
    for language, seconds, around in ((bash, 60.0, None), (None, 0.01, None), (bash, 0.01, Surroundings(cwd="sub"))):
        await run(live, "pass" if seconds > 1 else "while True: pass", seconds, around, language)
    await world.until(lambda: len(asked) == 4)
    assert (asked[3].language, asked[3].around) == (None, Surroundings(cwd="sub"))
    assert "'.sh'" in asked[3].code
