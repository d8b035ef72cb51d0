"""What takes long is done beside the event loop: the loop goes on, and there is never more than one such thing."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sandgate.workflows import graphs as graphs_module
from sandgate.workflows.aside import Aside
from sandgate.workflows.definition import parse_definition
from tests.unit.workflows.conftest import World
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
        starting = asyncio.create_task(world.begin(made.workflow_id, wait_s=10))
        await of_start.until_begun()
        of_start.open.set()
        assert (await starting).status.value == "succeeded"


async def test_an_accepted_definition_does_not_wait_for_one_that_is_checked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What anybody may send holds up no run."""
    workflow_id = await world.create(step("a"))

    def parse_slowly(raw: Any, *arguments: Any, **more: Any) -> Any:
        if raw["name"] == "slow":
            slow.pass_()
        return parse_definition(raw, *arguments, **more)

    monkeypatch.setattr(graphs_module, "parse_definition", parse_slowly)
    with _gates(1) as (slow,):
        checking = asyncio.create_task(world.service.validate(world.user, workflow(step("a")) | {"name": "slow"}))
        await slow.until_begun()
        async with asyncio.timeout(LIMIT_S):
            graph = await world.engine.graphs.load(workflow_id, 1)
        assert list(graph.steps) == ["a"]
        assert not checking.done()
        slow.open.set()
        await checking
