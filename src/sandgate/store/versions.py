"""Versions of workflows: which are kept, and until when.

The newest one is, as long as its workflow is there. One that another has taken the place of, or whose workflow was
deleted, stays only as long as a run of it is there, which is shown and retried by it.
"""

from collections.abc import Callable, Collection
from enum import Enum, auto
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from sandgate.core.ids import WorkflowId
from sandgate.core.run import Run
from sandgate.core.workflow import Workflow
from sandgate.store.base import VersionGone
from sandgate.store.database import Database
from sandgate.store.schema import runs, superseded_versions, workflow_versions, workflows
from sandgate.store.statements import is_one_of, padded

_Answer = TypeVar("_Answer")

_columns, _superseded = workflow_versions.c, superseded_versions.c
_is_this = sa.and_(
    _columns.workflow_id == sa.bindparam("wanted_id"), _columns.version == sa.bindparam("wanted_version")
)

_HOLD: Select[Any] = (
    sa.select(workflows.c.workflow_id)
    .where(workflows.c.workflow_id == sa.bindparam("wanted_id"), workflows.c.deleted_at.is_(None))
    .with_for_update(read=True)
)
_INSERT = sa.insert(workflow_versions)
FIND: Select[Any] = sa.select(_columns.definition).where(_is_this)
"""One version as the user wrote it."""
_EXISTS: Select[Any] = sa.select(_columns.version).where(_is_this)
_SUPERSEDE = sa.insert(superseded_versions).from_select(
    ["workflow_id", "version", "owner_id", "size_bytes"],
    sa.select(
        _columns.workflow_id,
        _columns.version,
        workflows.c.owner_id,
        sa.func.length(_columns.definition),
    )
    .join(workflows, workflows.c.workflow_id == _columns.workflow_id)
    .where(_is_this),
)
_UNUSED: Select[Any] = sa.select(_superseded.workflow_id, _superseded.version).where(
    ~sa.exists().where(runs.c.workflow_id == _superseded.workflow_id, runs.c.workflow_version == _superseded.version)
)
_UNUSED_OF = _UNUSED.where(is_one_of(_superseded.workflow_id, "wanted_ids"))
_SOME_UNUSED: Select[Any] = sa.select(_UNUSED.subquery().c.workflow_id).distinct().limit(sa.bindparam("most"))
# A run begins holding its workflow's row: it comes before, and is seen, or after, and finds no such version.
_LOCK: Select[Any] = (
    sa.select(workflows.c.workflow_id)
    .where(is_one_of(workflows.c.workflow_id, "wanted_ids"))
    .order_by(workflows.c.workflow_id)
    .with_for_update()
)
_DELETE = sa.delete(workflow_versions).where(_is_this)
_FORGET = sa.delete(superseded_versions).where(
    _superseded.workflow_id == sa.bindparam("wanted_id"), _superseded.version == sa.bindparam("wanted_version")
)
_ANY_LEFT: Select[Any] = sa.select(_columns.version).where(_columns.workflow_id == sa.bindparam("wanted_id")).limit(1)


def insert_version(connection: Connection, workflow: Workflow) -> None:
    """Keep the newest version."""
    row = {
        "workflow_id": workflow.workflow_id,
        "version": workflow.version,
        "created_at": workflow.updated_at,
        "definition": workflow.definition,
    }
    connection.execute(_INSERT, row)


def hold_workflow(connection: Connection, workflow_id: WorkflowId) -> bool:
    """Whether the workflow is there; it is not deleted before the end of the transaction."""
    return connection.execute(_HOLD, {"wanted_id": workflow_id}).first() is not None


class _Absent(Enum):
    """What a run cannot begin without."""

    WORKFLOW = auto()
    VERSION = auto()


async def write_beginning(
    database: Database,
    run: Run,
    work: Callable[[Connection], _Answer],
    otherwise: _Answer,
    *,
    repeatable: bool = False,
) -> _Answer:
    """Do ``work``, which adds the run, while its workflow and its version of that stay; see ``Database.write``.

    Answers ``otherwise``, with nothing written, when the workflow is not there. Raises ``VersionGone``, when the write
    is over: what is raised within one undoes its neighbours in the transaction, and each is done again, alone.
    """

    def begin(connection: Connection) -> _Answer | _Absent:
        return _find_absent(connection, run) or work(connection)

    answer = await database.write(begin, repeatable=repeatable)
    if answer is _Absent.VERSION:
        raise VersionGone(f"{run.workflow_id} has no version {run.workflow_version} any more")
    return otherwise if isinstance(answer, _Absent) else answer


def _find_absent(connection: Connection, run: Run) -> _Absent | None:
    """None when both are there, and stay before the end of the transaction."""
    if not hold_workflow(connection, run.workflow_id):
        return _Absent.WORKFLOW
    wanted = {"wanted_id": run.workflow_id, "wanted_version": run.workflow_version}
    return None if connection.execute(_EXISTS, wanted).first() else _Absent.VERSION


def supersede(connection: Connection, workflow_id: WorkflowId, version: int) -> bool:
    """From now on, keep this version for its runs only; whether any version of the workflow is left.

    The workflow's row is held by the transaction.
    """
    connection.execute(_SUPERSEDE, {"wanted_id": workflow_id, "wanted_version": version})
    _drop_unused(connection, [workflow_id])
    return connection.execute(_ANY_LEFT, {"wanted_id": workflow_id}).first() is not None


def find_with_unused(connection: Connection, most: int) -> Collection[str]:
    """Workflows with versions that no run needs any more."""
    return connection.execute(_SOME_UNUSED, {"most": most}).scalars().all()


def drop_unused(connection: Connection, workflow_ids: Collection[str]) -> int:
    """Remove the versions of these workflows that no run needs; answers how many went."""
    connection.execute(_LOCK, {"wanted_ids": padded(workflow_ids)})
    return _drop_unused(connection, workflow_ids)


def _drop_unused(connection: Connection, workflow_ids: Collection[str]) -> int:
    unused = connection.execute(_UNUSED_OF, {"wanted_ids": padded(workflow_ids)}).all()
    gone = [{"wanted_id": row.workflow_id, "wanted_version": row.version} for row in unused]
    if gone:
        connection.execute(_DELETE, gone)
        connection.execute(_FORGET, gone)
    return len(gone)
