"""The steps of a run with as much of their output as one answer may hold."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.ids import RunId
from sandgate.core.run import StepKey
from sandgate.store import heavy_rows
from sandgate.store.base import ShownSteps
from sandgate.store.run_rows import NO_ITEM, parse_step
from sandgate.store.schema import run_steps

_OUTPUT = ("stdout", "stderr", "outputs", "error")
# Of what is left out, the error is still told when it is short.
_SHORT_ERROR = 2048

_columns = run_steps.c
_is_of_run = _columns.run_id == sa.bindparam("wanted_id")
# An item's outputs are told with the item and in the list that its step has.
_SIZE = (
    sa.func.length(_columns.stdout)
    + sa.func.length(_columns.stderr)
    + 2 * sa.func.coalesce(sa.func.length(_columns.outputs), 0)
    + sa.func.coalesce(sa.func.length(_columns.error), 0)
)
_KEY = (_columns.step, _columns.item)


def _steps(is_shown: sa.ColumnElement[bool]) -> Select[Any]:
    """The rows; ``stdout`` is NULL, as it never is otherwise, where the output is left out."""
    shown = dict.fromkeys(_OUTPUT, is_shown)
    shown["error"] = sa.or_(is_shown, sa.func.length(_columns.error) <= _SHORT_ERROR)
    columns = [
        sa.case((shown[column.name], column)).label(column.name) if column.name in shown else column
        for column in run_steps.columns
    ]
    return sa.select(*columns).where(_is_of_run).order_by(*_KEY)


_TOTAL = sa.select(sa.func.coalesce(sa.func.sum(_SIZE), 0)).where(_is_of_run).scalar_subquery()
_ALL_OR_NONE = _steps(sa.bindparam("most", type_=sa.BigInteger) >= _TOTAL)
_SIZES: Select[Any] = sa.select(*_KEY, _SIZE.label("size_bytes")).where(_is_of_run).order_by(_SIZE, *_KEY)
_UP_TO = _steps(
    sa.tuple_(_SIZE, *_KEY)
    <= sa.tuple_(
        sa.bindparam("last_size", type_=sa.BigInteger),
        sa.bindparam("last_step", type_=_columns.step.type),
        sa.bindparam("last_item", type_=sa.BigInteger),
    )
)


def show_steps(connection: Connection, run_id: RunId) -> ShownSteps:
    """See ``RunStore.show_steps``. One statement, unless there is more output than fits."""
    wanted = {"wanted_id": run_id}
    rows = connection.execute(_ALL_OR_NONE, wanted | {"most": heavy_rows.MOST_BYTES}).all()
    if any(row.stdout is None for row in rows):
        sizes = connection.execute(_SIZES, wanted).all()
        rows = connection.execute(_UP_TO, wanted | _last_that_fits(sizes)).all()
    omitted = frozenset(_key_of(row) for row in rows if row.stdout is None)
    steps = [parse_step(row) for row in rows]
    if omitted:
        steps = [replace(step, stdout="", stderr="") if step.key in omitted else step for step in steps]
    return ShownSteps(steps, omitted)


def _key_of(row: Row[Any]) -> StepKey:
    return (row.step, None if row.item == NO_ITEM else row.item)


def _last_that_fits(sizes: Sequence[Row[Any]]) -> dict[str, Any]:
    """The largest row that is shown, of rows that begin with the smallest."""
    totals = itertools.accumulate(row.size_bytes for row in sizes)
    fitting = [row for row, total in zip(sizes, totals, strict=True) if total <= heavy_rows.MOST_BYTES]
    if not fitting:
        return {"last_size": -1, "last_step": "", "last_item": 0}
    return {"last_size": fitting[-1].size_bytes, "last_step": fitting[-1].step, "last_item": fitting[-1].item}
