"""Rows of workflows and their versions."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import UserId, WorkflowId
from sandgate.core.page import Page, PageRequest
from sandgate.core.workflow import Json, Workflow
from sandgate.store.database import Database
from sandgate.store.idempotency import keep_answer
from sandgate.store.schema import runs, workflow_versions, workflows
from sandgate.store.statements import changed, newest_first, page_of, page_parameters
from sandgate.store.triggers import delete_triggers

_columns = workflows.c
_is_this = _columns.workflow_id == sa.bindparam("wanted_id")
_is_there = _columns.deleted_at.is_(None)

_INSERT = sa.insert(workflows)
_INSERT_VERSION = sa.insert(workflow_versions)
_FIND = sa.select(workflows).where(_is_this, _is_there)
_LOCK: Select[Any] = sa.select(_columns.workflow_id).where(_is_this, _is_there).with_for_update()
_FIND_DEFINITION: Select[Any] = sa.select(workflow_versions.c.definition).where(
    workflow_versions.c.workflow_id == sa.bindparam("wanted_id"),
    workflow_versions.c.version == sa.bindparam("wanted_version"),
)
_REPLACE = (
    sa.update(workflows)
    .where(_is_this, _is_there, _columns.version == sa.bindparam("version_before"))
    .values(
        name=sa.bindparam("new_name"),
        version=sa.bindparam("new_version"),
        updated_at=sa.bindparam("new_updated_at", type_=_columns.updated_at.type),
        definition=sa.bindparam("new_definition", type_=_columns.definition.type),
    )
)
_DELETE = (
    sa.update(workflows)
    .where(_is_this, _is_there)
    .values(deleted_at=sa.bindparam("at", type_=_columns.deleted_at.type))
)
_ANY_LIVE: Select[Any] = (
    sa.select(runs.c.run_id)
    .where(runs.c.workflow_id == sa.bindparam("wanted_id"), runs.c.finished_at.is_(None))
    .limit(1)
)


class SqlWorkflowStore:
    """See :class:`sandgate.store.base.WorkflowStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, workflow: Workflow, answer: KeptAnswer | None = None) -> None:
        """Add a row, its first version, and what is answered about it."""
        row = {field.name: getattr(workflow, field.name) for field in fields(workflow)}

        def work(connection: Connection) -> None:
            connection.execute(_INSERT, row)
            _insert_version(connection, workflow)
            keep_answer(connection, answer)

        await self._database.write(work)

    async def find(self, workflow_id: WorkflowId) -> Workflow | None:
        """The row with its newest version, unless it was deleted."""
        parameters = {"wanted_id": workflow_id}
        row = await self._database.read(lambda connection: connection.execute(_FIND, parameters).one_or_none())
        return None if row is None else _parse(row)

    async def find_definition(self, workflow_id: WorkflowId, version: int) -> Mapping[str, Json] | None:
        """One version as the user wrote it, also of a workflow that was deleted."""
        parameters = {"wanted_id": workflow_id, "wanted_version": version}
        return await self._database.read(
            lambda connection: connection.execute(_FIND_DEFINITION, parameters).scalar_one_or_none()
        )

    async def list(self, owner_id: UserId | None, name: str | None, page: PageRequest) -> Page[Workflow]:
        """A page of the workflows of an owner (None: everybody's), newest first."""
        given = {"owner_id": owner_id, "name": name}
        parameters = {key: value for key, value in given.items() if value is not None}
        statement = _list_statement(tuple(parameters), page.before_id is not None)
        parameters |= page_parameters(page)
        rows = await self._database.read(lambda connection: connection.execute(statement, parameters).all())
        return page_of(rows, page, _parse)

    async def replace(self, workflow: Workflow) -> bool:
        """Write the next version; False, and nothing written, unless the row has the one before."""
        parameters = {
            "wanted_id": workflow.workflow_id,
            "version_before": workflow.version - 1,
            "new_name": workflow.name,
            "new_version": workflow.version,
            "new_updated_at": workflow.updated_at,
            "new_definition": workflow.definition,
        }

        def work(connection: Connection) -> bool:
            if not changed(connection.execute(_REPLACE, parameters)):
                return False
            _insert_version(connection, workflow)
            return True

        return await self._database.write(work)

    async def delete(self, workflow_id: WorkflowId, at: datetime, *, even_if_live: bool) -> bool | None:
        """Delete it. None when it is not there; False, and nothing written, when a run of it lives."""

        def work(connection: Connection) -> bool | None:
            # The lock keeps runs from being started between the look and the end.
            if connection.execute(_LOCK, {"wanted_id": workflow_id}).first() is None:
                return None
            if not even_if_live and connection.execute(_ANY_LIVE, {"wanted_id": workflow_id}).first() is not None:
                return False
            delete_triggers(connection, workflow_id)
            return changed(connection.execute(_DELETE, {"wanted_id": workflow_id, "at": at}))

        return await self._database.write(work)


@lru_cache
def _list_statement(equal: tuple[str, ...], has_before: bool) -> Select[Any]:
    base = sa.select(workflows).where(_is_there)
    for name in equal:
        base = base.where(_columns[name] == sa.bindparam(name))
    return newest_first(base, _columns.workflow_id, PageRequest(before_id="" if has_before else None))


def _insert_version(connection: Connection, workflow: Workflow) -> None:
    row = {
        "workflow_id": workflow.workflow_id,
        "version": workflow.version,
        "created_at": workflow.updated_at,
        "definition": workflow.definition,
    }
    connection.execute(_INSERT_VERSION, row)


def _parse(row: Row[Any]) -> Workflow:
    return Workflow(**row._mapping)
