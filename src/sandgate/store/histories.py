"""Parts of the history of a run: of however many and however large entries, what one answer may hold."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from sandgate.core.ids import RunId
from sandgate.core.run import HistoryEvent
from sandgate.store import heavy_rows
from sandgate.store.schema import run_history

_columns = run_history.c
_is_of_run = _columns.run_id == sa.bindparam("wanted_id")
_most_bytes = sa.bindparam("most_bytes", type_=sa.BigInteger)
_is_from = _columns.number >= sa.bindparam("first")
_ALL = sa.select(run_history).where(_is_of_run, _is_from).order_by(_columns.number)
# Whatever its size.
_FIRST = _ALL.limit(1)
_sizes = (
    sa.select(_columns.number, sa.func.length(_columns.details).label("size_bytes"))
    .where(_is_of_run, _is_from)
    .order_by(_columns.number)
    .limit(sa.bindparam("most"))
    .subquery()
)
_sums = sa.select(
    _sizes.c.number,
    (sa.func.sum(_sizes.c.size_bytes).over(order_by=_sizes.c.number) - _sizes.c.size_bytes).label("before_bytes"),
).subquery()
# Up to the one that fills it, so that there is always one.
_LAST: Select[Any] = sa.select(sa.func.max(_sums.c.number)).where(_sums.c.before_bytes < _most_bytes)
_PART = _ALL.where(_columns.number <= _LAST.scalar_subquery())


def list_history(connection: Connection, run_id: RunId, first: int, most: int | None) -> Sequence[HistoryEvent]:
    """See ``RunStore.list_history``."""
    wanted = {"wanted_id": run_id, "first": first}
    if most is None:
        rows = connection.execute(_ALL, wanted)
    elif most == 1:
        rows = connection.execute(_FIRST, wanted)
    else:
        rows = connection.execute(_PART, {**wanted, "most": most, "most_bytes": heavy_rows.MOST_BYTES})
    return [HistoryEvent(**{**row._mapping, "run_id": RunId(row.run_id)}) for row in rows]
