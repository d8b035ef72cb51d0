"""Rows of executions."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sandgate.core.execution import ErrorReport, Usage
from sandgate.core.ids import EnvironmentId, ExecutionId, make_user_id
from sandgate.core.page import PageRequest
from sandgate.core.states import ExecutionStatus
from sandgate.store import heavy_rows
from sandgate.store.database import Database
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, STRANGE_TEXT, a_running_execution, ended
from tests.contract.store.statements import statements_sent

LATER = NOW + timedelta(seconds=3)


async def test_a_running_row_comes_back_as_it_went_in(store: SqlStore) -> None:
    """Every field is kept."""
    execution = a_running_execution(timeout_s=0.1)
    await store.executions.insert_running(execution)
    assert await store.executions.find(execution.execution_id) == execution


async def test_an_ended_row_comes_back_as_it_went_in(store: SqlStore) -> None:
    """Every field is kept, whatever the program wrote."""
    execution = ended(
        a_running_execution(timeout_s=3599.999),
        stdout=STRANGE_TEXT,
        stderr="\0" * 10,
        stdout_truncated=True,
        exit_code=-(2**31),
        error=ErrorReport(STRANGE_TEXT, "", STRANGE_TEXT),
        usage=Usage(2**40, 2**50),
        finished_at=datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    )
    await store.executions.finish(execution)
    assert await store.executions.find(execution.execution_id) == execution


async def test_large_output_is_kept(store: SqlStore) -> None:
    """The largest output that the service keeps by default, of bytes that do not compress."""
    text = "".join(chr(0x20 + number * 7919 % 0x2000) for number in range(400_000))
    execution = ended(a_running_execution(), stdout=text, stderr=text[::-1])
    await store.executions.finish(execution)
    assert await store.executions.find(execution.execution_id) == execution


async def test_an_unknown_id_finds_nothing(store: SqlStore) -> None:
    """Also when no such id could be."""
    for execution_id in ("exec-unknown", "", "\0", "\ud800"):
        assert await store.executions.find(ExecutionId(execution_id)) is None


@pytest.mark.parametrize("status", [status for status in ExecutionStatus if status is not ExecutionStatus.RUNNING])
async def test_a_running_row_is_ended(store: SqlStore, status: ExecutionStatus) -> None:
    """The end fills in what was open."""
    execution = a_running_execution()
    await store.executions.insert_running(execution)
    end = ended(execution, status=status, error=None, usage=None, exit_code=None)
    await store.executions.finish(end)
    assert await store.executions.find(execution.execution_id) == end


async def test_an_ended_row_is_kept(store: SqlStore) -> None:
    """Neither another end nor a late beginning overwrites the first end."""
    execution = a_running_execution()
    end = ended(execution)
    await store.executions.finish(end)
    await store.executions.finish(ended(execution, status=ExecutionStatus.CANCELLED, stdout="late"))
    await store.executions.insert_running(execution)
    assert await store.executions.find(execution.execution_id) == end


async def test_beginning_twice_changes_nothing(store: SqlStore) -> None:
    """A second row for the same execution is no error."""
    execution = a_running_execution()
    await store.executions.insert_running(execution)
    await store.executions.insert_running(replace(execution, timeout_s=9.0))
    assert await store.executions.find(execution.execution_id) == execution


async def test_one_of_many_ends_wins(store: SqlStore) -> None:
    """However beginnings and ends race, the row is one of the ends as a whole."""
    execution = a_running_execution()
    ends = [ended(execution, exit_code=number, stdout=str(number)) for number in range(10)]
    writes = [store.executions.finish(end) for end in ends] + [store.executions.insert_running(execution)]
    await asyncio.gather(*writes)
    assert await store.executions.find(execution.execution_id) in ends


async def test_only_an_end_finishes(store: SqlStore) -> None:
    """A row that claims to have ended and has not would never be pruned."""
    execution = a_running_execution()
    for wrong in (execution, ended(execution, finished_at=None)):
        with pytest.raises(ValueError, match="has not ended"):
            await store.executions.finish(wrong)
    assert await store.executions.find(execution.execution_id) is None


async def test_a_list_holds_one_environment_newest_first(store: SqlStore) -> None:
    """Running and ended ones; those of other environments are not in it."""
    environment_id = EnvironmentId("env-listed")
    running = a_running_execution(environment_id=environment_id)
    await store.executions.insert_running(running)
    await store.executions.finish(ended(a_running_execution()))
    end = ended(a_running_execution(environment_id=environment_id))
    await store.executions.finish(end)
    page = await store.executions.list(environment_id, PageRequest())
    assert page.items == (end, running)
    assert page.next_before_id is None


async def test_a_page_of_large_output_ends_early(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the row that fills it, so that memory is bounded and going on still shows every row once."""
    monkeypatch.setattr(heavy_rows, "MOST_BYTES", 100)
    sizes = [10, 250, 0, 40, 59, 0, 1, 120, 99]
    ends = [ended(a_running_execution(), stdout="\u00e9" * (size // 2), stderr="e" * (size % 2)) for size in sizes]
    for end in ends:
        await store.executions.finish(end)
    pages: list[list[int]] = []
    request = PageRequest()
    while True:
        page = await store.executions.list(ends[0].environment_id, request)
        pages.append([ends.index(item) for item in page.items])
        if page.next_before_id is None:
            break
        request = PageRequest(before_id=page.next_before_id)
    assert pages == [[8, 7], [6, 5, 4, 3], [2, 1], [0]]


async def test_the_oldest_output_goes_where_there_is_too_much(store: SqlStore) -> None:
    """Of each owner by itself, and never what runs; all rows are only looked at again when much was written."""
    ann, bob = make_user_id(), make_user_id()
    made = [ended(a_running_execution(owner_id=ann), stdout="x" * 300, stderr="y" * 100) for _ in range(8)]
    running = a_running_execution(owner_id=ann)
    other = ended(a_running_execution(owner_id=bob), stdout="x" * 900, stderr="")
    silent = [replace(made[0], execution_id=ExecutionId(f"exec-0{n}"), stdout="", stderr="") for n in range(3)]
    for end in (*silent, *made, other):
        await store.executions.finish(end)
    await store.executions.insert_running(running)
    over = dict(await store.executions.find_over(1000))
    assert over.get(ann) == 8 * 400 - 1000
    assert bob not in over
    assert await store.executions.prune_oldest(ann, over[ann], 3) == 1200
    assert await store.executions.prune_oldest(ann, over[ann] - 1200, 500) == 1200
    left = [end for end in made if await store.executions.find(end.execution_id)]
    assert left == made[6:]
    assert await store.executions.find(running.execution_id) == running
    assert await store.executions.find(other.execution_id) == other
    # Older ones that take no room neither go nor end the search.
    assert [await store.executions.find(end.execution_id) for end in silent] == silent
    assert await store.executions.prune_oldest(bob, 0, 500) == 0
    assert await store.executions.find_over(1000) == []
    # What many write together is none of one owner's.
    for _owner in range(3):
        await store.executions.finish(ended(a_running_execution(owner_id=make_user_id()), stdout="x" * 120, stderr=""))
    assert await store.executions.find_over(1000) == []
    # Much was written since: it is looked at again.
    await store.executions.finish(ended(a_running_execution(owner_id=bob), stdout="x" * 125, stderr=""))
    assert dict(await store.executions.find_over(1000))[bob] == 25
    # Also in what sessions have shown.
    shown = replace(
        ended(a_running_execution(owner_id=bob), stdout="", stderr=""), results=({"text/plain": "x" * 125},)
    )
    await store.executions.finish(shown)
    over = dict(await store.executions.find_over(1000))
    assert over[bob] > 25 + 125
    # Nothing was deleted, whatever the reason: it is found again until there is not too much.
    assert dict(await store.executions.find_over(1000)) == over
    assert await store.executions.prune_oldest(bob, over[bob], 500) >= over[bob]
    assert await store.executions.find_over(1000) == []


async def test_sizes_are_added_up_without_the_outputs(sqlite_path: Path) -> None:
    """Where SQLite groups by sorting, it sorts all that is used of a row: that is to be a size, not the output."""
    store, database = SqlStore(sqlite_path), Database(sqlite_path, read_threads=1, checkpoint=False)
    await store.open()
    await database.open()
    with statements_sent() as sent:
        await store.executions.find_over(1000)
    ((text, parameters),) = sent
    plan = await database.read(
        lambda connection: [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", parameters)]
    )
    await database.close()
    await store.close()
    sorted_at = next(at for at, step in enumerate(plan) if "GROUP BY" in step)
    assert "executions" not in plan[sorted_at - 1], plan


async def test_running_rows_are_lost_once(store: SqlStore) -> None:
    """All but those to be kept; what has ended before stays as it was."""
    running = [a_running_execution() for _ in range(5)]
    for execution in running:
        await store.executions.insert_running(execution)
    end = ended(a_running_execution())
    await store.executions.finish(end)
    kept = running[2].execution_id
    lost = await store.executions.mark_lost(LATER, keep=[kept, ExecutionId("exec-unknown")])
    assert sorted(lost) == [execution.execution_id for execution in running if execution.execution_id != kept]
    assert await store.executions.mark_lost(LATER, keep=[kept]) == []
    found = await store.executions.find(running[0].execution_id)
    assert found == replace(running[0], status=ExecutionStatus.LOST, finished_at=LATER, duration_ms=3000)
    assert await store.executions.find(kept) == running[2]
    assert await store.executions.find(end.execution_id) == end


async def test_a_clock_that_went_back_loses_rows_all_the_same(store: SqlStore) -> None:
    """A duration is never negative."""
    execution = a_running_execution()
    await store.executions.insert_running(execution)
    assert await store.executions.mark_lost(NOW - timedelta(days=1)) == [execution.execution_id]
    found = await store.executions.find(execution.execution_id)
    assert found is not None
    assert found.duration_ms == 0


async def test_what_ended_long_ago_is_pruned_oldest_first(store: SqlStore) -> None:
    """At most as many as asked for; never what runs, nor what ended at or after the given time."""
    running = a_running_execution(started_at=NOW - timedelta(days=9))
    await store.executions.insert_running(running)
    ends = [ended(a_running_execution(), finished_at=NOW + timedelta(seconds=number)) for number in range(6)]
    for end in reversed(ends):
        await store.executions.finish(end)
    before = NOW + timedelta(seconds=4)
    assert await store.executions.prune(before, 3) == 3
    found = [await store.executions.find(end.execution_id) for end in ends]
    assert found == [None, None, None, *ends[3:]]
    assert [await store.executions.prune(before, 3) for _ in range(2)] == [1, 0]
    assert await store.executions.find(running.execution_id) == running
    assert await store.executions.find(ends[4].execution_id) == ends[4]
