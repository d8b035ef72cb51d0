"""Parts of the history of a run: of however many and however large entries, what one answer may hold."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.ids import RunId
from sandgate.core.run import HistoryEvent
from sandgate.store.heavy_rows import count_that_fit
from sandgate.store.schema import run_history

_columns = run_history.c
_is_of_run = _columns.run_id == sa.bindparam("wanted_id")
_is_from = _columns.number >= sa.bindparam("first")
_ALL = sa.select(run_history).where(_is_of_run, _is_from).order_by(_columns.number)
_SIZES: Select[Any] = (
    sa.select(_columns.number, sa.func.length(_columns.details).label("size_bytes"))
    .where(_is_of_run, _is_from)
    .order_by(_columns.number)
    .limit(sa.bindparam("most"))
)
_PART = _ALL.where(_columns.number <= sa.bindparam("last"))


def list_history(connection: Connection, run_id: RunId, first: int, most: int | None) -> Sequence[HistoryEvent]:
    """See ``RunStore.list_history``."""
    wanted = {"wanted_id": run_id, "first": first}
    if most is None:
        return _parse(connection.execute(_ALL, wanted).all())
    sizes = connection.execute(_SIZES, {**wanted, "most": most}).all()
    count = count_that_fit([row.size_bytes for row in sizes], most)
    if count == 0:
        return []
    return _parse(connection.execute(_PART, {**wanted, "last": sizes[count - 1].number}).all())


def _parse(rows: Sequence[Row[Any]]) -> Sequence[HistoryEvent]:
    return [HistoryEvent(**{**row._mapping, "run_id": RunId(row.run_id)}) for row in rows]
