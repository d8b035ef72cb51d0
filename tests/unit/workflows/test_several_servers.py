"""Runs are steered by any server of a database, whichever works on them, and outlive the one that did."""

import asyncio

import pytest

from sandgate.core.errors import Forbidden, RunEnded, StepNotWaiting
from sandgate.core.ids import RunId
from sandgate.core.run import RunStatus
from sandgate.store.base import NoteKind, RunNote
from sandgate.store.sql_store import SqlStore
from sandgate.workflows.events import CancelAsked
from sandgate.workflows.signals import signal_of
from tests.sqlite_store import database_path, empty_database, store
from tests.unit.workflows.stand import OWNER, Stand, ask, code, stands, until

__all__ = ["database_path", "empty_database", "store"]


async def _hear(stand: Stand, run_id: RunId) -> None:
    """What a note of another process would bring about."""
    await until(lambda: stand.store.signals.list_held("one"))
    stand.engine.hear(RunNote(NoteKind.SIGNAL, run_id))


async def _none_held(store: SqlStore) -> bool:
    return not await store.signals.list_held("one")


async def _held(store: SqlStore, count: int) -> bool:
    return len(await store.signals.list_held("one")) == count


async def _is_empty(stand: Stand) -> bool:
    return not stand.runtime.sandboxes


async def _kinds(store: SqlStore, run_id: RunId) -> list[str]:
    return [event.kind for event in await store.runs.list_history(run_id)]


async def test_a_run_is_cancelled_through_another_server(store: SqlStore) -> None:
    """Killed where it runs; the answer is the ended run, and its history tells who wanted it."""
    async with stands(store, "one", "two") as [one, two]:
        run = await one.start(code("a", "while True: pass"))
        cancelling = asyncio.create_task(two.service.cancel(OWNER, run.run_id))
        await _hear(one, run.run_id)
        assert (await cancelling).status is RunStatus.CANCELLED
        (event,) = [event for event in await store.runs.list_history(run.run_id) if event.kind == "cancel_asked"]
        assert event.details == {"by": "owner"}
        with pytest.raises(RunEnded):
            await two.service.cancel(OWNER, run.run_id)


async def test_a_step_is_approved_through_another_server(store: SqlStore) -> None:
    """The answer shows it; a second word on it comes too late."""
    async with stands(store, "one", "two") as [one, two]:
        run = await one.start(ask())
        deciding = asyncio.create_task(two.service.decide(OWNER, run.run_id, "ask", approved=True, comment="fine"))
        await _hear(one, run.run_id)
        view = await deciding
        assert (view.steps[0].status, view.steps[0].outputs["comment"]) == ("succeeded", "fine")  # type: ignore[index]
        with pytest.raises(RunEnded):
            await two.service.decide(OWNER, run.run_id, "ask", approved=False, comment="")


async def test_a_decision_that_lost_is_refused(store: SqlStore) -> None:
    """Of an approval and a rejection at once one counts, and whoever gave the other one is told; here and there."""
    async with stands(store, "one", "two") as [one, two]:
        for other in (one, two):
            run = await one.start(ask())
            words = [
                asyncio.create_task(stand.service.decide(OWNER, run.run_id, "ask", approved=approved, comment=""))
                for stand, approved in ((other, True), (other, False))
            ]
            if other is two:
                await until(lambda: _held(store, 2))
                one.engine.hear(RunNote(NoteKind.SIGNAL, run.run_id))
            answers = await asyncio.gather(*words, return_exceptions=True)
            refused = [answer for answer in answers if isinstance(answer, StepNotWaiting)]
            (view,) = [answer for answer in answers if not isinstance(answer, BaseException)]
            assert len(refused) == 1
            outputs = view.steps[0].outputs
            assert outputs is not None
            assert (view.steps[0].status == "succeeded") is outputs["approved"] is not isinstance(answers[0], Exception)


async def test_a_decision_that_comes_with_the_time_is_refused(store: SqlStore) -> None:
    """The step timed out, and nobody is told that it was approved."""
    async with stands(store, "one") as [one]:
        run = await one.start(ask(timeout=5))
        one.clock.advance(6)
        one.engine.look()
        # The end of the time is being written.
        await asyncio.sleep(0)
        with pytest.raises(StepNotWaiting) as refused:
            await one.service.decide(OWNER, run.run_id, "ask", approved=True, comment="")
        assert refused.value.details == {"status": "timed_out", "item": None, "items": None}


async def test_another_server_refuses_what_the_first_would(store: SqlStore) -> None:
    """A step that does not wait, and one that is for others to decide."""
    async with stands(store, "one", "two") as [one, two]:
        run = await one.start(ask(config={"approvers": ["boss"]}), ask("later"))
        with pytest.raises(Forbidden):
            await two.service.decide(OWNER, run.run_id, "ask", approved=True, comment="")
        for step in ("later", "unknown"):
            with pytest.raises(StepNotWaiting):
                await two.service.decide(OWNER, run.run_id, step, approved=True, comment="")


async def test_a_signal_is_acted_on_once(store: SqlStore) -> None:
    """However often it is heard of."""
    async with stands(store, "one") as [one]:
        run = await one.start(ask(), **{"finally": [ask("tidy")]})
        assert await store.signals.insert(signal_of(run.run_id, CancelAsked("x"), one.clock.now()))
        await asyncio.gather(one.engine.take_signals(), one.engine.take_signals())
        await until(lambda: _none_held(store))
        await one.engine.take_signals()
        assert (await _kinds(store, run.run_id)).count("cancel_asked") == 1


async def test_a_signal_waits_for_whoever_takes_over(store: SqlStore) -> None:
    """Written while nobody works on the run, acted on by the server that goes on with it."""
    async with stands(store, "one") as [one]:
        run = await one.start(ask())
        await one.service.stop()
        assert await store.signals.insert(signal_of(run.run_id, CancelAsked("x"), one.clock.now()))
    async with stands(store, "one") as [again]:
        assert (await again.until_over(run.run_id)).status is RunStatus.CANCELLED


async def test_a_run_is_taken_over_when_its_lease_ran_out(store: SqlStore) -> None:
    """By a server of another name; the first one cannot write any more, and kills what it ran."""
    async with stands(store, "one", "two") as [one, two]:
        run = await one.start(code("a", "print('x')\nwhile True: pass"))
        first = one.engine.find(run.run_id)
        assert first is not None
        two.clock.advance(11)
        for taken in await store.runs.claim("two", two.clock.now(), 10, 10):
            await two.engine.take_over(taken)
        # It does not know yet, and tries to write.
        one.engine.cancel(first, "late")
        await first.wait_for_end(10)
        assert one.engine.find(run.run_id) is None
        kinds = await _kinds(store, run.run_id)
        assert "cancel_asked" not in kinds
        await two.service.cancel(OWNER, run.run_id)
        await until(lambda: _is_empty(one))


async def test_a_cancel_that_meets_a_take_over_goes_on_to_the_new_server(store: SqlStore) -> None:
    """The word is not lost with the process that could not write it."""
    async with stands(store, "one", "two") as [one, two]:
        run = await one.start(ask())
        for taken in await store.runs.claim("two", one.clock.now(), 10, 10, own=False):
            raise AssertionError(f"the lease of {taken.run_id} has not run out")
        one.clock.advance(11)
        for taken in await store.runs.claim("two", two.clock.now(), 10, 10):
            await two.engine.take_over(taken)
        cancelling = asyncio.create_task(one.service.cancel(OWNER, run.run_id))
        await until(lambda: store.signals.list_held("two"))
        two.engine.hear(RunNote(NoteKind.SIGNAL, run.run_id))
        assert (await cancelling).status is RunStatus.CANCELLED
