"""Rows of workflows and their versions."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import RunId, UserId, WorkflowId
from sandgate.core.page import Page, PageRequest
from sandgate.core.run import RunSignal
from sandgate.core.workflow import Json, Workflow
from sandgate.store import versions
from sandgate.store.database import Database
from sandgate.store.heavy_rows import HeavyTable
from sandgate.store.idempotency import keep_answer
from sandgate.store.owners import hold_owner
from sandgate.store.schema import runs, workflows
from sandgate.store.signals import add_signals
from sandgate.store.statements import changed, newest_first, page_parameters
from sandgate.store.triggers import delete_triggers
from sandgate.store.versions import insert_version, supersede

# The answer has the steps by themselves, too.
_HEAVY = HeavyTable(workflows, "definition", times=2)

_columns = workflows.c
_is_this = _columns.workflow_id == sa.bindparam("wanted_id")
_is_there = _columns.deleted_at.is_(None)

_INSERT = sa.insert(workflows)
_COUNT: Select[Any] = sa.select(sa.func.count()).where(_columns.owner_id == sa.bindparam("wanted_owner"), _is_there)
_FIND = sa.select(workflows).where(_is_this, _is_there)
_LOCK: Select[Any] = sa.select(_columns.version).where(_is_this, _is_there).with_for_update()
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
_REMOVE = sa.delete(workflows).where(_is_this)
_ALL_LIVE: Select[Any] = sa.select(runs.c.run_id).where(
    runs.c.workflow_id == sa.bindparam("wanted_id"), runs.c.finished_at.is_(None)
)
_ANY_LIVE = _ALL_LIVE.limit(1)
# Locked, so that the end of a run, which deletes its signals, comes before or after.
_LIVE = _ALL_LIVE.order_by(runs.c.run_id).with_for_update(read=True)


class SqlWorkflowStore:
    """See :class:`sandgate.store.base.WorkflowStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, workflow: Workflow, answer: KeptAnswer | None = None, *, most: int | None = None) -> bool:
        """Add a row, its first version, and what is answered about it.

        False, and nothing written, when its owner has ``most`` or more.
        """
        row = {field.name: getattr(workflow, field.name) for field in fields(workflow)}

        def work(connection: Connection) -> bool:
            if most is not None and _count(connection, workflow.owner_id) >= most:
                return False
            connection.execute(_INSERT, row)
            insert_version(connection, workflow)
            keep_answer(connection, answer)
            return True

        return await self._database.write(work)

    async def find(self, workflow_id: WorkflowId) -> Workflow | None:
        """The row with its newest version, unless it was deleted."""
        parameters = {"wanted_id": workflow_id}
        row = await self._database.read(lambda connection: connection.execute(_FIND, parameters).one_or_none())
        return None if row is None else _parse(row)

    async def find_definition(self, workflow_id: WorkflowId, version: int) -> Mapping[str, Json] | None:
        """One version as the user wrote it, also of a workflow that was deleted."""
        parameters = {"wanted_id": workflow_id, "wanted_version": version}
        return await self._database.read(
            lambda connection: connection.execute(versions.FIND, parameters).scalar_one_or_none()
        )

    async def list(self, owner_id: UserId | None, name: str | None, page: PageRequest) -> Page[Workflow]:
        """A page of the workflows of an owner (None: everybody's), newest first.

        It ends early, and says where to go on, when what is answered of definitions has ``heavy_rows.MOST_BYTES``.
        """
        given = {"owner_id": owner_id, "name": name}
        parameters = {key: value for key, value in given.items() if value is not None}
        statement = _list_statement(tuple(parameters), page.before_id is not None)
        parameters |= page_parameters(page)
        return await self._database.read(
            lambda connection: _HEAVY.read_page(connection, statement, parameters, page, _parse)
        )

    async def replace(self, workflow: Workflow) -> bool:
        """Write the next version; False, and nothing written, unless the row has the one before.

        Versions before it that no run needs are gone then.
        """
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
            insert_version(connection, workflow)
            supersede(connection, workflow.workflow_id, workflow.version - 1)
            return True

        return await self._database.write(work)

    async def delete(
        self, workflow_id: WorkflowId, at: datetime, last_word: Callable[[RunId], RunSignal] | None = None
    ) -> bool | None:
        """Delete it, and with it say the last word to each of its runs that live.

        Its row and its versions stay for its runs, if there are any. None when it is not there; False, and nothing
        written, when a run of it lives and there is no word for it.
        """

        def work(connection: Connection) -> bool | None:
            # The lock keeps runs from being started between the look and the end.
            version = connection.execute(_LOCK, {"wanted_id": workflow_id}).scalar_one_or_none()
            if version is None:
                return None
            if last_word is not None:
                live = connection.execute(_LIVE, {"wanted_id": workflow_id}).scalars().all()
                add_signals(connection, [last_word(run_id) for run_id in live])
            elif connection.execute(_ANY_LIVE, {"wanted_id": workflow_id}).first() is not None:
                return False
            delete_triggers(connection, workflow_id)
            connection.execute(_DELETE, {"wanted_id": workflow_id, "at": at})
            if not supersede(connection, workflow_id, version):
                connection.execute(_REMOVE, {"wanted_id": workflow_id})
            return True

        return await self._database.write(work)


def _count(connection: Connection, owner_id: UserId) -> int:
    """How many the owner has; whoever adds one waits for others who do, so that all of them see what there is."""
    hold_owner(connection, owner_id)
    count: int = connection.execute(_COUNT, {"wanted_owner": owner_id}).scalar_one()
    return count


@lru_cache
def _list_statement(equal: tuple[str, ...], has_before: bool) -> Select[Any]:
    base = _HEAVY.light.where(_is_there)
    for name in equal:
        base = base.where(_columns[name] == sa.bindparam(name))
    return newest_first(base, _columns.workflow_id, PageRequest(before_id="" if has_before else None))


def _parse(row: Row[Any]) -> Workflow:
    return Workflow(**row._mapping)
