"""Rows of snapshots."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.ids import SnapshotId, UserId
from sandgate.core.page import Page, PageRequest
from sandgate.core.snapshot import Snapshot, SnapshotUse
from sandgate.core.states import Isolation
from sandgate.store.database import Database
from sandgate.store.owners import hold_owner
from sandgate.store.snapshot_schema import snapshots
from sandgate.store.statements import changed, insert, is_one_of, newest_first, padded, page_of, page_parameters

_columns = snapshots.c
_is_this = _columns.snapshot_id == sa.bindparam("wanted_id")

_INSERT = insert(snapshots)
_FIND = sa.select(snapshots).where(_is_this)
_MEASURE: Select[Any] = sa.select(
    sa.func.count().label("found"), sa.func.coalesce(sa.func.sum(_columns.size_bytes), 0).label("size_bytes")
).where(_columns.owner_id == sa.bindparam("wanted_owner"))
_COUNT_ALL: Select[Any] = sa.select(sa.func.count()).where(
    _columns.template == sa.bindparam("wanted_template"), _columns.server_id == sa.bindparam("wanted_server")
)
_COUNT_OF_ONE = _COUNT_ALL.where(_columns.owner_id == sa.bindparam("wanted_owner"))
_DELETE = sa.delete(snapshots).where(_is_this)
_PRUNE = sa.delete(snapshots).where(
    _columns.snapshot_id.in_(
        sa.select(_columns.snapshot_id)
        .where(_columns.created_at < sa.bindparam("before", type_=_columns.created_at.type))
        .order_by(_columns.created_at)
        .limit(sa.bindparam("most"))
    )
)
_KNOWN: Select[Any] = sa.select(_columns.snapshot_id).where(is_one_of(_columns.snapshot_id, "wanted_ids"))


class SqlSnapshotStore:
    """See :class:`sandgate.store.base.SnapshotStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, snapshot: Snapshot, most: SnapshotUse) -> bool:
        """Add a row; False, with nothing written, when its owner would have more than ``most``, or is gone."""
        return await self._database.write(lambda connection: _do_insert(connection, snapshot, most))

    async def find(self, snapshot_id: SnapshotId) -> Snapshot | None:
        """The row."""
        row = await self._database.read(
            lambda connection: connection.execute(_FIND, {"wanted_id": snapshot_id}).one_or_none()
        )
        return None if row is None else _parse(row)

    async def list(
        self, owner_id: UserId | None, page: PageRequest, *, name: str | None = None, template: str | None = None
    ) -> Page[Snapshot]:
        """A page of one owner's (None: everybody's), newest first."""
        equal = {"owner_id": owner_id, "name": name, "template": template}
        parameters = {key: value for key, value in equal.items() if value is not None}
        statement = _list_statement(tuple(parameters), page.before_id is not None)
        parameters = {**parameters, **page_parameters(page)}
        rows = await self._database.read(lambda connection: connection.execute(statement, parameters).all())
        return page_of(rows, page, _parse)

    async def measure(self, owner_id: UserId) -> SnapshotUse:
        """How much a user has."""
        return await self._database.read(lambda connection: _measure(connection, owner_id))

    async def count_of(self, template: str, server_id: str, owner_id: UserId | None) -> int:
        """How many there are on a server of a template, of one owner (None: of everybody)."""
        parameters = {"wanted_template": template, "wanted_server": server_id, "wanted_owner": owner_id}
        statement = _COUNT_ALL if owner_id is None else _COUNT_OF_ONE
        return int(await self._database.read(lambda connection: connection.execute(statement, parameters).scalar_one()))

    async def delete(self, snapshot_id: SnapshotId) -> bool:
        """Remove the row; False when there is none."""
        return await self._database.write(
            lambda connection: changed(connection.execute(_DELETE, {"wanted_id": snapshot_id}))
        )

    async def prune(self, before: datetime, most: int) -> int:
        """Remove at most ``most`` rows that are older; how many went."""
        parameters = {"before": before, "most": most}
        return await self._database.write(lambda connection: connection.execute(_PRUNE, parameters).rowcount)

    async def find_orphans(self, snapshot_ids: Sequence[SnapshotId]) -> Sequence[SnapshotId]:
        """Those that are no snapshots of this database, in the same order."""
        parameters = {"wanted_ids": padded(snapshot_ids)}
        rows = await self._database.read(lambda connection: connection.execute(_KNOWN, parameters).all())
        known = {row.snapshot_id for row in rows}
        return [snapshot_id for snapshot_id in snapshot_ids if snapshot_id not in known]


def _do_insert(connection: Connection, snapshot: Snapshot, most: SnapshotUse) -> bool:
    if not hold_owner(connection, snapshot.owner_id):
        return False
    there = _measure(connection, snapshot.owner_id)
    if there.count >= most.count or there.size_bytes + snapshot.size_bytes > most.size_bytes:
        return False
    connection.execute(_INSERT, {field.name: getattr(snapshot, field.name) for field in fields(snapshot)})
    return True


def _measure(connection: Connection, owner_id: UserId) -> SnapshotUse:
    row = connection.execute(_MEASURE, {"wanted_owner": owner_id}).one()
    return SnapshotUse(int(row.found), int(row.size_bytes))


@lru_cache
def _list_statement(equal: tuple[str, ...], has_before: bool) -> Select[Any]:
    base = sa.select(snapshots)
    for name in equal:
        base = base.where(_columns[name] == sa.bindparam(name))
    return newest_first(base, _columns.snapshot_id, PageRequest(before_id="" if has_before else None))


def _parse(row: Row[Any]) -> Snapshot:
    values = dict(row._mapping)
    values["isolation"] = Isolation(values["isolation"])
    values["sha256"] = bytes(values["sha256"])
    return Snapshot(**values)
