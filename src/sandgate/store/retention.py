"""Removes rows whose time is over, in batches."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from sandgate.core.ids import UserId
from sandgate.store.database import Database
from sandgate.store.kept_runs import find_oldest, find_over
from sandgate.store.schema import (
    artifacts,
    environments,
    executions,
    run_history,
    run_signals,
    run_sizes,
    run_steps,
    runs,
    superseded_versions,
    workflow_versions,
    workflows,
)
from sandgate.store.statements import is_one_of, padded
from sandgate.store.trigger_schema import webhook_deliveries
from sandgate.store.versions import drop_unused, find_with_unused
from sandgate.store.volume_schema import environment_volumes

# What goes with a run, and with a workflow. Each table names its owner in the column of the same name. The keys of
# deliveries stay: what comes again must not start another run, whether or not the first one is still there. What starts
# runs of a workflow has gone when it was deleted (:mod:`sandgate.store.triggers`).
OF_A_RUN: Sequence[sa.Table] = (run_steps, run_history, run_signals, run_sizes, artifacts, webhook_deliveries, runs)
OF_A_WORKFLOW: Sequence[sa.Table] = (workflow_versions, superseded_versions, workflows)
OF_AN_ENVIRONMENT: Sequence[sa.Table] = (environment_volumes, environments)


def _oldest(column: sa.Column[Any], key: sa.Column[Any]) -> Select[Any]:
    """The keys of the rows that were over before a time, oldest first; locked, so that none is opened again."""
    return (
        sa.select(key)
        .where(column.is_not(None), column < sa.bindparam("before", type_=column.type))
        .order_by(column)
        .limit(sa.bindparam("most"))
        .with_for_update(skip_locked=True)
    )


_RUNS = _oldest(runs.c.finished_at, runs.c.run_id)
_WORKFLOWS = _oldest(workflows.c.deleted_at, workflows.c.workflow_id).where(
    ~sa.exists().where(runs.c.workflow_id == workflows.c.workflow_id)
)
_ENVIRONMENTS = _oldest(environments.c.ended_at, environments.c.environment_id).where(
    ~sa.exists().where(executions.c.environment_id == environments.c.environment_id)
)


def _deletes(tables: Sequence[sa.Table], key: str) -> Sequence[sa.Delete]:
    return [sa.delete(table).where(is_one_of(table.c[key], "keys")) for table in tables]


_DELETE_RUNS = _deletes(OF_A_RUN, "run_id")
_DELETE_WORKFLOWS = _deletes(OF_A_WORKFLOW, "workflow_id")
_DELETE_ENVIRONMENTS = _deletes(OF_AN_ENVIRONMENT, "environment_id")


class SqlRetentionStore:
    """See :class:`sandgate.store.base.RetentionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prune_runs(self, finished_before: datetime, most: int) -> int:
        """Runs that ended before, with all that belongs to them."""
        return await self._prune(_RUNS, _DELETE_RUNS, finished_before, most)

    async def prune_workflows(self, deleted_before: datetime, most: int) -> int:
        """Workflows that were deleted before, with their versions, once no run of them is left."""
        return await self._prune(_WORKFLOWS, _DELETE_WORKFLOWS, deleted_before, most)

    async def prune_versions(self, most: int) -> int:
        """Versions of at most ``most`` workflows that no run needs any more, and that are not the newest."""
        found = await self._database.read(lambda connection: find_with_unused(connection, most))
        if not found:
            return 0
        return await self._database.write(lambda connection: drop_unused(connection, found), repeatable=True)

    async def find_over(self, most_bytes: int, since: datetime | None = None) -> Sequence[tuple[UserId, int]]:
        """See ``RetentionStore``."""
        return await self._database.read(lambda connection: find_over(connection, most_bytes, since))

    async def prune_oldest_runs(self, owner_id: UserId, excess_bytes: int, most: int) -> int:
        """See ``RetentionStore``."""

        def work(connection: Connection) -> int:
            keys = find_oldest(connection, owner_id, excess_bytes, most)
            for statement in _DELETE_RUNS if keys else ():
                connection.execute(statement, {"keys": padded(keys)})
            return len(keys)

        return await self._database.write(work)

    async def prune_environments(self, ended_before: datetime, most: int) -> int:
        """Environments that ended before, once no execution of them is left."""
        return await self._prune(_ENVIRONMENTS, _DELETE_ENVIRONMENTS, ended_before, most)

    async def _prune(self, find: Select[Any], deletes: Sequence[sa.Delete], before: datetime, most: int) -> int:
        def work(connection: Connection) -> int:
            keys = connection.execute(find, {"before": before, "most": most}).scalars().all()
            for statement in deletes if keys else ():
                connection.execute(statement, {"keys": padded(keys)})
            return len(keys)

        return await self._database.write(work, repeatable=True)
