"""Rows of schedules. ``fire`` is what makes one tick one run, whoever else tries the same."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import RunId, ScheduleId, UserId, WorkflowId
from sandgate.core.page import Page, PageRequest
from sandgate.core.trigger import CatchUp, Overlap, Policy, Schedule, SkipReason, TickError, Timing
from sandgate.store.base import NoteKind, RunChange, RunNote
from sandgate.store.database import Database
from sandgate.store.heavy_rows import HeavyTable
from sandgate.store.idempotency import keep_answer
from sandgate.store.notes import publish
from sandgate.store.runs import insert_run
from sandgate.store.schema import runs
from sandgate.store.statements import changed, newest_first, page_parameters
from sandgate.store.trigger_schema import schedules
from sandgate.store.triggers import has_room
from sandgate.store.versions import write_beginning

_HEAVY = HeavyTable(schedules, "inputs", "queue", "last_error")

_columns = schedules.c
_is_this = _columns.schedule_id == sa.bindparam("wanted_id")
# What never changes.
_FIXED = ("schedule_id", "workflow_id", "owner_id", "created_at")
_TIMES = ("anchor_at", "start_at", "end_at")

_INSERT = sa.insert(schedules)
_FIND = sa.select(schedules).where(_is_this)
_REPLACE = (
    sa.update(schedules)
    .where(_is_this, _columns.revision == sa.bindparam("held_revision"))
    .values({c.name: sa.bindparam(f"new_{c.name}", type_=c.type) for c in schedules.columns if c.name not in _FIXED})
)
_DELETE = sa.delete(schedules).where(_is_this)
_now = sa.bindparam("now", type_=_columns.due_at.type)
_DUE = sa.select(schedules).where(_columns.due_at <= _now).order_by(_columns.due_at).limit(sa.bindparam("most"))
_WAITING = sa.select(schedules).where(_columns.waiting > 0).order_by(_columns.schedule_id).limit(sa.bindparam("most"))
_NEXT: Select[Any] = sa.select(sa.func.min(_columns.due_at)).where(_columns.due_at > _now)
_LIVE_RUNS: Select[Any] = (
    sa.select(runs.c.run_id)
    .where(runs.c.trigger_id == sa.bindparam("wanted_id"), runs.c.finished_at.is_(None))
    .order_by(runs.c.run_id)
)


class SqlScheduleStore:
    """See :class:`sandgate.store.base.ScheduleStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, schedule: Schedule, most: int, answer: KeptAnswer | None = None) -> bool | None:
        """Add a row, and what is answered about it.

        None when its workflow has been deleted; False when its owner has ``most`` or more; nothing is written then.
        """

        def work(connection: Connection) -> bool | None:
            room = has_room(connection, schedules, schedule.workflow_id, schedule.owner_id, most)
            if not room:
                return room
            connection.execute(_INSERT, _row_of(schedule))
            keep_answer(connection, answer)
            publish(connection, RunNote(NoteKind.SCHEDULES))
            return True

        return await self._database.write(work)

    async def find(self, schedule_id: ScheduleId) -> Schedule | None:
        """The row."""
        parameters = {"wanted_id": schedule_id}
        row = await self._database.read(lambda connection: connection.execute(_FIND, parameters).one_or_none())
        return None if row is None else _parse(row)

    async def list(self, owner_id: UserId | None, workflow_id: WorkflowId | None, page: PageRequest) -> Page[Schedule]:
        """A page, newest first; None means any.

        It ends early, and says where to go on, when it holds ``heavy_rows.MOST_BYTES``.
        """
        given = {"owner_id": owner_id, "workflow_id": workflow_id}
        parameters: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        statement = _list_statement(tuple(parameters), page.before_id is not None)
        parameters |= page_parameters(page)
        return await self._database.read(
            lambda connection: _HEAVY.read_page(connection, statement, parameters, page, _parse)
        )

    async def list_due(self, now: datetime, most: int) -> Sequence[Schedule]:
        """Schedules that are due, the longest due first, and then those with ticks that wait."""

        def work(connection: Connection) -> Sequence[Row[Any]]:
            due = connection.execute(_DUE, {"now": now, "most": most}).all()
            return [*due, *connection.execute(_WAITING, {"most": most}).all()]

        found = map(_parse, await self._database.read(work))
        return list({schedule.schedule_id: schedule for schedule in found}.values())

    async def find_next_due(self, now: datetime) -> datetime | None:
        """When the next one is due that is not due yet."""
        return await self._database.read(
            lambda connection: connection.execute(_NEXT, {"now": now}).scalar_one_or_none()
        )

    async def replace(self, before: Schedule, after: Schedule) -> Schedule | None:
        """Write ``after`` with the next revision, and answer that; None, and nothing written, unless the row still has
        the revision of ``before``.
        """
        following = replace(after, revision=before.revision + 1)

        def work(connection: Connection) -> Schedule | None:
            if not _replace(connection, before, following):
                return None
            publish(connection, RunNote(NoteKind.SCHEDULES))
            return following

        return await self._database.write(work)

    async def fire(
        self,
        before: Schedule,
        after: Schedule,
        change: RunChange,
        lease_s: float | None = None,
        answer: KeptAnswer | None = None,
    ) -> bool:
        """Write ``after`` as ``replace`` does, and add a run as ``RunStore.insert`` does, both or neither.

        False when one of them cannot be. Raises ``VersionGone``.
        """
        following = replace(after, revision=before.revision + 1)

        def work(connection: Connection) -> bool:
            # Behind the workflow, as when that is deleted, so that neither waits for the other for ever.
            if not (_replace(connection, before, following) and insert_run(connection, change, lease_s)):
                return False
            keep_answer(connection, answer)
            return True

        return await write_beginning(self._database, change.run, work, False)

    async def list_live_runs(self, schedule_id: ScheduleId) -> Sequence[RunId]:
        """The runs that it started and that have not ended."""
        parameters = {"wanted_id": schedule_id}
        rows = await self._database.read(lambda connection: connection.execute(_LIVE_RUNS, parameters).all())
        return [RunId(row.run_id) for row in rows]

    async def delete(self, schedule_id: ScheduleId) -> bool:
        """Remove the row; False when there was none."""
        return await self._database.write(
            lambda connection: changed(connection.execute(_DELETE, {"wanted_id": schedule_id}))
        )


@lru_cache
def _list_statement(equal: tuple[str, ...], has_before: bool) -> Select[Any]:
    base = _HEAVY.light
    for name in equal:
        base = base.where(_columns[name] == sa.bindparam(name))
    return newest_first(base, _columns.schedule_id, PageRequest(before_id="" if has_before else None))


def _replace(connection: Connection, before: Schedule, after: Schedule) -> bool:
    parameters = {f"new_{name}": value for name, value in _row_of(after).items() if name not in _FIXED}
    parameters |= {"wanted_id": before.schedule_id, "held_revision": before.revision}
    return changed(connection.execute(_REPLACE, parameters))


def _row_of(schedule: Schedule) -> dict[str, Any]:
    row = {field.name: getattr(schedule, field.name) for field in fields(schedule)}
    row["waiting"] = len(schedule.queue)
    row["queue"] = [tick.isoformat() for tick in schedule.queue]
    row["timing"] = _with_times(asdict(schedule.timing), _TIMES)
    row["policy"] = asdict(schedule.policy)
    row["last_error"] = None if schedule.last_error is None else _with_times(asdict(schedule.last_error), ("at",))
    return row


def _with_times(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return values | {name: values[name].isoformat() for name in names if values[name] is not None}


def _times_of(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: datetime.fromisoformat(values[name]) for name in names if values[name] is not None}


def _parse(row: Row[Any]) -> Schedule:
    values = dict(row._mapping)
    del values["waiting"]
    timing, policy, error, reason = (values[name] for name in ("timing", "policy", "last_error", "last_skip_reason"))
    values["queue"] = tuple(map(datetime.fromisoformat, values["queue"]))
    values["timing"] = Timing(**timing | _times_of(timing, _TIMES))
    words = {"catch_up": CatchUp(policy["catch_up"]), "overlap": Overlap(policy["overlap"])}
    values["policy"] = Policy(**policy | words)
    values["last_error"] = None if error is None else TickError(**error | _times_of(error, ("at",)))
    values["last_skip_reason"] = None if reason is None else SkipReason(reason)
    return Schedule(**values)
