"""Rows of runs, their steps and their history. ``apply`` is the hot path: every step ends in one."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import RunId, WorkflowId
from sandgate.core.page import Page, PageRequest
from sandgate.core.run import HistoryEvent, Run, StepRun
from sandgate.core.trigger import TriggerType
from sandgate.store import run_slots
from sandgate.store.artifacts import add_artifacts
from sandgate.store.base import NoteKind, RunChange, RunFilter, RunNote, ShownSteps
from sandgate.store.clocks import database_now
from sandgate.store.database import Database
from sandgate.store.histories import list_history
from sandgate.store.idempotency import keep_answer
from sandgate.store.kept_runs import forget_size, note_size
from sandgate.store.notes import publish
from sandgate.store.run_lists import HEAVY, run_list
from sandgate.store.run_rows import NO_ITEM, parse_run, parse_step, run_row_of, step_row_of
from sandgate.store.run_views import show_steps
from sandgate.store.schema import run_history, run_signals, run_steps, runs
from sandgate.store.statements import HotStatement, changed, upsert
from sandgate.store.versions import hold_workflow, write_beginning

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_STEP_KEY = ("run_id", "step", "item")

_columns = runs.c
_is_this = _columns.run_id == sa.bindparam("wanted_id")
_is_live = _columns.finished_at.is_(None)
# What a change may write; the rest never changes, or belongs to the lease.
_CHANGING = (
    "status",
    "started_at",
    "finished_at",
    "deadline_at",
    "wake_at",
    "cancel_asked_at",
    "events",
    "error",
    "outputs",
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
_REOPEN = (
    sa.update(runs)
    .where(_is_this, _columns.finished_at.is_not(None), _columns.fence == sa.bindparam("fence_before"))
    .values(
        fence=_columns.fence + 1,
        lease_owner=sa.bindparam("owner"),
        lease_until=sa.bindparam("until", type_=_columns.lease_until.type),
        **{name: sa.bindparam(f"new_{name}", type_=_columns[name].type) for name in _CHANGING},
    )
)
_FORGET_SIGNALS = sa.delete(run_signals).where(run_signals.c.signal_id == sa.bindparam("signal"))
_FORGET_ALL_SIGNALS = sa.delete(run_signals).where(run_signals.c.run_id == sa.bindparam("wanted_id"))
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
    # Not the bare column, whose index would be walked from one end to the other in search of the few that are live.
    .order_by(sa.func.coalesce(_columns.run_id, ""))
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
_RELEASE = (
    sa.update(runs)
    .where(_is_this, _is_live, _columns.lease_owner == sa.bindparam("owner"))
    .values(lease_until=sa.null())
)
_FREE_AT: Select[Any] = sa.select(
    sa.func.min(sa.func.coalesce(_columns.lease_until, sa.literal(_LONG_AGO, _columns.lease_until.type)))
).where(_is_live, sa.or_(_columns.lease_owner.is_(None), _columns.lease_owner != sa.bindparam("owner")))
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
_printed_bytes = sa.func.length(run_steps.c.stdout) + sa.func.length(run_steps.c.stderr)
_PRINTED: Select[Any] = sa.select(run_steps.c.step, run_steps.c.item, _printed_bytes.label("size_bytes")).where(
    _is_of_run, _printed_bytes > 0
)
_STEP = sa.select(run_steps).where(
    _is_of_run, run_steps.c.step == sa.bindparam("step"), run_steps.c.item == sa.bindparam("item")
)
_BEGINNING: Select[Any] = sa.select(sa.func.max(run_history.c.number)).where(
    run_history.c.run_id == sa.bindparam("wanted_id"),
    run_history.c.kind == "step_started",
    run_history.c.step == sa.bindparam("step"),
    sa.func.coalesce(run_history.c.item, NO_ITEM) == sa.bindparam("item"),
    run_history.c.attempt == sa.bindparam("attempt"),
)


class SqlRunStore:
    """See :class:`sandgate.store.base.RunStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def is_shared(self) -> bool:
        """Whether other processes may work on runs of the same database."""
        return self._database.is_shared

    async def insert(
        self,
        change: RunChange,
        lease_s: float | None = None,
        *,
        under: Run | None = None,
        answer: KeptAnswer | None = None,
    ) -> bool:
        """Add a run, held for ``lease_s`` (None: as its row says), with what is answered about it.

        False, and nothing written, when its workflow has been deleted, when the run ``under`` which it is to run is not
        held as it says any more, and when another process has added it. Raises ``VersionGone``.
        """

        def work(connection: Connection) -> bool:
            inserted = insert_run(connection, change, lease_s, under)
            if inserted:
                keep_answer(connection, answer)
            return inserted

        return await write_beginning(self._database, change.run, work, False, repeatable=True)

    async def enter(self, run: Run, at: datetime) -> datetime | None:
        """Let a run of a group in, if there is room for it and for all that wait before it.

        Answers when it was let in; None while it has to wait, and when it is not held as it says any more.
        """
        return await self._database.write(lambda connection: run_slots.enter(connection, run, at), repeatable=True)

    async def apply(self, change: RunChange) -> bool:
        """Write a change if the row still has the fencing number and the lease's owner of ``change.run``.

        False, and nothing written, when another process has taken the run over, or when it has ended. The change
        that ends a run answers False when it is written twice; it is written once.
        """
        ends = not change.run.is_live
        return await self._database.write(lambda connection: _apply(connection, change), repeatable=not ends)

    async def reopen(self, change: RunChange, lease_s: float, answer: KeptAnswer | None = None) -> bool:
        """Write a change that makes an ended run live again, held by the owner in ``change.run`` for ``lease_s``.

        Its fencing number has to be one more than that of the row; False, and nothing written, when it is not, when
        the run is live, or when its workflow has been deleted.
        """

        def work(connection: Connection) -> bool:
            reopened = _reopen(connection, change, lease_s)
            if reopened:
                keep_answer(connection, answer)
            return reopened

        return await self._database.write(work)

    async def claim(self, owner: str, now: datetime, lease_s: float, most: int, *, own: bool = False) -> Sequence[Run]:
        """Take live runs whose lease has run out, and with ``own`` also those that ``owner`` had before.

        Each gets the next fencing number, and a lease of ``lease_s``.
        """
        before = owner if own else None

        def work(connection: Connection) -> Sequence[Run]:
            at = database_now(connection, now)
            wanted = {"before": before, "now": at, "most": most}
            return _claim(connection, wanted, owner, at + timedelta(seconds=lease_s))

        return await self._database.write(work)

    async def renew(self, owner: str, now: datetime, lease_s: float) -> frozenset[RunId]:
        """Hold what ``owner`` has for another ``lease_s``; answers what that is."""

        def work(connection: Connection) -> frozenset[RunId]:
            until = database_now(connection, now) + timedelta(seconds=lease_s)
            connection.execute(_RENEW, {"owner": owner, "until": until})
            return frozenset(RunId(row.run_id) for row in connection.execute(_HELD, {"owner": owner}))

        return await self._database.write(work, repeatable=True)

    async def release(self, owner: str, run_ids: Collection[RunId]) -> None:
        """Let the leases of these runs run out, as far as ``owner`` has them."""
        rows: list[dict[str, Any]] = [{"wanted_id": run_id, "owner": owner} for run_id in run_ids]

        def work(connection: Connection) -> None:
            connection.execute(_RELEASE, rows)
            publish(connection, RunNote(NoteKind.FREE, rows[0]["wanted_id"]))

        if rows:
            await self._database.write(work, repeatable=True)

    async def find_free_in_s(self, owner: str, now: datetime) -> float | None:
        """In how many seconds the first lease of anybody else runs out (0 or less: now); None when there is none."""

        def work(connection: Connection) -> float | None:
            free_at: datetime | None = connection.execute(_FREE_AT, {"owner": owner}).scalar_one()
            if free_at is None:
                return None
            return (free_at - database_now(connection, now)).total_seconds()

        return await self._database.read(work)

    async def list_held(self, owner: str) -> Sequence[RunId]:
        """The runs that have not ended and were last worked on by ``owner``."""
        parameters = {"owner": owner}
        rows = await self._database.read(lambda connection: connection.execute(_HELD, parameters).all())
        return [RunId(row.run_id) for row in rows]

    async def find(self, run_id: RunId) -> Run | None:
        """The row."""
        parameters = {"wanted_id": run_id}
        row = await self._database.read(lambda connection: connection.execute(_FIND, parameters).one_or_none())
        return None if row is None else parse_run(row)

    async def find_newest(self, workflow_id: WorkflowId) -> Run | None:
        """The newest run of a workflow."""
        parameters = {"workflow_id": workflow_id}
        row = await self._database.read(lambda connection: connection.execute(_NEWEST, parameters).one_or_none())
        return None if row is None else parse_run(row)

    async def list(self, wanted: RunFilter, page: PageRequest) -> Page[Run]:
        """A page, newest first; it ends early, and says where to go on, when it holds ``heavy_rows.MOST_BYTES``."""
        if wanted.statuses is not None and not wanted.statuses:
            return Page((), None)
        statement, parameters = run_list(wanted, page)
        return await self._database.read(
            lambda connection: HEAVY.read_page(connection, statement, parameters, page, parse_run)
        )

    async def list_live(self, workflow_id: WorkflowId) -> Sequence[RunId]:
        """The runs of a workflow that have not ended."""
        parameters = {"workflow_id": workflow_id}
        rows = await self._database.read(lambda connection: connection.execute(_LIVE, parameters).all())
        return [RunId(row.run_id) for row in rows]

    async def list_steps(self, run_id: RunId, *, with_output: bool = True) -> Sequence[StepRun]:
        """All rows of steps; without output their ``stdout`` and ``stderr`` are empty."""
        statement = _STEPS if with_output else _BARE_STEPS
        rows = await self._database.read(lambda connection: connection.execute(statement, {"wanted_id": run_id}).all())
        return [parse_step(row) for row in rows]

    async def measure_printed(self, run_id: RunId) -> Mapping[tuple[str, int | None], int]:
        """How much is kept of what its steps and their items have printed, in bytes, of those that have."""
        parameters = {"wanted_id": run_id}
        rows = await self._database.read(lambda connection: connection.execute(_PRINTED, parameters).all())
        return {(row.step, None if row.item == NO_ITEM else row.item): int(row.size_bytes) for row in rows}

    async def show_steps(self, run_id: RunId) -> ShownSteps:
        """All rows of steps, with as much output as one answer may hold."""
        return await self._database.read(lambda connection: show_steps(connection, run_id))

    async def find_step(self, run_id: RunId, step: str, item: int | None) -> StepRun | None:
        """One row of a step, or of one of its items."""
        parameters = {"wanted_id": run_id, "step": step, "item": NO_ITEM if item is None else item}
        row = await self._database.read(lambda connection: connection.execute(_STEP, parameters).one_or_none())
        return None if row is None else parse_step(row)

    async def list_history(self, run_id: RunId, first: int = 0, most: int | None = None) -> Sequence[HistoryEvent]:
        """What happened, in order, from the entry with the number ``first`` on.

        At most so many entries, and no more after those that hold ``heavy_rows.MOST_BYTES``; without ``most``, all.
        """
        return await self._database.read(lambda connection: list_history(connection, run_id, first, most))

    async def find_beginning(self, run_id: RunId, step: str, item: int | None, attempt: int) -> int | None:
        """The number of the entry of the history that began an attempt."""
        wanted_item = NO_ITEM if item is None else item
        parameters = {"wanted_id": run_id, "step": step, "item": wanted_item, "attempt": attempt}
        return await self._database.read(lambda connection: connection.execute(_BEGINNING, parameters).scalar_one())


def insert_run(connection: Connection, change: RunChange, lease_s: float | None, under: Run | None = None) -> bool:
    """Add a run inside a ``write_beginning``; see ``RunStore.insert``."""
    if under is not None:
        if connection.execute(run_slots.HELD, run_slots.held(under)).first() is None:
            return False
        there = connection.execute(_FIND, {"wanted_id": change.run.run_id}).one_or_none()
        if there is not None:
            return (there.fence, there.lease_owner) == (change.run.fence, change.run.lease_owner)
    row = run_row_of(change.run)
    if lease_s is not None:
        row["lease_until"] = database_now(connection, change.run.created_at) + timedelta(seconds=lease_s)
    _INSERT.run(connection, row)
    _write_parts(connection, change)
    return True


def _apply(connection: Connection, change: RunChange) -> bool:
    run = run_row_of(change.run)
    parameters = {f"new_{name}": run[name] for name in _CHANGING}
    parameters |= {"wanted_id": run["run_id"], "held_fence": run["fence"], "held_by": run["lease_owner"]}
    if not changed(connection.execute(_APPLY, parameters)):
        return False
    _write_parts(connection, change)
    if change.signals:
        connection.execute(_FORGET_SIGNALS, [{"signal": signal_id} for signal_id in change.signals])
    if not change.run.is_live:
        connection.execute(_FORGET_ALL_SIGNALS, {"wanted_id": change.run.run_id})
    if change.signals or not change.run.is_live:
        publish(connection, RunNote(NoteKind.CHANGED, change.run.run_id))
    if not change.run.is_live and change.run.trigger_type is TriggerType.SCHEDULE:
        publish(connection, RunNote(NoteKind.SCHEDULES))
    return True


def _reopen(connection: Connection, change: RunChange, lease_s: float) -> bool:
    if not hold_workflow(connection, change.run.workflow_id):
        return False
    run = run_row_of(change.run)
    until = database_now(connection, change.history[0].at) + timedelta(seconds=lease_s)
    parameters = {f"new_{name}": run[name] for name in _CHANGING}
    parameters |= {"wanted_id": run["run_id"], "fence_before": run["fence"] - 1}
    parameters |= {"owner": run["lease_owner"], "until": until}
    if not changed(connection.execute(_REOPEN, parameters)):
        return False
    forget_size(connection, change.run.run_id)
    _write_parts(connection, change)
    return True


def _write_parts(connection: Connection, change: RunChange) -> None:
    for step in change.steps:
        _PUT_STEP.run(connection, step_row_of(step))
    for event in change.history:
        _ADD_EVENT.run(connection, {field.name: getattr(event, field.name) for field in fields(event)})
    add_artifacts(connection, change.artifacts)
    if not change.run.is_live:
        note_size(connection, change.run.run_id)


def _claim(connection: Connection, wanted: dict[str, Any], owner: str, until: datetime) -> Sequence[Run]:
    rows = connection.execute(_FREE, wanted).all()
    if rows:
        taken = [{"wanted_id": row.run_id, "owner": owner, "until": until} for row in rows]
        connection.execute(_TAKE, taken)
    return [parse_run(row, fence=row.fence + 1, lease_owner=owner, lease_until=until) for row in rows]
