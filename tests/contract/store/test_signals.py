"""What every database promises about signals to runs, and PostgreSQL about notes between processes."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from psycopg import sql

from sandgate.core.ids import make_signal_id
from sandgate.core.run import Run, RunSignal, RunStatus, SignalKind
from sandgate.core.trigger import TriggerType
from sandgate.store.base import NoteKind, RunChange, RunNote
from sandgate.store.connections import Location
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, STRANGE_TEXT, a_run, a_schedule, a_workflow
from tests.postgres import PostgresServer

LIMIT_S = 20


async def _run(store: SqlStore) -> Run:
    workflow = a_workflow()
    await store.workflows.insert(workflow)
    run = a_run(workflow.workflow_id)
    assert await store.runs.insert(RunChange(run))
    return run


def _signal(run: Run, kind: SignalKind = SignalKind.CANCEL) -> RunSignal:
    return RunSignal(make_signal_id(), run.run_id, kind, NOW, {"who": STRANGE_TEXT})


def _ended(run: Run) -> Run:
    return replace(run, status=RunStatus.SUCCEEDED, finished_at=NOW)


async def test_signals_are_read_by_whoever_has_the_run(store: SqlStore) -> None:
    """As they were written, oldest first, and by nobody else."""
    run, other = await _run(store), await _run(store)
    first, second = _signal(run), _signal(run, SignalKind.DECIDE)
    assert await store.signals.insert(first)
    assert await store.signals.insert(second)
    assert await store.signals.insert(_signal(other))
    await store.runs.claim("two", NOW + timedelta(seconds=60), 60, 1)
    assert await store.signals.list_held("two") == [first, second]
    assert [signal.run_id for signal in await store.signals.list_held("one")] == [other.run_id]


async def test_a_signal_goes_with_what_follows_from_it(store: SqlStore) -> None:
    """In the same transaction; who may not write to the run cannot take its signals either."""
    run = await _run(store)
    first, second = _signal(run), _signal(run)
    assert await store.signals.insert(first)
    assert await store.signals.insert(second)
    stale = RunChange(replace(run, fence=9), signals=[first.signal_id])
    assert not await store.runs.apply(stale)
    assert await store.signals.exists(first.signal_id)
    assert await store.runs.apply(RunChange(run, signals=[first.signal_id]))
    assert not await store.signals.exists(first.signal_id)
    assert await store.signals.list_held("one") == [second]


async def test_a_run_that_ended_has_no_signals(store: SqlStore) -> None:
    """Those that nobody acted on go with its end, and none comes after it."""
    run = await _run(store)
    signal = _signal(run)
    assert await store.signals.insert(signal)
    assert await store.runs.apply(RunChange(_ended(run)))
    assert not await store.signals.exists(signal.signal_id)
    assert not await store.signals.insert(_signal(run))


async def test_a_signal_that_is_there_is_not_added_again(store: SqlStore) -> None:
    """What is said every second while nobody has the run is one row."""
    run = await _run(store)
    signal = _signal(run)
    for _again in range(2):
        assert await store.signals.insert(signal)
    await store.runs.claim("two", NOW + timedelta(seconds=60), 60, 1)
    assert await store.signals.list_held("two") == [signal]


class _Ear:
    """Hears notes in a task of its own."""

    def __init__(self, store: SqlStore) -> None:
        self.heard: asyncio.Queue[RunNote] = asyncio.Queue()
        self.task = asyncio.create_task(store.notes.listen(self.heard.put_nowait))

    async def next(self) -> RunNote:
        return await asyncio.wait_for(self.heard.get(), LIMIT_S)

    async def close(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


@pytest.mark.needs_postgresql
async def test_other_processes_hear_of_signals_and_ends(
    postgres_server: PostgresServer, clean_postgres_url: Location
) -> None:
    """Once they are committed; and after the connection was lost they are told that they may have missed something."""
    store = SqlStore(clean_postgres_url)
    await store.open()
    ear = _Ear(store)
    try:
        assert await ear.next() == RunNote(NoteKind.AGAIN)
        run = await _run(store)
        assert await store.signals.insert(_signal(run))
        assert await ear.next() == RunNote(NoteKind.SIGNAL, run.run_id)
        assert await store.runs.apply(RunChange(_ended(run)))
        assert await ear.next() == RunNote(NoteKind.CHANGED, run.run_id)
        end = sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        await asyncio.to_thread(postgres_server.execute, end)
        assert await ear.next() == RunNote(NoteKind.AGAIN)
    finally:
        await ear.close()
        await store.close()


@pytest.mark.needs_postgresql
async def test_other_processes_hear_of_what_schedules_wait_for(clean_postgres_url: Location) -> None:
    """A new one, a changed one, and the end of a run that one started."""
    store = SqlStore(clean_postgres_url)
    await store.open()
    ear = _Ear(store)
    try:
        assert await ear.next() == RunNote(NoteKind.AGAIN)
        run = await _run(store)
        schedule = a_schedule(run.workflow_id)
        assert await store.schedules.insert(schedule, 1)
        assert await ear.next() == RunNote(NoteKind.SCHEDULES)
        assert await store.schedules.replace(schedule, replace(schedule, paused=True))
        assert await ear.next() == RunNote(NoteKind.SCHEDULES)
        assert await store.runs.apply(RunChange(replace(_ended(run), trigger_type=TriggerType.SCHEDULE)))
        assert {(await ear.next()).kind for _ in range(2)} == {NoteKind.CHANGED, NoteKind.SCHEDULES}
    finally:
        await ear.close()
        await store.close()


async def test_a_database_of_one_process_has_no_notes(store: SqlStore) -> None:
    """Nobody is there to be heard."""
    if not store.runs.is_shared:
        await asyncio.wait_for(store.notes.listen(lambda _note: None), LIMIT_S)
