"""How much is kept of runs that have ended, written when they end, and how an owner's oldest ones go."""

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from sandgate.core.ids import RunId, UserId
from sandgate.core.limits import MIB
from sandgate.store.excess import HAS_ENDED_SINCE, Excess
from sandgate.store.schema import run_history, run_sizes, run_steps, runs, superseded_versions

# What one transaction deletes.
_DELETED_BYTES = 32 * MIB
# Of a row without what is measured of it: identifiers, times, what indexes hold.
_ROW_BYTES = 128

_sizes = run_sizes.c


def _length(*columns: sa.Column[Any]) -> sa.ColumnElement[int]:
    """Of the columns as they are kept, in bytes: their text is ASCII."""
    lengths = [sa.func.coalesce(sa.func.length(column), 0) for column in columns]
    return sum(lengths[1:], lengths[0])


def _rows_of(table: sa.Table, *names: str) -> sa.ColumnElement[int]:
    """What the rows of a run in a table take."""
    size = sa.func.sum(_length(*(table.c[name] for name in names)) + _ROW_BYTES)
    measured: Select[Any] = sa.select(sa.func.coalesce(size, 0)).where(table.c.run_id == runs.c.run_id)
    return measured.scalar_subquery()


MEASURE: Select[Any] = sa.select(
    runs.c.run_id,
    runs.c.owner_id,
    (
        _ROW_BYTES
        + _length(runs.c.inputs, runs.c.outputs, runs.c.error)
        + _rows_of(run_steps, "stdout", "stderr", "outputs", "error")
        + _rows_of(run_history, "details")
    ).label("size_bytes"),
)
"""What is kept of each run."""

_NOTE = sa.insert(run_sizes).from_select(
    ["run_id", "owner_id", "size_bytes"], MEASURE.where(runs.c.run_id == sa.bindparam("wanted_id"))
)
_FORGET = sa.delete(run_sizes).where(_sizes.run_id == sa.bindparam("wanted_id"))

_EXCESS = Excess(
    sa.union_all(
        sa.select(_sizes.owner_id, _sizes.size_bytes),
        sa.select(superseded_versions.c.owner_id, superseded_versions.c.size_bytes),
    ).subquery(),
    sa.select(runs.c.owner_id).where(HAS_ENDED_SINCE),
)
_OLDEST: Select[Any] = (
    sa.select(_sizes.run_id, _sizes.size_bytes)
    .join(runs, runs.c.run_id == _sizes.run_id)
    .where(_sizes.owner_id == sa.bindparam("wanted_owner"), runs.c.finished_at.is_not(None))
    .order_by(_sizes.run_id)
    .limit(sa.bindparam("most"))
    # A run that is being opened again stays.
    .with_for_update(of=runs, skip_locked=True)
)


def note_size(connection: Connection, run_id: RunId) -> None:
    """Keep how much there is of a run that has just ended; what was kept of it before, by a write made twice, goes."""
    connection.execute(_FORGET, {"wanted_id": run_id})
    connection.execute(_NOTE, {"wanted_id": run_id})


def forget_size(connection: Connection, run_id: RunId) -> None:
    """The run goes on."""
    connection.execute(_FORGET, {"wanted_id": run_id})


def find_over(connection: Connection, most_bytes: int, since: datetime | None) -> Sequence[tuple[UserId, int]]:
    """See ``RetentionStore``."""
    return _EXCESS.find(connection, most_bytes, since)


def find_oldest(connection: Connection, owner_id: UserId, excess_bytes: int, most: int) -> Sequence[RunId]:
    """The oldest ended runs of an owner, locked: as many as make up for the excess, within what is deleted at once."""
    oldest = connection.execute(_OLDEST, {"wanted_owner": owner_id, "most": most}).all()
    enough = min(excess_bytes, _DELETED_BYTES)
    sizes_before = itertools.accumulate((row.size_bytes for row in oldest), initial=0)
    return [RunId(row.run_id) for row, before in zip(oldest, sizes_before, strict=False) if before < enough]
