"""What takes long is done beside the event loop: the loop goes on, and there is never more than one such thing."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from sandgate.core.errors import InvalidDefinition, TooManyRequestsAtOnce
from sandgate.workflows import graphs as graphs_module
from sandgate.workflows.aside import Aside
from sandgate.workflows.definition import parse_definition
from sandgate.workflows.extent import check_length
from sandgate.workflows.names import MAX_DEFINITION_BYTES
from tests.unit.workflows.conftest import World, make_principal
from tests.unit.workflows.definitions import step, workflow

LIMIT_S = 30.0


class Gate:
    """Work that a test lets through."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()

    def pass_(self) -> str:
        """Wait in a thread until it is open."""
        self.begun.set()
        assert self.open.wait(LIMIT_S)
        return "through"

    async def until_begun(self) -> None:
        """Wait without stopping the loop."""
        assert await asyncio.to_thread(self.begun.wait, LIMIT_S)


@contextmanager
def _gates(number: int) -> Iterator[list[Gate]]:
    """So many; all open in the end, so that no thread waits for its limit."""
    gates = [Gate() for _ in range(number)]
    try:
        yield gates
    finally:
        for gate in gates:
            gate.open.set()


SLOW = workflow(step("a")) | {"name": "slow"}


@contextmanager
def _slow_checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Definitions of the name "slow" are read when the gate is open."""
    with _gates(1) as (slow,):

        def parse_slowly(raw: Any, *arguments: Any, **more: Any) -> Any:
            if raw["name"] == "slow":
                slow.pass_()
            return parse_definition(raw, *arguments, **more)

        monkeypatch.setattr(graphs_module, "parse_definition", parse_slowly)
        yield slow


async def test_the_loop_goes_on_and_one_follows_the_other() -> None:
    """The second begins when the first is done."""
    aside = Aside()
    with _gates(2) as (first, second):
        doing = [asyncio.create_task(aside.do(gate.pass_)) for gate in (first, second)]
        await first.until_begun()
        assert not second.begun.is_set()
        first.open.set()
        await second.until_begun()
        assert await doing[0] == "through"
        second.open.set()
        assert await doing[1] == "through"


async def test_what_goes_wrong_is_told_and_lets_the_next_begin() -> None:
    """An error is its caller's alone."""
    aside = Aside()
    with pytest.raises(ZeroDivisionError):
        await aside.do(lambda: 1 // 0)
    assert await aside.do(lambda: 1) == 1


async def test_who_goes_away_does_not_let_two_run_at_once() -> None:
    """The thread of one who was cancelled is waited for; one who has only waited leaves nothing."""
    aside = Aside()
    with _gates(3) as (first, second, third):
        gone = asyncio.create_task(aside.do(first.pass_))
        await first.until_begun()
        waiting, last = (asyncio.create_task(aside.do(gate.pass_)) for gate in (second, third))
        await asyncio.sleep(0)
        for task in (gone, waiting):
            task.cancel()
        for task in (gone, waiting):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not third.begun.is_set()
        first.open.set()
        await third.until_begun()
        third.open.set()
        assert await last == "through"
        assert not second.begun.is_set()


async def test_owners_take_turns() -> None:
    """Whoever wants much makes the others wait for one of it."""
    aside = Aside()
    done: list[str] = []
    with _gates(1) as (first,):
        doing: list[asyncio.Task[Any]] = [asyncio.create_task(aside.do(first.pass_, "greedy"))]
        await first.until_begun()
        for owner in ("greedy", "greedy", "modest"):
            doing.append(asyncio.create_task(aside.do(partial(done.append, owner), owner)))
            await asyncio.sleep(0)
        first.open.set()
        await asyncio.gather(*doing)
    assert done == ["modest", "greedy", "greedy"]


async def test_reading_a_definition_does_not_stop_the_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when one is checked, nor when a run of it begins: the loop goes on until it is let through."""
    raw = workflow(step("a"))
    gates: list[Gate] = []

    def parse_slowly(*arguments: Any, **more: Any) -> Any:
        gates[-1].pass_()
        return parse_definition(*arguments, **more)

    monkeypatch.setattr(graphs_module, "parse_definition", parse_slowly)
    with _gates(2) as (of_create, of_start):
        gates.append(of_create)
        creating = asyncio.create_task(world.service.create(world.user, raw))
        await of_create.until_begun()
        of_create.open.set()
        made = await creating
        gates.append(of_start)
        starting = asyncio.create_task(world.begin(made.workflow_id, wait_s=60))
        await of_start.until_begun()
        of_start.open.set()
        assert (await starting).status.value == "succeeded"


async def test_an_accepted_definition_does_not_wait_for_one_that_is_checked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What anybody may send holds up no run."""
    workflow_id = await world.create(step("a"))
    with _slow_checks(monkeypatch) as slow:
        checking = asyncio.create_task(world.service.validate(world.user, SLOW))
        await slow.until_begun()
        async with asyncio.timeout(LIMIT_S):
            graph = await world.engine.graphs.load(workflow_id, 1)
        assert list(graph.steps) == ["a"]
        assert not checking.done()
        slow.open.set()
        await checking


async def test_so_much_of_one_user_is_checked_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """More is refused until some of it is done or given up; others have their own."""
    most = 2 * check_length(SLOW)
    monkeypatch.setattr(graphs_module, "_MOST_CHECKED_BYTES", most)
    validate = world.service.validate
    with _slow_checks(monkeypatch) as slow:
        checking = asyncio.create_task(validate(world.user, SLOW))
        await slow.until_begun()
        given_up = asyncio.create_task(validate(world.user, SLOW))
        await asyncio.sleep(0)
        for refused in (validate, world.service.create):
            with pytest.raises(TooManyRequestsAtOnce) as told:
                await refused(world.user, SLOW)
            assert told.value.details == {"limit_bytes": most}
        stranger = asyncio.create_task(validate(make_principal(), SLOW))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        again = asyncio.create_task(validate(world.user, SLOW))
        await asyncio.sleep(0)
        assert not any(task.done() for task in (checking, stranger, again))
        slow.open.set()
        await asyncio.gather(checking, stranger, again)
    assert not world.engine.graphs._checked_bytes


async def test_one_that_is_too_long_does_not_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused while another is being checked."""
    with _slow_checks(monkeypatch) as slow:
        checking = asyncio.create_task(world.service.validate(world.user, SLOW))
        await slow.until_begun()
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(InvalidDefinition, match="longer than 1,048,576 bytes"):
                await world.service.validate(world.user, workflow(step("x" * MAX_DEFINITION_BYTES)))
        assert not checking.done()
        slow.open.set()
        await checking


@pytest.mark.parametrize(
    ("raw", "length"),
    [
        ("", 2),
        ({"a": [1, None]}, 14),
        ("\n" * 7, 9),
        ("\\" * 7, 9),
        ('\\\\\n\\"', 7),
        ("\u00e4", 4),
        (10**30, MAX_DEFINITION_BYTES),
        ("\ud800", MAX_DEFINITION_BYTES),
    ],
)
def test_a_length_is_in_bytes_of_what_is_meant(raw: Any, length: int) -> None:
    """An escape is one; what cannot be written counts as the longest that may be."""
    assert check_length(raw) == length
