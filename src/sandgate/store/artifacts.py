"""Rows of artifacts."""

import itertools
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.artifact import Artifact, ArtifactId
from sandgate.core.ids import RunId, UserId
from sandgate.core.page import Page, PageRequest
from sandgate.store.base.artifacts import Kept, Pack
from sandgate.store.database import Database
from sandgate.store.excess import HAS_ENDED_SINCE, SINCE, Excess
from sandgate.store.schema import artifacts, runs
from sandgate.store.statements import HotStatement, is_one_of, newest_first, padded, page_of, page_parameters, upsert

_NO_ITEM = -1

_columns = artifacts.c
_is_of_run = _columns.run_id == sa.bindparam("wanted_run")
_is_of_runs = is_one_of(_columns.run_id, "wanted_runs")

_ADD = HotStatement(upsert(artifacts, "(artifact_id) DO NOTHING"))
_FIND = sa.select(artifacts).where(_is_of_run, _columns.artifact_id == sa.bindparam("wanted_id"))
_MEASURE: Select[Any] = sa.select(
    sa.func.count().label("found"), sa.func.coalesce(sa.func.sum(_columns.size_bytes), 0).label("size_bytes")
).where(_is_of_run)
_OLD: Select[Any] = (
    sa.select(_columns.run_id, _columns.pack)
    .where(_columns.created_at < sa.bindparam("before", type_=_columns.created_at.type))
    .distinct()
    .limit(sa.bindparam("most"))
)
_DELETE_PACK = sa.delete(artifacts).where(_is_of_run, _columns.pack == sa.bindparam("wanted_pack"))
_DELETE_OF_RUNS = sa.delete(artifacts).where(_is_of_runs)
_kept = sa.select(runs.c.owner_id, _columns.size_bytes).join(runs, runs.c.run_id == _columns.run_id)
_news = sa.select(runs.c.owner_id).join(artifacts, runs.c.run_id == _columns.run_id).where(_columns.created_at >= SINCE)
_EXCESS = Excess(_kept.subquery(), sa.union(_news, sa.select(runs.c.owner_id).where(HAS_ENDED_SINCE)))
# Each has a pack at least.
_OLDEST_RUNS: Select[Any] = (
    sa.select(runs.c.run_id)
    .where(
        runs.c.owner_id == sa.bindparam("wanted_owner"),
        runs.c.finished_at.is_not(None),
        sa.exists().where(_columns.run_id == runs.c.run_id),
    )
    .order_by(runs.c.run_id)
    .limit(sa.bindparam("most"))
    # What a run left that is being opened again stays.
    .with_for_update(skip_locked=True)
)
_PACKS: Select[Any] = (
    sa.select(_columns.run_id, _columns.pack, sa.func.sum(_columns.size_bytes).label("size_bytes"))
    .where(_is_of_runs)
    .group_by(_columns.run_id, _columns.pack)
    .order_by(_columns.run_id, _columns.pack)
    .limit(sa.bindparam("most"))
)
_RUNS: Select[Any] = sa.select(runs.c.run_id).where(is_one_of(runs.c.run_id, "wanted_runs"))


class SqlArtifactStore:
    """See :class:`sandgate.store.base.ArtifactStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, run_id: RunId, artifact_id: ArtifactId) -> Artifact | None:
        """The row, if it is one of this run."""
        parameters = {"wanted_run": run_id, "wanted_id": artifact_id}
        row = await self._database.read(lambda connection: connection.execute(_FIND, parameters).one_or_none())
        return None if row is None else _parse(row)

    async def list(self, run_id: RunId, page: PageRequest, *, step: str | None = None) -> Page[Artifact]:
        """A page of what a run kept, newest first."""
        statement = _list_statement(step is not None, page.before_id is not None)
        parameters = {"wanted_run": run_id, **page_parameters(page)}
        parameters |= {} if step is None else {"wanted_step": step}
        rows = await self._database.read(lambda connection: connection.execute(statement, parameters).all())
        return page_of(rows, page, _parse)

    async def measure(self, run_id: RunId) -> Kept:
        """How much a run has kept."""
        parameters = {"wanted_run": run_id}
        row = await self._database.read(lambda connection: connection.execute(_MEASURE, parameters).one())
        return Kept(int(row.found), int(row.size_bytes))

    async def prune(self, before: datetime, most: int) -> Sequence[Pack]:
        """Remove the rows of at most ``most`` packs that are older; those packs."""
        wanted = {"before": before, "most": most}
        return await self._database.write(lambda connection: _prune(connection, wanted))

    async def find_over(self, most_bytes: int, since: datetime | None = None) -> Sequence[tuple[UserId, int]]:
        """Owners of runs with more than that, and how much more.

        With ``since`` only owners of whose runs one has left something, or has ended, since.
        """
        return await self._database.read(lambda connection: _EXCESS.find(connection, most_bytes, since))

    async def prune_oldest(self, owner_id: UserId, excess_bytes: int, most: int) -> Sequence[Pack]:
        """Remove the rows of at most ``most`` packs of an owner's oldest ended runs; those packs.

        No more than make up for the excess.
        """
        parameters = {"wanted_owner": owner_id, "most": most}

        def work(connection: Connection) -> Sequence[Pack]:
            run_ids = connection.execute(_OLDEST_RUNS, parameters).scalars().all()
            oldest = connection.execute(_PACKS, {"wanted_runs": padded(run_ids), "most": most}).all()
            sizes_before = itertools.accumulate((int(row.size_bytes) for row in oldest), initial=0)
            gone = [row for row, before in zip(oldest, sizes_before, strict=False) if before < excess_bytes]
            return _delete_packs(connection, gone)

        return await self._database.write(work)

    async def delete_of_runs(self, run_ids: Sequence[RunId]) -> None:
        """Remove all rows of these runs."""
        parameters = {"wanted_runs": padded(run_ids)}

        def work(connection: Connection) -> None:
            connection.execute(_DELETE_OF_RUNS, parameters)

        await self._database.write(work, repeatable=True)

    async def find_orphans(self, run_ids: Sequence[RunId]) -> Sequence[RunId]:
        """Those that are no runs of this database, in the same order."""
        parameters = {"wanted_runs": padded(run_ids)}
        rows = await self._database.read(lambda connection: connection.execute(_RUNS, parameters).all())
        known = {row.run_id for row in rows}
        return [run_id for run_id in run_ids if run_id not in known]


def add_artifacts(connection: Connection, rows: Sequence[Artifact]) -> None:
    """Add rows, in the transaction that the connection is in."""
    for row in rows:
        values = {field.name: getattr(row, field.name) for field in fields(row)}
        values["item"] = _NO_ITEM if row.item is None else row.item
        _ADD.run(connection, values)


@lru_cache
def _list_statement(has_step: bool, has_before: bool) -> Select[Any]:
    base = sa.select(artifacts).where(_is_of_run)
    if has_step:
        base = base.where(_columns.step == sa.bindparam("wanted_step"))
    return newest_first(base, _columns.artifact_id, PageRequest(before_id="" if has_before else None))


def _prune(connection: Connection, wanted: dict[str, Any]) -> Sequence[Pack]:
    return _delete_packs(connection, connection.execute(_OLD, wanted).all())


def _delete_packs(connection: Connection, rows: Sequence[Row[Any]]) -> Sequence[Pack]:
    packs = [Pack(RunId(row.run_id), row.pack) for row in rows]
    if packs:
        connection.execute(_DELETE_PACK, [{"wanted_run": pack.run_id, "wanted_pack": pack.name} for pack in packs])
    return packs


def _parse(row: Row[Any]) -> Artifact:
    values = dict(row._mapping)
    values["item"] = None if values["item"] == _NO_ITEM else values["item"]
    values["sha256"] = bytes(values["sha256"])
    return Artifact(**{**values, "artifact_id": ArtifactId(row.artifact_id), "run_id": RunId(row.run_id)})
