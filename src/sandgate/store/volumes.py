"""Rows of volumes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import EnvironmentId, UserId, VolumeId
from sandgate.core.page import Page, PageRequest
from sandgate.core.states import LIVE_ENVIRONMENT_STATUSES
from sandgate.core.volume import Volume
from sandgate.store.base import VolumeRefusal, VolumesHeld
from sandgate.store.database import Database
from sandgate.store.idempotency import keep_answer
from sandgate.store.owners import hold_owner
from sandgate.store.schema import environments
from sandgate.store.statements import changed, is_one_of, newest_first, padded, page_of, page_parameters
from sandgate.store.volume_schema import environment_volumes, volumes

_columns = volumes.c
_is_this = _columns.volume_id == sa.bindparam("wanted_id")
_is_there = _columns.condemned.is_(False)
_is_owners = _columns.owner_id == sa.bindparam("wanted_owner")

_INSERT = sa.insert(volumes)
_HELD: Select[Any] = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_columns.size_bytes), 0)).where(_is_owners)
_FIND = sa.select(volumes).where(_is_this)
_FIND_NAMED = sa.select(volumes).where(_is_owners, _is_there, is_one_of(_columns.name, "names"))
_LOCK = sa.select(volumes).where(_is_this, _is_there).with_for_update()
_CONDEMN = sa.update(volumes).where(_is_this, _is_there).values(condemned=True)
_CONDEMN_OF = sa.update(volumes).where(_is_owners).values(condemned=True)
_DELETE = sa.delete(volumes).where(_is_this, _columns.condemned)
# Written as in the condition of the index, which otherwise does not serve.
_CONDEMNED = sa.select(volumes).where(sa.text("volumes.condemned")).order_by(_columns.volume_id)
_CONDEMNED_ON = _CONDEMNED.where(
    sa.or_(_columns.server_id == sa.bindparam("wanted_server"), _columns.server_id.is_(None))
)
_USERS: Select[Any] = (
    sa.select(environment_volumes.c.volume_id, environment_volumes.c.environment_id)
    .join(environments, environments.c.environment_id == environment_volumes.c.environment_id)
    .where(
        is_one_of(environment_volumes.c.volume_id, "ids"),
        environments.c.status.in_(sorted(LIVE_ENVIRONMENT_STATUSES)),
        environments.c.deleted_at.is_(None),
    )
    .order_by(environment_volumes.c.environment_id)
)
# Whoever is about to delete one waits until it is known who has it.
_HOLD: Select[Any] = (
    sa.select(_columns.volume_id)
    .where(is_one_of(_columns.volume_id, "ids"), _is_there)
    .order_by(_columns.volume_id)
    .with_for_update(read=True)
)
_USE = sa.insert(environment_volumes)


class SqlVolumeStore:
    """See :class:`sandgate.store.base.VolumeStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self, volume: Volume, most: int, most_bytes: int, answer: KeptAnswer | None = None
    ) -> VolumeRefusal | None:
        """Add a row, and what is answered about it; or nothing, and why not."""
        return await self._database.write(lambda connection: _insert(connection, volume, most, most_bytes, answer))

    async def find(self, volume_id: VolumeId) -> Volume | None:
        """The row."""
        parameters = {"wanted_id": volume_id}
        row = await self._database.read(lambda connection: connection.execute(_FIND, parameters).one_or_none())
        return None if row is None else _parse(row)

    async def find_named(self, owner_id: UserId, names: Sequence[str]) -> Mapping[str, Volume]:
        """Those of an owner that there are, by name."""
        parameters = {"wanted_owner": owner_id, "names": padded(names)}
        rows = await self._database.read(lambda connection: connection.execute(_FIND_NAMED, parameters).all())
        return {volume.name: volume for volume in map(_parse, rows)}

    async def list(self, owner_id: UserId | None, name: str | None, page: PageRequest) -> Page[Volume]:
        """A page, newest first; None means any."""
        given = {"owner_id": owner_id, "name": name}
        parameters: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        statement = _list_statement(tuple(parameters), page.before_id is not None)
        parameters |= page_parameters(page)
        rows = await self._database.read(lambda connection: connection.execute(statement, parameters).all())
        return page_of(rows, page, _parse)

    async def held(self, owner_id: UserId) -> VolumesHeld:
        """What an owner has."""
        return await self._database.read(lambda connection: _held(connection, owner_id))

    async def find_users(self, volume_ids: Sequence[VolumeId]) -> Mapping[VolumeId, Sequence[EnvironmentId]]:
        """The live environments that have each, oldest first; those that nobody has are left out."""
        return await self._database.read(lambda connection: _find_users(connection, volume_ids))

    async def begin_delete(self, volume_id: VolumeId) -> Sequence[EnvironmentId] | None:
        """From now on no environment gets it. Answers the live ones that have it, and then nothing is written."""

        def work(connection: Connection) -> Sequence[EnvironmentId] | None:
            if connection.execute(_LOCK, {"wanted_id": volume_id}).first() is None:
                return None
            users_of = _find_users(connection, [volume_id]).get(volume_id, [])
            if not users_of:
                connection.execute(_CONDEMN, {"wanted_id": volume_id})
            return users_of

        return await self._database.write(work)

    async def delete(self, volume_id: VolumeId) -> bool:
        """Remove the row of one that is being deleted; False when there is none."""
        return await self._database.write(
            lambda connection: changed(connection.execute(_DELETE, {"wanted_id": volume_id}))
        )

    async def list_condemned(self, server_id: str | None) -> Sequence[Volume]:
        """Those that are being deleted, or whose owner was, on a server or on any; some may have live environments."""
        statement = _CONDEMNED if server_id is None else _CONDEMNED_ON
        parameters = {} if server_id is None else {"wanted_server": server_id}
        rows = await self._database.read(lambda connection: connection.execute(statement, parameters).all())
        return [_parse(row) for row in rows]


def hold_volumes(connection: Connection, volume_ids: Sequence[VolumeId]) -> bool:
    """Inside a transaction: none of them is deleted until its end; False when one is gone already."""
    wanted = set(volume_ids)
    return set(connection.execute(_HOLD, {"ids": padded(sorted(wanted))}).scalars()) == wanted


def note_users(connection: Connection, environment_id: EnvironmentId, volume_ids: Sequence[VolumeId]) -> None:
    """Inside a transaction: an environment has these."""
    connection.execute(_USE, [{"environment_id": environment_id, "volume_id": each} for each in volume_ids])


def condemn_volumes_of(connection: Connection, owner_id: UserId) -> None:
    """Inside a transaction: their owner is about to be gone."""
    connection.execute(_CONDEMN_OF, {"wanted_owner": owner_id})


def _held(connection: Connection, owner_id: UserId) -> VolumesHeld:
    count, size = connection.execute(_HELD, {"wanted_owner": owner_id}).one()
    return VolumesHeld(int(count), int(size))


def _insert(
    connection: Connection, volume: Volume, most: int, most_bytes: int, answer: KeptAnswer | None
) -> VolumeRefusal | None:
    wanted = {"wanted_owner": volume.owner_id, "names": [volume.name]}
    if not hold_owner(connection, volume.owner_id):
        return VolumeRefusal.NO_USER
    if connection.execute(_FIND_NAMED, wanted).first() is not None:
        return VolumeRefusal.NAME_TAKEN
    held = _held(connection, volume.owner_id)
    if held.count >= most:
        return VolumeRefusal.TOO_MANY
    if held.size_bytes + volume.size_bytes > most_bytes:
        return VolumeRefusal.TOO_LARGE
    connection.execute(_INSERT, asdict(volume))
    keep_answer(connection, answer)
    return None


def _find_users(connection: Connection, volume_ids: Sequence[VolumeId]) -> Mapping[VolumeId, Sequence[EnvironmentId]]:
    found: dict[VolumeId, list[EnvironmentId]] = {}
    for volume_id, environment_id in connection.execute(_USERS, {"ids": padded(volume_ids)}):
        found.setdefault(VolumeId(volume_id), []).append(EnvironmentId(environment_id))
    return found


@lru_cache
def _list_statement(equal: tuple[str, ...], has_before: bool) -> Select[Any]:
    statement = sa.select(volumes).where(_is_there)
    for name in equal:
        statement = statement.where(_columns[name] == sa.bindparam(name))
    return newest_first(statement, _columns.volume_id, PageRequest(before_id="" if has_before else None))


def _parse(row: Row[Any]) -> Volume:
    return Volume(**row._mapping)
