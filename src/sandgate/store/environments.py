"""Rows of environments."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Executable, Row, Select

from sandgate.core.environment import Environment
from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import EnvironmentId, UserId
from sandgate.core.limits import Limits
from sandgate.core.page import Page, PageRequest
from sandgate.core.states import LIVE_ENVIRONMENT_STATUSES, EnvironmentStatus, Isolation, sources_of
from sandgate.store.base import EnvironmentFilter
from sandgate.store.database import Database
from sandgate.store.idempotency import keep_answer
from sandgate.store.schema import environments
from sandgate.store.statements import HotStatement, changed, insert, newest_first, page_of, page_parameters

_LIVE = sorted(LIVE_ENVIRONMENT_STATUSES)
_LIMITS = frozenset(field.name for field in fields(Limits))

_columns = environments.c
_is_this = _columns.environment_id == sa.bindparam("wanted_id")

_INSERT = HotStatement(insert(environments))
_FIND = sa.select(environments).where(_is_this)
# A live row is never a deleted one; saying so lets the partial indexes serve.
_is_live = sa.and_(_columns.status.in_(_LIVE), _columns.deleted_at.is_(None))
_LIST_LIVE = sa.select(environments).where(_is_live).order_by(_columns.environment_id)
_LIST_LIVE_ON = _LIST_LIVE.where(
    sa.or_(_columns.server_id == sa.bindparam("wanted_server"), _columns.server_id.is_(None))
)
_FAIL_ALL_OF = (
    sa.update(environments)
    .where(_is_live, _columns.server_id == sa.bindparam("wanted_server"))
    .values(
        status=EnvironmentStatus.FAILED,
        status_reason=sa.bindparam("reason"),
        ended_at=sa.bindparam("at", type_=_columns.ended_at.type),
    )
)
_COUNT_LIVE = sa.select(sa.func.count()).select_from(environments).where(_is_live)
_COUNT_LIVE_OF_OWNER = _COUNT_LIVE.where(_columns.owner_id == sa.bindparam("owner_id"))
_UPDATE_DETAILS = sa.update(environments).where(_is_this, _is_live)
_TRANSITION = sa.update(environments).where(_is_this, _columns.deleted_at.is_(None))


class SqlEnvironmentStore:
    """See :class:`sandgate.store.base.EnvironmentStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, environment: Environment, answer: KeptAnswer | None = None) -> None:
        """Add a row, and what is answered about it."""
        row = _row_of(environment)
        await self._database.write(lambda connection: _do_insert(connection, row, answer))

    async def find(self, environment_id: EnvironmentId) -> Environment | None:
        """The row, deleted or not."""
        row = await self._database.read(
            lambda connection: connection.execute(_FIND, {"wanted_id": environment_id}).one_or_none()
        )
        return None if row is None else _parse(row)

    async def list(self, wanted: EnvironmentFilter, page: PageRequest) -> Page[Environment]:
        """A page, newest first, in one statement: an environment that changes its status meanwhile shows once."""
        if wanted.statuses is not None and not wanted.statuses:
            return Page((), None)
        statement, parameters = _list_statement(wanted, page)
        rows = await self._database.read(lambda connection: connection.execute(statement, parameters).all())
        return page_of(rows, page, _parse)

    async def list_live(self, server_id: str | None = None) -> Sequence[Environment]:
        """All rows whose status is live, or those of one server, oldest first.

        Rows that name no server are every server's.
        """
        statement = _LIST_LIVE if server_id is None else _LIST_LIVE_ON
        parameters = {"wanted_server": server_id}
        rows = await self._database.read(lambda connection: connection.execute(statement, parameters).all())
        return [_parse(row) for row in rows]

    async def count_live(self, owner_id: UserId | None = None) -> int:
        """How many live environments the owner (None: everybody) has."""
        statement = _COUNT_LIVE if owner_id is None else _COUNT_LIVE_OF_OWNER
        parameters = {} if owner_id is None else {"owner_id": owner_id}
        return await self._database.read(lambda connection: connection.execute(statement, parameters).scalar_one())

    async def update_details(
        self,
        environment_id: EnvironmentId,
        *,
        name: str,
        metadata: dict[str, str],
        timeout_s: int,
        expires_at: datetime,
    ) -> bool:
        """Write what a PATCH may change; False when the row is no longer live."""
        values = {"name": name, "metadata": metadata, "timeout_s": timeout_s, "expires_at": expires_at}
        parameters = {"wanted_id": environment_id, **values}
        return await self._database.write(
            lambda connection: changed(connection.execute(_UPDATE_DETAILS, parameters)), repeatable=True
        )

    async def transition(
        self,
        environment_id: EnvironmentId,
        target: EnvironmentStatus,
        *,
        expected: Collection[EnvironmentStatus],
        at: datetime,
        reason: str | None = None,
        deleted: bool = False,
    ) -> bool:
        """Compare and set: False, and nothing written, unless the status is in ``expected`` and may go to ``target``.

        What has ended before keeps its ``ended_at``, what is deleted without a reason its reason, and what was
        deleted before stays as it is. Raises ``ValueError`` for a deleted environment that lives.
        """
        if deleted and target in LIVE_ENVIRONMENT_STATUSES:
            raise ValueError(f"An environment that is {target} cannot be deleted at the same time: {environment_id}.")
        allowed = sorted(sources_of(target).intersection(expected))
        if not allowed:
            return False
        statement = _transition_statement(
            len(allowed),
            ends=target not in LIVE_ENVIRONMENT_STATUSES,
            deleted=deleted,
            keeps_reason=deleted and reason is None,
        )
        parameters: dict[str, Any] = {"wanted_id": environment_id, "target": target, "reason": reason, "at": at}
        parameters |= {f"allowed_{number}": status for number, status in enumerate(allowed)}
        return await self._database.write(lambda connection: statement.run(connection, parameters) > 0)


@lru_cache
def _transition_statement(allowed: int, *, ends: bool, deleted: bool, keeps_reason: bool) -> HotStatement:
    """From one of so many statuses."""
    at = sa.bindparam("at", type_=_columns.ended_at.type)
    values: dict[str, Any] = {"status": sa.bindparam("target")}
    if not keeps_reason:
        values["status_reason"] = sa.bindparam("reason")
    if ends:
        values["ended_at"] = sa.func.coalesce(_columns.ended_at, at)
    if deleted:
        values["deleted_at"] = at
    sources = (_columns.status == sa.bindparam(f"allowed_{number}") for number in range(allowed))
    return HotStatement(_TRANSITION.where(sa.or_(*sources)).values(values))


def _list_statement(wanted: EnvironmentFilter, page: PageRequest) -> tuple[Executable, dict[str, Any]]:
    equal = {"owner_id": wanted.owner_id, "template": wanted.template, "name": wanted.name}
    parameters = {name: value for name, value in equal.items() if value is not None}
    statuses = sorted(wanted.statuses or ())
    shape = (tuple(parameters), len(statuses), page.before_id is not None)
    parameters |= {f"status_{number}": status for number, status in enumerate(statuses)}
    return _statement_of_shape(*shape), parameters | page_parameters(page)


@lru_cache(maxsize=256)
def _statement_of_shape(equal: tuple[str, ...], statuses: int, has_before: bool) -> Executable:
    """A page for each status, merged: an index serves each, whereas a list of statuses would read all of them."""
    page = PageRequest(before_id="" if has_before else None)
    base = sa.select(environments).where(_columns.deleted_at.is_(None))
    for name in equal:
        base = base.where(_columns[name] == sa.bindparam(name))
    if statuses == 0:
        return newest_first(base, _columns.environment_id, page)
    parts = [
        newest_first(base.where(_columns.status == sa.bindparam(f"status_{number}")), _columns.environment_id, page)
        for number in range(statuses)
    ]
    return _merge(parts)


def _merge(parts: list[Select[Any]]) -> Executable:
    if len(parts) == 1:
        return parts[0]
    merged = sa.union_all(*(sa.select(part.subquery()) for part in parts))
    return merged.order_by(merged.selected_columns.environment_id.desc()).limit(sa.bindparam("most"))


def fail_all_of(connection: Connection, server_id: str, at: datetime, reason: str) -> int:
    """Inside a transaction: a server is gone, and all that was on it; answers how many were."""
    return connection.execute(_FAIL_ALL_OF, {"wanted_server": server_id, "at": at, "reason": reason}).rowcount


def _do_insert(connection: Connection, row: dict[str, Any], answer: KeptAnswer | None) -> None:
    _INSERT.run(connection, row)
    keep_answer(connection, answer)


def _row_of(environment: Environment) -> dict[str, Any]:
    row = {field.name: getattr(environment, field.name) for field in fields(environment)}
    row["limits"] = asdict(environment.limits)
    return row


def _parse(row: Row[Any]) -> Environment:
    values = dict(row._mapping)
    values["isolation"] = Isolation(values["isolation"])
    values["status"] = EnvironmentStatus(values["status"])
    # A row may have been written by a version that knew other limits.
    values["limits"] = Limits(**{name: value for name, value in values["limits"].items() if name in _LIMITS})
    return Environment(**values)
