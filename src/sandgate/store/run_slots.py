"""Turns of runs: which run of a group may start. One transaction looks and decides, so that no limit is exceeded."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from sandgate.core.run import Run
from sandgate.store.schema import runs
from sandgate.store.statements import changed

_columns = runs.c
_is_held = sa.and_(
    _columns.run_id == sa.bindparam("wanted_id"),
    _columns.finished_at.is_(None),
    _columns.fence == sa.bindparam("held_fence"),
    _columns.lease_owner == sa.bindparam("held_by"),
)
_has_entered = _columns.started_at.is_not(None)

HELD: Select[Any] = sa.select(_columns.started_at).where(_is_held).with_for_update()
# Counting rows of others needs them to stand still: whoever decides about a group does so alone.
# SQLite has one writer at a time anyway.
_LOCK_GROUP = sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(sa.bindparam("group"), 0)))
_AHEAD: Select[Any] = sa.select(sa.func.count()).where(
    _columns.owner_id == sa.bindparam("owner_id"),
    _columns.slot_group == sa.bindparam("slot_group"),
    _columns.finished_at.is_(None),
    sa.or_(_has_entered, _columns.run_id < sa.bindparam("wanted_id")),
)
_ENTER = (
    sa.update(runs)
    .where(_is_held, _columns.started_at.is_(None))
    .values(started_at=sa.bindparam("at", type_=_columns.started_at.type))
)


def held(run: Run) -> dict[str, Any]:
    """What tells that the run is still held as it says."""
    return {"wanted_id": run.run_id, "held_fence": run.fence, "held_by": run.lease_owner}


def enter(connection: Connection, run: Run, at: datetime) -> datetime | None:
    """Let a run in if its group has room for it and for all that wait before it; answers when it was let in."""
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_GROUP, {"group": f"{run.owner_id}\n{run.slot_group}"})
    row = connection.execute(HELD, held(run)).one_or_none()
    if row is None or row.started_at is not None:
        return None if row is None else row.started_at
    turn = {"owner_id": run.owner_id, "slot_group": run.slot_group, "wanted_id": run.run_id}
    ahead: int = connection.execute(_AHEAD, turn).scalar_one()
    if ahead >= (run.slot_limit or 1):
        return None
    return at if changed(connection.execute(_ENTER, {**held(run), "at": at})) else None
