"""What one answer holds of rows that may be large is bounded on every database."""

from typing import Any

import pytest

from sandgate.core.execution import ErrorReport
from sandgate.core.ids import UserId, make_user_id
from sandgate.core.page import PageRequest
from sandgate.core.run import LIVE_RUN_STATUSES, RunStatus, StepRun
from sandgate.store import heavy_rows
from sandgate.store.base import RunChange, RunFilter
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import a_run, a_schedule, a_step, a_workflow, an_event
from tests.contract.store.statements import statements_sent
from tests.contract.store.test_webhooks import a_webhook

KIB = 1024


@pytest.fixture(autouse=True)
def _small_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred KiB."""
    monkeypatch.setattr(heavy_rows, "MOST_BYTES", 100 * KIB)


async def _pages(list_page: Any) -> list[list[Any]]:
    pages: list[list[Any]] = []
    request = PageRequest(limit=4)
    while True:
        page = await list_page(request)
        pages.append(list(page.items))
        if page.next_before_id is None:
            return pages
        request = PageRequest(4, page.next_before_id)


@pytest.mark.parametrize("statuses", [None, LIVE_RUN_STATUSES])
async def test_a_page_of_large_runs_ends_early(store: SqlStore, statuses: frozenset[RunStatus] | None) -> None:
    """With the run that fills it; light ones fill it by their number, and each is shown whole and once."""
    owner = UserId(make_user_id())
    workflow = a_workflow()
    await store.workflows.insert(workflow)
    sizes = [10, 10, 60, 10, 60, 10, 10, 10, 10, 300, 70, 70]
    made = []
    for size in sizes:
        # Half in what it was given, half in what it came to.
        half = "x" * (size * KIB // 2)
        run = a_run(workflow.workflow_id, owner_id=owner, inputs={"x": half}, outputs={"x": half})
        assert await store.runs.insert(RunChange(run))
        made.append(run)
    wanted = RunFilter(owner, statuses=statuses)
    pages = await _pages(lambda page: store.runs.list(wanted, page))
    assert [[made.index(run) for run in page] for page in pages] == [[11, 10], [9], [8, 7, 6, 5], [4, 3, 2], [1, 0]]


async def test_a_page_of_large_workflows_ends_early(store: SqlStore) -> None:
    """Their definitions count twice, because the answer has the steps twice."""
    owner = UserId(make_user_id())
    made = [
        a_workflow(owner_id=owner, definition={"name": "w", "steps": [], "x": "x" * size * KIB})
        for size in (1, 2, 200, 30, 30, 30)
    ]
    for workflow in made:
        await store.workflows.insert(workflow)
    pages = await _pages(lambda page: store.workflows.list(owner, None, page))
    assert [[made.index(workflow) for workflow in page] for page in pages] == [[5, 4], [3, 2], [1, 0]]


async def _shown(store: SqlStore, *rows: tuple[str, int | None, dict[str, Any]]) -> tuple[list[StepRun], set[Any]]:
    workflow = a_workflow()
    await store.workflows.insert(workflow)
    run = a_run(workflow.workflow_id)
    made = [a_step(run, step=step, item=item, **changes) for step, item, changes in rows]
    assert await store.runs.insert(RunChange(run, steps=made))
    shown = await store.runs.show_steps(run.run_id)
    for row in shown.steps:
        if row.key not in shown.omitted:
            assert row in made
        else:
            assert (row.stdout, row.stderr, row.outputs) == ("", "", None)
    assert [row.key for row in shown.steps] == sorted((row.key for row in made), key=lambda key: (key[0], key[1] or 0))
    return list(shown.steps), set(shown.omitted)


async def test_all_output_is_shown_as_long_as_it_fits(store: SqlStore) -> None:
    """Rows come as they are."""
    _, omitted = await _shown(store, ("a", None, {"stdout": "x" * 60 * KIB}), ("b", None, {"stderr": "\u00e9" * KIB}))
    assert omitted == set()


async def test_the_largest_output_is_left_out(store: SqlStore) -> None:
    """Whichever column it is in; as much of the rest is shown as fits, of rows of one size the first ones."""
    rows: list[tuple[str, int | None, dict[str, Any]]] = [
        ("a", None, {"stdout": "", "stderr": ""}),
        *(("b", item, {"stdout": "x" * 20 * KIB}) for item in range(8)),
        ("c", None, {"outputs": {"x": "x" * 51 * KIB}}),
        ("d", None, {"stderr": "x" * 101 * KIB}),
        ("e", None, {"stdout": "x" * 10 * KIB}),
    ]
    steps, omitted = await _shown(store, *rows)
    assert omitted == {("b", 4), ("b", 5), ("b", 6), ("b", 7), ("c", None), ("d", None)}
    # A short error is told all the same.
    assert all(row.error is not None for row in steps)


async def test_nothing_may_fit_at_all(store: SqlStore) -> None:
    """A row that is larger than an answer may be is left out, too, with its error if that is long."""
    error = ErrorReport("E", "v", "t" * 10_000)
    steps, omitted = await _shown(store, ("a", None, {"stdout": "x" * 101 * KIB, "error": error}))
    assert (omitted, steps[0].error) == ({("a", None)}, None)


async def test_a_page_of_large_triggers_ends_early(store: SqlStore) -> None:
    """By what they give to runs; each is shown whole and once."""
    owner, workflow = UserId(make_user_id()), a_workflow()
    await store.workflows.insert(workflow)
    sizes = [10, 10, 60, 60, 10, 300]
    schedules, webhooks = [], []
    for size in sizes:
        inputs = {"x": "x" * size * KIB}
        schedules.append(a_schedule(workflow.workflow_id, owner_id=owner, inputs=inputs))
        webhooks.append(a_webhook(workflow.workflow_id, owner_id=owner, inputs=inputs))
        assert await store.schedules.insert(schedules[-1], 10)
        assert await store.webhooks.insert(webhooks[-1], 10)
    for made, pages in (
        (schedules, await _pages(lambda page: store.schedules.list(owner, None, page))),
        (webhooks, await _pages(lambda page: store.webhooks.list(owner, workflow.workflow_id, page))),
    ):
        assert [[made.index(each) for each in page] for page in pages] == [[5], [4, 3, 2], [1, 0]]


async def test_a_part_of_a_large_history_ends_early(store: SqlStore) -> None:
    """With the entry that fills it; whoever wants all of it at once gets that."""
    workflow = a_workflow()
    await store.workflows.insert(workflow)
    run = a_run(workflow.workflow_id)
    sizes = [10, 60, 60, 10, 300, 10, 10]
    events = [an_event(run, number, details={"x": "x" * size * KIB}) for number, size in enumerate(sizes)]
    assert await store.runs.insert(RunChange(run, history=events))
    parts, first = [], 0
    while part := await store.runs.list_history(run.run_id, first, 4):
        parts.append([event.number for event in part])
        assert part == events[first : first + len(part)]
        first += len(part)
    assert parts == [[0, 1, 2], [3, 4], [5, 6]]
    assert await store.runs.list_history(run.run_id) == events


@pytest.mark.parametrize("most", [None, 1, 4])
async def test_a_look_at_a_history_is_one_statement(store: SqlStore, most: int | None) -> None:
    """It is looked at for as long as somebody follows the run, and most looks find one entry or none."""
    workflow = a_workflow()
    await store.workflows.insert(workflow)
    run = a_run(workflow.workflow_id)
    # More than an answer holds, which the first may have all the same.
    events = [an_event(run, number, details={"x": "x" * 200 * KIB}) for number in range(2)]
    assert await store.runs.insert(RunChange(run, history=events))
    with statements_sent() as sent:
        assert await store.runs.list_history(run.run_id, 0, most) == events[: 1 if most else 2]
        assert await store.runs.list_history(run.run_id, 2, most) == []
    assert len(sent) == 2
