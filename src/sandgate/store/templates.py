"""Rows of built templates."""

from collections.abc import Collection, Sequence, Set
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.built import BuiltTemplate, LayerSize, Root
from sandgate.core.errors import UserNotFound
from sandgate.core.ids import TemplateId, UserId
from sandgate.core.recipe import Recipe
from sandgate.core.states import TemplateStatus
from sandgate.store.base import TemplateRefusal
from sandgate.store.database import Database
from sandgate.store.owners import hold_owner
from sandgate.store.schema import runs, servers
from sandgate.store.statements import changed, is_one_of, padded, upsert
from sandgate.store.template_schema import built_templates, template_names

_columns, _names = built_templates.c, template_names.c
_is_this = _columns.template_id == sa.bindparam("wanted_id")

_COUNT: Select[Any] = sa.select(sa.func.count()).where(_columns.owner_id == sa.bindparam("wanted_owner"))
# What a server was at that has ended, or was buried, is built no more, whatever its row says until that starts anew.
_COUNT_BUILDS = _COUNT.where(
    _columns.status == TemplateStatus.BUILDING,
    sa.or_(
        _columns.server_id == sa.bindparam("own_server"),
        sa.exists().where(servers.c.server_id == _columns.server_id),
    ),
)
_LAST_VERSION: Select[Any] = sa.select(_names.version).where(
    _names.owner_id == sa.bindparam("wanted_owner"), _names.name == sa.bindparam("wanted_name")
)
_NOTE_VERSION = upsert(template_names, "(owner_id, name) DO UPDATE SET version = excluded.version")
_INSERT = sa.insert(built_templates)
_FINISH = (
    sa.update(built_templates)
    .where(_is_this, is_one_of(_columns.status, "expected"))
    .values(
        {
            column.name: sa.bindparam(f"new_{column.name}", type_=column.type)
            for column in (
                _columns.status, _columns.status_reason, _columns.finished_at, _columns.files, _columns.size_bytes,
                _columns.lock, _columns.root,
            )
        }
    )
)  # fmt: skip
_LIST = (
    sa.select(built_templates).where(_columns.server_id == sa.bindparam("wanted_server")).order_by(_columns.template_id)
)
_LIST_ALL_IDS = sa.select(_columns.template_id)
_LIST_IDS = _LIST_ALL_IDS.where(_columns.server_id == sa.bindparam("wanted_server"))
# The live rows have an index. To say whose is left to what reads them: all runs of an owner have one, too.
_LIVE_RUNS: Select[Any] = sa.select(runs.c.owner_id, runs.c.templates).where(
    runs.c.finished_at.is_(None), runs.c.templates.is_not(None)
)
_DELETE = sa.delete(built_templates).where(_is_this)


class SqlTemplateStore:
    """See :class:`sandgate.store.base.TemplateStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self, template: BuiltTemplate, most: int, most_builds: int | None = None
    ) -> BuiltTemplate | TemplateRefusal:
        """See ``TemplateStore``."""
        kept = await self._database.write(lambda connection: _insert(connection, template, most, most_builds))
        if kept is None:
            raise UserNotFound(f"There is no user {template.owner_id} to build a template for.")
        return kept

    async def finish(
        self,
        template_id: TemplateId,
        status: TemplateStatus,
        *,
        expected: Collection[TemplateStatus],
        at: datetime,
        reason: str | None = None,
        size: LayerSize | None = None,
        lock: str | None = None,
        root: Root | None = None,
    ) -> bool:
        """See ``TemplateStore``."""
        parameters = {
            "wanted_id": template_id,
            "expected": padded(expected),
            "new_status": status,
            "new_status_reason": reason,
            "new_finished_at": at,
            "new_files": None if size is None else size.files,
            "new_size_bytes": None if size is None else size.size_bytes,
            "new_lock": lock,
            "new_root": None if root is None else root.to_json(),
        }
        return await self._database.write(lambda connection: changed(connection.execute(_FINISH, parameters)))

    async def list(self, server_id: str) -> Sequence[BuiltTemplate]:
        """See ``TemplateStore``."""
        parameters = {"wanted_server": server_id}
        rows = await self._database.read(lambda connection: connection.execute(_LIST, parameters).all())
        return [_parse(row) for row in rows]

    async def list_ids(self, server_id: str | None) -> Set[TemplateId]:
        """See ``TemplateStore``."""
        statement = _LIST_ALL_IDS if server_id is None else _LIST_IDS
        parameters = {"wanted_server": server_id}
        rows = await self._database.read(lambda connection: connection.execute(statement, parameters).all())
        return frozenset(TemplateId(row.template_id) for row in rows)

    async def count_runs(self, reference: str, owner_id: UserId | None) -> int:
        """See ``TemplateStore``."""
        rows = await self._database.read(lambda connection: connection.execute(_LIVE_RUNS).all())
        return sum(owner_id in (None, row.owner_id) and reference in row.templates.values() for row in rows)

    async def delete(self, template_id: TemplateId) -> bool:
        """See ``TemplateStore``."""
        parameters = {"wanted_id": template_id}
        return await self._database.write(lambda connection: changed(connection.execute(_DELETE, parameters)))


def _insert(
    connection: Connection, template: BuiltTemplate, most: int, most_builds: int | None
) -> BuiltTemplate | TemplateRefusal | None:
    """The row; None when there is no such user."""
    wanted = {"wanted_owner": template.owner_id, "wanted_name": template.name}
    if not hold_owner(connection, template.owner_id):
        return None
    if connection.execute(_COUNT, wanted).scalar_one() >= most:
        return TemplateRefusal.TOO_MANY
    if most_builds is not None:
        builds = connection.execute(_COUNT_BUILDS, {**wanted, "own_server": template.server_id}).scalar_one()
        if builds >= most_builds:
            return TemplateRefusal.TOO_MANY_BUILDS
    last = connection.execute(_LAST_VERSION, wanted).scalar_one_or_none()
    kept = replace(template, version=(last or 0) + 1)
    names = {"owner_id": kept.owner_id, "name": kept.name, "version": kept.version}
    connection.execute(_NOTE_VERSION, names)
    values = {field.name: getattr(kept, field.name) for field in fields(kept)}
    root = None if kept.root is None else kept.root.to_json()
    connection.execute(_INSERT, {**values, "recipe": kept.recipe.to_json(), "root": root})
    return kept


def _parse(row: Row[Any]) -> BuiltTemplate:
    values = dict(row._mapping)
    return BuiltTemplate(
        **{
            **values,
            "template_id": TemplateId(values["template_id"]),
            "owner_id": UserId(values["owner_id"]),
            "status": TemplateStatus(values["status"]),
            "is_public": bool(values["is_public"]),
            "recipe": Recipe.from_json(values["recipe"]),
            "root": None if values["root"] is None else Root.from_json(values["root"]),
        }
    )
