"""Rows of runs, their steps and their history. ``apply`` is the hot path: every step ends in one."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.execution import ErrorReport
from sandgate.core.ids import RunId, WorkflowId
from sandgate.core.page import Page, PageRequest
from sandgate.core.run import HistoryEvent, Run, RunStatus, StepRun, StepStatus
from sandgate.core.trigger import TriggerType
from sandgate.store.base import RunChange, RunFilter
from sandgate.store.database import Database
from sandgate.store.schema import run_history, run_steps, runs, workflows
from sandgate.store.statements import HotStatement, changed, newest_first, page_of, page_parameters, upsert

_NO_ITEM = -1
_STEP_KEY = ("run_id", "step", "item")

_columns = runs.c
_is_this = _columns.run_id == sa.bindparam("wanted_id")
_is_live = _columns.finished_at.is_(None)
# What a change may write; the rest never changes, or belongs to the lease.
_CHANGING = ("status", "started_at", "finished_at", "deadline_at", "wake_at", "cancel_asked_at", "events", "error")

_WORKFLOW: Select[Any] = (
    sa.select(workflows.c.workflow_id)
    .where(workflows.c.workflow_id == sa.bindparam("wanted_id"), workflows.c.deleted_at.is_(None))
    .with_for_update(read=True)
)
_INSERT = HotStatement(upsert(runs, "(run_id) DO NOTHING"))
_APPLY = (
    sa.update(runs)
    .where(
        _is_this,
        _is_live,
        _columns.fence == sa.bindparam("held_fence"),
        _columns.lease_owner == sa.bindparam("held_by"),
    )
    .values({name: sa.bindparam(f"new_{name}", type_=_columns[name].type) for name in _CHANGING})
)
_PUT_STEP = HotStatement(
    upsert(
        run_steps,
        "(run_id, step, item) DO UPDATE SET "
        + ", ".join(f"{name} = excluded.{name}" for name in run_steps.c.keys() if name not in _STEP_KEY),  # noqa: SIM118 - a collection of columns
    )
)
_ADD_EVENT = HotStatement(upsert(run_history, "(run_id, number) DO NOTHING"))
_FREE = (
    sa.select(runs)
    .where(
        _is_live,
        sa.or_(
            _columns.lease_until.is_(None),
            _columns.lease_until <= sa.bindparam("now", type_=_columns.lease_until.type),
            _columns.lease_owner == sa.bindparam("before"),
        ),
    )
    .order_by(_columns.run_id)
    .limit(sa.bindparam("most"))
    .with_for_update(skip_locked=True)
)
_TAKE = (
    sa.update(runs)
    .where(_is_this)
    .values(
        fence=_columns.fence + 1,
        lease_owner=sa.bindparam("owner"),
        lease_until=sa.bindparam("until", type_=_columns.lease_until.type),
    )
)
_RENEW = (
    sa.update(runs)
    .where(_is_live, _columns.lease_owner == sa.bindparam("owner"))
    .values(lease_until=sa.bindparam("until", type_=_columns.lease_until.type))
)
_HELD: Select[Any] = sa.select(_columns.run_id).where(_is_live, _columns.lease_owner == sa.bindparam("owner"))
_FIND = sa.select(runs).where(_is_this)
_is_of_workflow = _columns.workflow_id == sa.bindparam("workflow_id")
_NEWEST = sa.select(runs).where(_is_of_workflow).order_by(_columns.run_id.desc()).limit(1)
_LIVE: Select[Any] = sa.select(_columns.run_id).where(_is_of_workflow, _is_live)
_is_of_run = run_steps.c.run_id == sa.bindparam("wanted_id")
_STEPS: Select[Any] = sa.select(run_steps).where(_is_of_run).order_by(run_steps.c.step, run_steps.c.item)
_BARE_STEPS: Select[Any] = (
    sa.select(*(column for column in run_steps.columns if column.name not in ("stdout", "stderr")))
    .where(_is_of_run)
    .order_by(run_steps.c.step, run_steps.c.item)
)
_HISTORY = (
    sa.select(run_history).where(run_history.c.run_id == sa.bindparam("wanted_id")).order_by(run_history.c.number)
)


class SqlRunStore:
    """See :class:`sandgate.store.base.RunStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, change: RunChange) -> bool:
        """Add a run; False, and nothing written, when its workflow has been deleted."""
        return await self._database.write(lambda connection: insert_run(connection, change), repeatable=True)

    async def apply(self, change: RunChange) -> bool:
        """Write a change if the row still has the fencing number and the lease's owner of ``change.run``.

        False, and nothing written, when another process has taken the run over, or when it has ended. The change
        that ends a run answers False when it is written twice; it is written once.
        """
        ends = not change.run.is_live
        return await self._database.write(lambda connection: _apply(connection, change), repeatable=not ends)

    async def claim(self, owner: str, now: datetime, until: datetime, most: int, *, own: bool = False) -> Sequence[Run]:
        """Take live runs whose lease has run out, and with ``own`` also those that ``owner`` had before.

        Each gets the next fencing number.
        """
        wanted = {"before": owner if own else None, "now": now, "most": most}
        return await self._database.write(lambda connection: _claim(connection, wanted, owner, until))

    async def renew(self, owner: str, until: datetime) -> frozenset[RunId]:
        """Hold what ``owner`` has until then; answers what that is."""

        def work(connection: Connection) -> frozenset[RunId]:
            connection.execute(_RENEW, {"owner": owner, "until": until})
            return frozenset(RunId(row.run_id) for row in connection.execute(_HELD, {"owner": owner}))

        return await self._database.write(work, repeatable=True)

    async def find(self, run_id: RunId) -> Run | None:
        """The row."""
        parameters = {"wanted_id": run_id}
        row = await self._database.read(lambda connection: connection.execute(_FIND, parameters).one_or_none())
        return None if row is None else _parse(row)

    async def find_newest(self, workflow_id: WorkflowId) -> Run | None:
        """The newest run of a workflow."""
        parameters = {"workflow_id": workflow_id}
        row = await self._database.read(lambda connection: connection.execute(_NEWEST, parameters).one_or_none())
        return None if row is None else _parse(row)

    async def list(self, wanted: RunFilter, page: PageRequest) -> Page[Run]:
        """A page, newest first."""
        given = {"owner_id": wanted.owner_id, "workflow_id": wanted.workflow_id, "status": wanted.status}
        parameters: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        statement = _list_statement(tuple(parameters), page.before_id is not None)
        parameters |= page_parameters(page)
        rows = await self._database.read(lambda connection: connection.execute(statement, parameters).all())
        return page_of(rows, page, _parse)

    async def list_live(self, workflow_id: WorkflowId) -> Sequence[RunId]:
        """The runs of a workflow that have not ended."""
        parameters = {"workflow_id": workflow_id}
        rows = await self._database.read(lambda connection: connection.execute(_LIVE, parameters).all())
        return [RunId(row.run_id) for row in rows]

    async def list_steps(self, run_id: RunId, *, with_output: bool = True) -> Sequence[StepRun]:
        """All rows of steps; without output their ``stdout`` and ``stderr`` are empty."""
        statement = _STEPS if with_output else _BARE_STEPS
        rows = await self._database.read(lambda connection: connection.execute(statement, {"wanted_id": run_id}).all())
        return [_parse_step(row) for row in rows]

    async def list_history(self, run_id: RunId) -> Sequence[HistoryEvent]:
        """What happened, in order."""
        parameters = {"wanted_id": run_id}
        rows = await self._database.read(lambda connection: connection.execute(_HISTORY, parameters).all())
        return [HistoryEvent(**{**row._mapping, "run_id": RunId(row.run_id)}) for row in rows]


@lru_cache
def _list_statement(equal: tuple[str, ...], has_before: bool) -> Select[Any]:
    base = sa.select(runs)
    for name in equal:
        base = base.where(_columns[name] == sa.bindparam(name))
    return newest_first(base, _columns.run_id, PageRequest(before_id="" if has_before else None))


def hold_workflow(connection: Connection, workflow_id: WorkflowId) -> bool:
    """Whether the workflow is there; it is not deleted before the end of the transaction."""
    return connection.execute(_WORKFLOW, {"wanted_id": workflow_id}).first() is not None


def insert_run(connection: Connection, change: RunChange) -> bool:
    """Add a run inside a transaction; False, and nothing written, when its workflow has been deleted."""
    if not hold_workflow(connection, change.run.workflow_id):
        return False
    _INSERT.run(connection, _row_of(change.run))
    _write_parts(connection, change)
    return True


def _apply(connection: Connection, change: RunChange) -> bool:
    run = _row_of(change.run)
    parameters = {f"new_{name}": run[name] for name in _CHANGING}
    parameters |= {"wanted_id": run["run_id"], "held_fence": run["fence"], "held_by": run["lease_owner"]}
    if not changed(connection.execute(_APPLY, parameters)):
        return False
    _write_parts(connection, change)
    return True


def _write_parts(connection: Connection, change: RunChange) -> None:
    for step in change.steps:
        _PUT_STEP.run(connection, _step_row_of(step))
    for event in change.history:
        _ADD_EVENT.run(connection, {field.name: getattr(event, field.name) for field in fields(event)})


def _claim(connection: Connection, wanted: dict[str, Any], owner: str, until: datetime) -> Sequence[Run]:
    rows = connection.execute(_FREE, wanted).all()
    if rows:
        taken = [{"wanted_id": row.run_id, "owner": owner, "until": until} for row in rows]
        connection.execute(_TAKE, taken)
    return [_parse(row, fence=row.fence + 1, lease_owner=owner, lease_until=until) for row in rows]


def _row_of(run: Run) -> dict[str, Any]:
    row = {field.name: getattr(run, field.name) for field in fields(run)}
    row["error"] = _plain(run.error)
    return row


def _step_row_of(step: StepRun) -> dict[str, Any]:
    row = {field.name: getattr(step, field.name) for field in fields(step)}
    row["item"] = _NO_ITEM if step.item is None else step.item
    row["error"] = _plain(step.error)
    return row


def _plain(error: ErrorReport | None) -> Mapping[str, str] | None:
    return None if error is None else {"name": error.name, "value": error.value, "traceback": error.traceback}


def _report(value: Mapping[str, str] | None) -> ErrorReport | None:
    return None if value is None else ErrorReport(**value)


def _parse(row: Row[Any], **changes: Any) -> Run:
    values = dict(row._mapping)
    values["status"] = RunStatus(values["status"])
    values["trigger_type"] = TriggerType(values["trigger_type"])
    values["error"] = _report(values["error"])
    return Run(**{**values, **changes})


def _parse_step(row: Row[Any]) -> StepRun:
    values = dict(row._mapping)
    values["status"] = StepStatus(values["status"])
    values["item"] = None if values["item"] == _NO_ITEM else values["item"]
    values["error"] = _report(values["error"])
    return StepRun(**values)
