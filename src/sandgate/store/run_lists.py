"""Lists of runs: each combination of filters is a statement of its own, with an index that serves it."""

from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Executable

from sandgate.core.ids import first_id_at
from sandgate.core.page import PageRequest
from sandgate.store.base import RunFilter
from sandgate.store.heavy_rows import HeavyTable
from sandgate.store.schema import runs
from sandgate.store.statements import newest_first, page_parameters

HEAVY = HeavyTable(runs, "inputs", "outputs")

_columns = runs.c
# Identifiers are made when rows are, but by a clock of their own.
_ID_SLACK = timedelta(hours=1)


def run_list(wanted: RunFilter, page: PageRequest) -> tuple[Executable, dict[str, Any]]:
    """The statement of a page, newest first, and its parameters."""
    parameters = _list_parameters(wanted)
    statuses = sorted(wanted.statuses or ())
    statement = _list_statement(tuple(parameters), len(statuses), page.before_id is not None)
    parameters |= {f"status_{number}": status for number, status in enumerate(statuses)}
    return statement, parameters | page_parameters(page)


def _list_parameters(wanted: RunFilter) -> dict[str, Any]:
    """What a list is narrowed by; the bounds of identifiers spare reading all that is newer, or older."""
    given: dict[str, Any] = {
        "owner_id": wanted.owner_id,
        "workflow_id": wanted.workflow_id,
        "workflow_name": wanted.workflow_name,
        "created_after": wanted.created_after,
        "created_before": wanted.created_before,
    }
    if wanted.created_after is not None:
        given["first_id"] = first_id_at("run", wanted.created_after - _ID_SLACK)
    if wanted.created_before is not None:
        given["last_id"] = first_id_at("run", wanted.created_before + _ID_SLACK)
    return {key: value for key, value in given.items() if value is not None}


_CONDITIONS: Mapping[str, sa.ColumnElement[bool]] = {
    "created_after": _columns.created_at >= sa.bindparam("created_after", type_=_columns.created_at.type),
    "created_before": _columns.created_at < sa.bindparam("created_before", type_=_columns.created_at.type),
    "first_id": _columns.run_id >= sa.bindparam("first_id"),
    "last_id": _columns.run_id < sa.bindparam("last_id"),
}


@lru_cache(maxsize=256)
def _list_statement(given: tuple[str, ...], statuses: int, has_before: bool) -> Executable:
    """A page for each status, merged: an index serves each, whereas a list of statuses would read all of them."""
    page = PageRequest(before_id="" if has_before else None)
    base = HEAVY.light
    for name in given:
        condition = _CONDITIONS.get(name)
        base = base.where(_columns[name] == sa.bindparam(name) if condition is None else condition)
    if statuses == 0:
        return newest_first(base, _columns.run_id, page)
    parts = [
        newest_first(base.where(_columns.status == sa.bindparam(f"status_{number}")), _columns.run_id, page)
        for number in range(statuses)
    ]
    if statuses == 1:
        return parts[0]
    merged = sa.union_all(*(sa.select(part.subquery()) for part in parts))
    return merged.order_by(merged.selected_columns.run_id.desc()).limit(sa.bindparam("most"))
