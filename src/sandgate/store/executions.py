"""Rows of executions. ``finish`` is the hot path: every execution of the API ends in it."""

import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.execution import ErrorReport, Execution, Usage
from sandgate.core.ids import EnvironmentId, ExecutionId, UserId
from sandgate.core.limits import MIB
from sandgate.core.page import Page, PageRequest
from sandgate.core.states import ExecutionStatus
from sandgate.store.database import Database
from sandgate.store.heavy_rows import count_that_fit
from sandgate.store.schema import environments, executions
from sandgate.store.statements import HotStatement, is_one_of, newest_first, padded, page_parameters, upsert

_USAGE = tuple(field.name for field in fields(Usage))
_ERROR = tuple(field.name for field in fields(ErrorReport))

_columns = executions.c
# A literal, so that the partial index of running rows serves.
_is_running = _columns.status == sa.literal_column(f"'{ExecutionStatus.RUNNING}'")

# All that an end may change; the rest was written when it started.
_END = [
    "status",
    "finished_at",
    "duration_ms",
    "exit_code",
    "stdout_truncated",
    "stderr_truncated",
    "usage",
    "error",
    "stdout",
    "stderr",
    "results",
]

_INSERT_RUNNING = HotStatement(upsert(executions, "(execution_id) DO NOTHING"))
_FINISH = HotStatement(
    upsert(
        executions,
        f"(execution_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _END)} "
        f"WHERE executions.status = '{ExecutionStatus.RUNNING}'",
    )
)
_SIZE = (
    sa.func.length(_columns.stdout)
    + sa.func.length(_columns.stderr)
    + sa.func.coalesce(sa.func.length(sa.cast(_columns.results, sa.Text)), 0)
)
_FIND = sa.select(executions).where(_columns.execution_id == sa.bindparam("wanted_id"))
_is_of_environment = _columns.environment_id == sa.bindparam("environment_id")
_SIZES: Select[Any] = sa.select(_columns.execution_id, _SIZE.label("size")).where(_is_of_environment)
_LIST_SIZES = newest_first(_SIZES, _columns.execution_id, PageRequest())
_LIST_SIZES_BEFORE = newest_first(_SIZES, _columns.execution_id, PageRequest(before_id=""))
_is_between = sa.and_(_columns.execution_id >= sa.bindparam("oldest"), _columns.execution_id <= sa.bindparam("newest"))
_LIST = sa.select(executions).where(_is_of_environment, _is_between).order_by(_columns.execution_id.desc())
_RUNNING: Select[Any] = sa.select(_columns.execution_id, _columns.started_at).where(_is_running).with_for_update()
# Asked of each of the few that run, rather than of all environments which of them are the server's.
_RUNNING_ON = _RUNNING.where(
    sa.exists().where(
        environments.c.environment_id == _columns.environment_id,
        sa.or_(environments.c.server_id == sa.bindparam("wanted_server"), environments.c.server_id.is_(None)),
    )
)
_LOSE = (
    sa.update(executions)
    .where(_columns.execution_id == sa.bindparam("wanted_id"), _is_running)
    .values(status=ExecutionStatus.LOST, finished_at=sa.bindparam("at"), duration_ms=sa.bindparam("duration"))
)
_PRUNE = sa.delete(executions).where(
    _columns.execution_id.in_(
        sa.select(_columns.execution_id)
        .where(_columns.finished_at < sa.bindparam("finished_before"))
        .order_by(_columns.finished_at)
        .limit(sa.bindparam("most"))
    )
)

_most_bytes = sa.bindparam("most_bytes", type_=sa.BigInteger)


def _over(*conditions: sa.ColumnElement[bool]) -> Select[Any]:
    """Who has more than so much, and how much more."""
    # By itself: SQLite sorts what it groups, and would sort the outputs along to measure them afterwards, 20 MB at a
    # time.
    each = sa.select(_columns.owner_id, _SIZE.label("size")).where(*conditions)
    sizes = each.cte("sizes").prefix_with("MATERIALIZED")
    output_bytes = sa.func.sum(sizes.c.size)
    return (
        sa.select(sizes.c.owner_id, (output_bytes - _most_bytes).label("excess_bytes"))
        .group_by(sizes.c.owner_id)
        .having(output_bytes > _most_bytes)
    )


_OVER = _over()
_OVER_OF_SOME = _over(is_one_of(_columns.owner_id, "wanted_owners"))
_OLDEST: Select[Any] = (
    sa.select(_columns.execution_id, _SIZE.label("size"))
    .where(_columns.owner_id == sa.bindparam("wanted_owner"), _columns.finished_at.is_not(None), _SIZE > 0)
    .order_by(_columns.execution_id)
    .limit(sa.bindparam("most"))
)
_DELETE = sa.delete(executions).where(is_one_of(_columns.execution_id, "wanted_ids"))
# A look at the rows of an owner is worth it when so much of what one may keep was written since the last one. No index
# leads to them, which each end of an execution would have to write: so it is rare, and passes others' rows by.
_LOOK_EVERY = 8
# What one transaction deletes.
_DELETED_BYTES = 32 * MIB


class SqlExecutionStore:
    """See :class:`sandgate.store.base.ExecutionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # By owner, since they were last looked at; None until all have been once.
        self._written_bytes: Counter[UserId] | None = None

    async def insert_running(self, execution: Execution) -> None:
        """Add the row of an execution that has run for long enough to be worth one. No-op if it exists."""
        row = _row_of(execution)
        await self._database.write(lambda connection: _INSERT_RUNNING.run(connection, row), repeatable=True)

    async def finish(self, execution: Execution) -> None:
        """Write how it ended, whether or not there is a row yet. A row that has ended already is kept.

        Raises ``ValueError`` for an execution that has not ended.
        """
        if execution.status is ExecutionStatus.RUNNING or execution.finished_at is None:
            raise ValueError(f"{execution.execution_id} has not ended: {execution.status}, {execution.finished_at}.")
        row = _row_of(execution)
        if self._written_bytes is not None:
            self._written_bytes[execution.owner_id] += _written_by(execution)
        await self._database.write(lambda connection: _FINISH.run(connection, row), repeatable=True)

    async def find(self, execution_id: ExecutionId) -> Execution | None:
        """The row."""
        row = await self._database.read(
            lambda connection: connection.execute(_FIND, {"wanted_id": execution_id}).one_or_none()
        )
        return None if row is None else _parse(row)

    async def list(self, environment_id: EnvironmentId, page: PageRequest) -> Page[Execution]:
        """A page of one environment's executions, newest first.

        A page ends early, and says where to go on, when it holds ``heavy_rows.MOST_BYTES`` of output.
        """
        rows, next_before_id = await self._database.read(lambda connection: _list(connection, environment_id, page))
        return Page(tuple(_parse(row) for row in rows), next_before_id)

    async def mark_lost(
        self, at: datetime, keep: Collection[ExecutionId] = (), *, server_id: str | None = None
    ) -> Sequence[ExecutionId]:
        """End every running row but those in ``keep`` as ``lost``, or those of one server; answers which."""
        kept = frozenset(keep)
        return await self._database.write(lambda connection: mark_lost(connection, at, kept, server_id=server_id))

    async def prune(self, finished_before: datetime, most: int) -> int:
        """Delete at most ``most`` rows that ended before; answers how many went."""
        parameters = {"finished_before": finished_before, "most": most}
        return await self._database.write(lambda connection: connection.execute(_PRUNE, parameters).rowcount)

    async def find_over(self, most_bytes: int) -> Sequence[tuple[UserId, int]]:
        """See ``ExecutionStore``. All rows are looked at once, and later those of whom enough was written since."""
        written, much = self._written_bytes, Counter[UserId]()
        if written is not None:
            much.update({owner_id: size for owner_id, size in written.items() if size >= most_bytes // _LOOK_EVERY})
            if not much:
                return []
        rows = await self._look(most_bytes, None if written is None else padded(much))
        over = [(UserId(row.owner_id), int(row.excess_bytes)) for row in rows]
        # What was written meanwhile is for the next look, and so is who has too much: it may not come to a deletion.
        left = (self._written_bytes or Counter()) - much
        self._written_bytes = left | Counter({owner_id: most_bytes for owner_id, _excess_bytes in over})
        return over

    async def _look(self, most_bytes: int, owners: Sequence[UserId] | None) -> Sequence[Row[Any]]:
        """None: at the rows of everybody, and from now on it is counted what is written."""
        if owners is not None:
            some = {"most_bytes": most_bytes, "wanted_owners": owners}
            return await self._database.read(lambda connection: connection.execute(_OVER_OF_SOME, some).all())
        self._written_bytes = Counter()
        try:
            return await self._database.read(
                lambda connection: connection.execute(_OVER, {"most_bytes": most_bytes}).all()
            )
        except BaseException:
            self._written_bytes = None
            raise

    async def prune_oldest(self, owner_id: UserId, excess_bytes: int, most: int) -> int:
        """See ``ExecutionStore``."""
        parameters = {"wanted_owner": owner_id, "most": most}
        oldest = await self._database.read(lambda connection: connection.execute(_OLDEST, parameters).all())
        enough = min(excess_bytes, _DELETED_BYTES)
        sizes_before = itertools.accumulate((row.size for row in oldest), initial=0)
        gone = [row for row, before in zip(oldest, sizes_before, strict=False) if before < enough]
        if gone:
            wanted = {"wanted_ids": padded(row.execution_id for row in gone)}
            await self._database.write(lambda connection: connection.execute(_DELETE, wanted).rowcount)
        return sum(row.size for row in gone)


def _list(
    connection: Connection, environment_id: EnvironmentId, page: PageRequest
) -> tuple[Sequence[Row[Any]], str | None]:
    of_environment = {"environment_id": environment_id}
    statement = _LIST_SIZES if page.before_id is None else _LIST_SIZES_BEFORE
    sizes = connection.execute(statement, {**of_environment, **page_parameters(page)}).all()
    count = count_that_fit([row.size for row in sizes], page.limit)
    if count == 0:
        return [], None
    newest, oldest = sizes[0].execution_id, sizes[count - 1].execution_id
    rows = connection.execute(_LIST, {**of_environment, "newest": newest, "oldest": oldest}).all()
    return rows, oldest if count < len(sizes) else None


def mark_lost(
    connection: Connection, at: datetime, keep: frozenset[ExecutionId] = frozenset(), *, server_id: str | None = None
) -> list[ExecutionId]:
    """See ``SqlExecutionStore.mark_lost``, inside a transaction."""
    running = connection.execute(_RUNNING if server_id is None else _RUNNING_ON, {"wanted_server": server_id})
    lost = [row for row in running if row.execution_id not in keep]
    if lost:
        connection.execute(_LOSE, [_end_of(row, at) for row in lost])
    return [ExecutionId(row.execution_id) for row in lost]


def _end_of(row: Row[Any], at: datetime) -> dict[str, Any]:
    duration_ms = max(0, (at - row.started_at) // timedelta(milliseconds=1))
    return {"wanted_id": row.execution_id, "at": at, "duration": duration_ms}


def _row_of(execution: Execution) -> dict[str, Any]:
    return {
        "execution_id": execution.execution_id,
        "environment_id": execution.environment_id,
        "owner_id": execution.owner_id,
        "status": execution.status,
        "timeout_s": execution.timeout_s,
        "started_at": execution.started_at,
        "finished_at": execution.finished_at,
        "duration_ms": execution.duration_ms,
        "exit_code": execution.exit_code,
        "stdout_truncated": execution.stdout_truncated,
        "stderr_truncated": execution.stderr_truncated,
        "usage": None if execution.usage is None else _plain(execution.usage, _USAGE),
        "error": None if execution.error is None else _plain(execution.error, _ERROR),
        "stdout": execution.stdout,
        "stderr": execution.stderr,
        "session_id": execution.session_id,
        "results": _pack_results(execution),
    }


def _written_by(execution: Execution) -> int:
    """About what ``_SIZE`` will be."""
    shown = sum(len(str(value)) for bundle in execution.results or () for value in bundle.values())
    return len(execution.stdout) + len(execution.stderr) + shown


def _pack_results(execution: Execution) -> dict[str, Any] | None:
    if execution.results is None:
        return None
    return {"bundles": [dict(bundle) for bundle in execution.results], "truncated": execution.results_truncated}


def _plain(record: Usage | ErrorReport, names: tuple[str, ...]) -> dict[str, Any]:
    """What ``dataclasses.asdict`` answers for a flat record, ten times as fast."""
    return {name: getattr(record, name) for name in names}


def _parse(row: Row[Any]) -> Execution:
    values = dict(row._mapping)
    values["status"] = ExecutionStatus(values["status"])
    if values["usage"] is not None:
        values["usage"] = Usage(**values["usage"])
    if values["error"] is not None:
        values["error"] = ErrorReport(**values["error"])
    if values["results"] is not None:
        shown = values["results"]
        values |= {"results": tuple(shown["bundles"]), "results_truncated": shown["truncated"]}
    return Execution(**values)
