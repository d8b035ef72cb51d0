"""Ended runs go on: what succeeded stays, what did not is open again, with all that comes after."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandgate.core.errors import InvalidRequest, RunLive, RunSucceeded, WorkflowNotFound
from sandgate.core.run import (
    RUN_REOPENINGS,
    STEP_REOPENINGS,
    RunStatus,
    StepResult,
    StepRun,
    StepStatus,
    measure_printed,
)
from sandgate.core.workflow import RetryPolicy, WorkflowDefinition
from sandgate.store.sql_store import SqlStore
from sandgate.workflows import ledger
from sandgate.workflows.events import CancelAsked, Entered
from sandgate.workflows.reopening import reopen
from sandgate.workflows.state import RunState
from tests.sqlite_store import database_path, empty_database, store
from tests.unit.workflows.stand import OWNER, ask, code, stands
from tests.unit.workflows.test_advance_properties import _definitions
from tests.unit.workflows.walk import CANCELLED, FAILED, LOST, SUCCEEDED, TIMED_OUT, Walk, a_child, a_definition, a_step

__all__ = ["database_path", "empty_database", "store"]

_GOOD, _SKIPPED = StepStatus.SUCCEEDED, StepStatus.SKIPPED


def _retry(walk: Walk, from_step: str | None = None) -> None:
    """Retry the run of a walk, and check that rows are opened as they may be."""
    before = dict(walk.steps)
    changes = reopen(walk.graph, RunState(walk.run, before), "somebody", from_step, walk.now)
    assert changes == reopen(walk.graph, RunState(walk.run, before), "somebody", from_step, walk.now)
    assert changes.run.status in RUN_REOPENINGS[walk.run.status]
    assert changes.run.fence == walk.run.fence + 1
    for row in changes.steps:
        old = before.get(row.key)
        if old is not None and row.status in (StepStatus.PENDING, StepStatus.RUNNING):
            assert row.status in STEP_REOPENINGS[old.status]
        assert old is None or row.attempt >= old.attempt
        walk.steps[row.key] = row
    walk.endings.clear()
    walk.killed.clear()
    walk.running = {row.key: row for row in changes.start}
    walk.history += changes.history
    walk.run = changes.run
    assert [event.number for event in walk.history] == list(range(walk.run.events))


def _play(walk: Walk, data: st.DataObject, results: list[StepResult]) -> None:
    """To the end, as ``Walk.play``, from wherever it stands."""
    for _ in range(10_000):
        if not walk.run.is_live:
            return
        if walk.run.waits_for_slot:
            walk.feed(Entered(walk.now))
            continue
        keys = [*walk.running, *walk.undecided()]
        if not keys:
            walk.wait()
            continue
        key = data.draw(st.sampled_from(keys))
        result = data.draw(st.sampled_from(results))
        if key in walk.running:
            walk.end(key, CANCELLED if key in walk.killed else result)
        else:
            walk.decide(key, result == SUCCEEDED)
    raise AssertionError("the run does not end")


def _is_shown(walk: Walk, row: StepRun) -> bool:
    return row.item is None or row.item < (walk.steps[row.step, None].items or 0)


def _model_opened(walk: Walk, before: dict[str, StepStatus], from_step: str | None) -> set[str]:
    """The steps of ``steps`` that may come to something else than before."""
    bad = {name for name, status in before.items() if status not in (_GOOD, _SKIPPED)} | {from_step}
    main = [step.name for step in walk.definition.steps]
    return {name for name in main if name in bad or walk.graph.ancestors(name) & bad}


@settings(max_examples=60, deadline=None)
@given(definition=_definitions(misfits=False), data=st.data())
def test_a_retry_keeps_what_succeeded_and_opens_the_rest(definition: WorkflowDefinition, data: st.DataObject) -> None:
    """Whatever the graph, and however the run ended; with nothing going wrong any more, nothing is left that did."""
    walk = Walk(definition)
    walk.feed()
    if data.draw(st.booleans()) and walk.run.is_live:
        for _ in range(data.draw(st.integers(0, 4))):
            if walk.running:
                walk.end(next(iter(walk.running)), data.draw(st.sampled_from([SUCCEEDED, FAILED])))
        if walk.run.is_live:
            walk.feed(CancelAsked("somebody"))
    _play(walk, data, [SUCCEEDED, SUCCEEDED, FAILED, TIMED_OUT, LOST])
    if walk.run.status is RunStatus.SUCCEEDED:
        return
    ended, rows, statuses = walk.run, dict(walk.steps), walk.statuses()
    from_step = data.draw(st.sampled_from([None, *(step.name for step in definition.steps)]))
    _retry(walk, from_step)
    _play(walk, data, [SUCCEEDED])
    # What the items of one step came to does not reopen its other items.
    main = {step.name for step in definition.steps}
    opened = _model_opened(walk, {name: status for name, status in statuses.items() if name in main}, from_step)
    for name in main - opened:
        kept = statuses[name] is _GOOD or ended.status is RunStatus.FAILED
        assert not kept or walk.steps[name, None] == rows[name, None]
    for key, row in walk.steps.items():
        old = rows.get(key)
        is_kept = old is not None and old.status is _GOOD and key[0] in main - {from_step}
        if is_kept and not walk.graph.ancestors(key[0]) & opened:
            assert old is not None
            assert row.attempt == old.attempt or row.items is not None
    # What was opened to tidy up after a failure stays open when there is none, and so do items that nobody wants now.
    tidying = {step.name for step in definition.on_error}
    assert all(not row.is_live for row in walk.steps.values() if row.step not in tidying and _is_shown(walk, row))
    # Waits that are longer than the run may take let the next try run out of time as well.
    is_late = walk.run.status is RunStatus.TIMED_OUT
    assert is_late or walk.run.status.value == "succeeded"
    bad = {StepStatus.FAILED, StepStatus.TIMED_OUT} & set(walk.statuses().values())
    assert is_late or not bad
    assert walk.run.wake_at is None
    assert set(walk.endings.values()) <= {1}
    assert {step.name for step in definition.steps} <= set(walk.statuses())


def _one_failed_of_three() -> Walk:
    items = a_step("b", "a", foreach=[1, 2, 3])
    walk = Walk(a_definition(a_step("a"), items, a_step("c", "b"), final=(a_step("f"),)))
    walk.feed()
    walk.end(("a", None), SUCCEEDED)
    for index, result in enumerate([SUCCEEDED, FAILED, SUCCEEDED]):
        walk.end(("b", index), result)
    walk.end(("f", None), SUCCEEDED)
    return walk


def test_a_cancel_waits_for_what_tidies_up_after_an_error() -> None:
    """A run does not end before the step of ``on_error`` that it kills has."""
    walk = Walk(a_definition(a_step("a"), on_error=(a_step("e"), a_step("f", "e"))))
    walk.feed()
    walk.end(("a", None), FAILED)
    walk.feed(CancelAsked("somebody"))
    assert walk.run.is_live
    assert walk.killed == [("e", None)]
    walk.end(("e", None), CANCELLED)
    assert walk.words()[-1] == "run_cancelled"
    assert not any(row.is_live for row in walk.steps.values())


def test_items_that_succeeded_stay() -> None:
    """Only those that did not are done again; the step after them and ``finally`` follow."""
    walk = _one_failed_of_three()
    assert walk.words()[-1] == "run_failed"
    before = walk.history[:]
    _retry(walk)
    assert list(walk.running) == [("b", 1)]
    assert walk.running["b", 1].attempt == 2
    walk.end(("b", 1), SUCCEEDED)
    walk.end(("c", None), SUCCEEDED)
    walk.end(("f", None), SUCCEEDED)
    assert walk.run.status is RunStatus.SUCCEEDED
    told = [event.details for event in walk.history[len(before) :] if event.kind == "run_retried"]
    assert told == [{"by": "somebody", "from": None, "steps": ["b", "c", "f"]}]
    assert [walk.steps["b", index].attempt for index in range(3)] == [1, 2, 1]
    assert walk.steps["f", None].attempt == 2


def test_from_a_step_on_all_of_it_is_done_again() -> None:
    """Also what succeeded, item by item, and what needs it."""
    walk = _one_failed_of_three()
    _retry(walk, "b")
    assert list(walk.running) == [("b", 0), ("b", 1), ("b", 2)]
    assert [row.attempt for row in walk.running.values()] == [2, 2, 2]


def test_attempts_of_the_policy_begin_anew() -> None:
    """The number of the attempt goes on, and the step may be tried as often as before."""
    walk = Walk(a_definition(a_step("a", retry=RetryPolicy(2, 0.0))))
    walk.feed()
    for _ in range(2):
        walk.end(("a", None), FAILED)
    assert not walk.run.is_live
    _retry(walk)
    walk.end(("a", None), FAILED)
    assert walk.run.is_live
    walk.end(("a", None), FAILED)
    assert (walk.run.status, walk.steps["a", None].attempt) == (RunStatus.FAILED, 4)


def test_a_time_limit_is_counted_anew() -> None:
    """A run that timed out would do so again at once."""
    walk = Walk(a_definition(a_step("a"), a_step("b", "a"), timeout_s=5.0))
    walk.feed()
    walk.pass_time(6)
    walk.end(("a", None), CANCELLED)
    assert walk.words()[-1] == "run_timed_out"
    walk.now += (walk.now - walk.run.created_at) * 10
    _retry(walk)
    walk.end(("a", None), SUCCEEDED)
    walk.end(("b", None), SUCCEEDED)
    assert walk.run.status is RunStatus.SUCCEEDED


async def test_a_run_is_retried_with_earlier_outputs(store: SqlStore) -> None:
    """By whoever owns it; the run is the same one, live again, and its steps find what the others left."""
    async with stands(store, "one", "two") as [one, two]:
        run = await one.start(code("a"), ask(), code("b"))
        live = one.engine.find(run.run_id)
        assert live is not None
        while ("ask", None) not in live.steps:
            await live.wait_for_change()
        await one.service.decide(OWNER, run.run_id, "ask", approved=False, comment="not yet")
        assert (await one.until_over(run.run_id)).status is RunStatus.FAILED
        before = {row.step: row for row in await store.runs.list_steps(run.run_id)}
        again = await two.service.retry(OWNER, run.run_id, None)
        assert (again.run_id, again.finished_at, again.error) == (run.run_id, None, None)
        with pytest.raises(RunLive):
            await two.service.retry(OWNER, run.run_id, None)
        await two.service.decide(OWNER, run.run_id, "ask", approved=True, comment="now")
        assert (await two.until_over(run.run_id)).status is RunStatus.SUCCEEDED
        after = {row.step: row for row in await store.runs.list_steps(run.run_id)}
        assert after["a"] == before["a"]
        assert (after["ask"].attempt, after["b"].attempt) == (2, 1)
        with pytest.raises(RunSucceeded):
            await two.service.retry(OWNER, run.run_id, None)


async def test_what_cannot_be_retried_is_refused(store: SqlStore) -> None:
    """From a step that is not one of ``steps``, and when the workflow was deleted."""
    async with stands(store, "one") as [one]:
        run = await one.run_to_end(code("a", "raise ValueError('no')"), **{"finally": [code("f")]})
        for step in ("f", "unknown"):
            with pytest.raises(InvalidRequest):
                await one.service.retry(OWNER, run.run_id, step)
        await one.service.delete(OWNER, run.workflow_id, force=False)
        with pytest.raises(WorkflowNotFound):
            await one.service.retry(OWNER, run.run_id, None)


async def test_of_two_retries_one_is_done(store: SqlStore) -> None:
    """Whoever comes second finds the run live."""
    async with stands(store, "one", "two") as [one, two]:
        run = await one.run_to_end(code("a", "raise ValueError('no')"))
        graph = await one.service._graph_of(run)
        assert await one.engine.retry(run, graph, "first", None) is not None
        assert await two.engine.retry(run, graph, "second", None) is None
        await one.until_over(run.run_id)
        kinds = [event.kind for event in await store.runs.list_history(run.run_id)]
        assert kinds.count("run_retried") == 1


async def test_of_two_retries_at_once_one_is_done(store: SqlStore) -> None:
    """Of one process, whichever comes back first; the run is worked on, and ends."""
    async with stands(store, "one") as [one]:
        run = await one.run_to_end(code("a", "raise ValueError('no')"))
        graph = await one.service._graph_of(run)
        done = await asyncio.gather(*(one.engine.retry(run, graph, who, None) for who in ("first", "second")))
        assert len([live for live in done if live is not None]) == 1
        await one.until_over(run.run_id)
        kinds = [event.kind for event in await store.runs.list_history(run.run_id)]
        assert kinds.count("run_retried") == 1


def test_a_retried_run_waits_for_its_turn_again() -> None:
    """It had given it back when it ended; its time limit counts from when it is let in."""
    walk = Walk(a_definition(a_step("a"), concurrency_group="g", timeout_s=5))
    walk.feed(Entered(walk.now))
    walk.end(("a", None), FAILED)
    walk.pass_time(100)
    _retry(walk)
    assert (walk.run.status, walk.running, walk.run.deadline_at) == (RunStatus.PENDING, {}, None)
    walk.feed(Entered(walk.now))
    walk.pass_time(4)
    walk.end(("a", None), SUCCEEDED)
    assert walk.run.status is RunStatus.SUCCEEDED


def test_a_retried_step_starts_another_run_below() -> None:
    """The one before keeps its name."""
    walk = Walk(a_definition(a_child("a")))
    walk.feed()
    before = walk.steps["a", None].child_run_id
    walk.end(("a", None), FAILED)
    _retry(walk)
    assert walk.steps["a", None].child_run_id not in (None, before)


async def test_what_was_printed_counts_as_it_is_kept(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same whether the run was worked on all the time or was read anew in between: in bytes, not in characters."""
    monkeypatch.setattr(ledger, "MOST_PRINTED_BYTES", 250)
    async with stands(store, "one") as [one]:
        run = await one.run_to_end(code("a", "print('\u20ac' * 60)"), code("b", "print('\u20ac' * 30)"))
        rows = {row.step: row for row in await store.runs.list_steps(run.run_id)}
        assert rows["a"].stdout == 60 * "\u20ac" + "\n"
        assert rows["b"].stdout == ""
        assert await store.runs.measure_printed(run.run_id) == {row.key: measure_printed(row) for row in rows.values()}


async def test_what_was_printed_before_takes_no_room(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step prints again takes the place of what it had printed."""
    monkeypatch.setattr(ledger, "MOST_PRINTED_BYTES", 250)
    async with stands(store, "one") as [one]:
        run = await one.run_to_end(code("a", f"print('{'x' * 150}')\nraise ValueError('no')"))
        await one.service.retry(OWNER, run.run_id, None)
        await one.until_over(run.run_id)
        (row,) = await store.runs.list_steps(run.run_id)
        assert (row.attempt, row.stdout) == (2, f"{'x' * 150}\n")
