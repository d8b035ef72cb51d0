"""Rows of what users may use, and have used."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from sandgate.core.ids import UserId
from sandgate.core.quota import UserQuota
from sandgate.store.database import Database
from sandgate.store.quota_schema import user_executions, user_quotas
from sandgate.store.schema import users
from sandgate.store.statements import changed, is_one_of, padded, upsert

_FIGURES = tuple(field.name for field in fields(UserQuota))
_EPOCH = date(1970, 1, 1)
_is_of_user = user_quotas.c.user_id == sa.bindparam("wanted_id")

_FIND = sa.select(user_quotas).where(_is_of_user)
_PUT = upsert(user_quotas, "(user_id) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in _FIGURES))
_DELETE = sa.delete(user_quotas).where(_is_of_user)
# The lock keeps users from being deleted before what refers to them is committed.
_LOCK_USERS = (
    sa.select(users.c.user_id)
    .where(is_one_of(users.c.user_id, "ids"))
    .order_by(users.c.user_id)
    .with_for_update(read=True, key_share=True)
)
_COUNT = sa.select(user_executions.c.executions).where(
    user_executions.c.user_id == sa.bindparam("wanted_id"), user_executions.c.day == sa.bindparam("wanted_day")
)
_ADD = upsert(
    user_executions,
    "(user_id, day) DO UPDATE SET executions = user_executions.executions + excluded.executions",
)
_FORGET = sa.delete(user_executions).where(user_executions.c.day < sa.bindparam("first_day"))


class SqlQuotaStore:
    """See :class:`sandgate.store.base.QuotaStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, user_id: UserId) -> UserQuota | None:
        """What was set for a user."""
        row = await self._database.read(
            lambda connection: connection.execute(_FIND, {"wanted_id": user_id}).one_or_none()
        )
        return None if row is None else UserQuota(**{name: row._mapping[name] for name in _FIGURES})

    async def put(self, user_id: UserId, quota: UserQuota) -> bool:
        """Set it; False, with nothing written, when there is no such user."""
        values = {"user_id": user_id, **{name: getattr(quota, name) for name in _FIGURES}}
        return await self._database.write(lambda connection: _put(connection, values), repeatable=True)

    async def delete(self, user_id: UserId) -> bool:
        """Set nothing any more; False when nothing was set."""
        return await self._database.write(
            lambda connection: changed(connection.execute(_DELETE, {"wanted_id": user_id}))
        )

    async def count_executions(self, user_id: UserId, day: date) -> int:
        """How many executions of a user were added to a day, by all servers."""
        parameters = {"wanted_id": user_id, "wanted_day": (day - _EPOCH).days}
        count = await self._database.read(
            lambda connection: connection.execute(_COUNT, parameters).scalar_one_or_none()
        )
        return count or 0

    async def add_executions(self, day: date, counts: Mapping[UserId, int]) -> None:
        """Add executions to a day, and forget the days before the one before it. Users who are gone are left out."""
        await self._database.write(lambda connection: _add(connection, (day - _EPOCH).days, counts))


def _put(connection: Connection, values: dict[str, Any]) -> bool:
    if connection.execute(_LOCK_USERS, {"ids": [values["user_id"]]}).first() is None:
        return False
    connection.execute(_PUT, values)
    return True


def _add(connection: Connection, day: int, counts: Mapping[UserId, int]) -> None:
    for user_id in connection.execute(_LOCK_USERS, {"ids": padded(counts)}).scalars().all():
        connection.execute(_ADD, {"user_id": user_id, "day": day, "executions": counts[UserId(user_id)]})
    connection.execute(_FORGET, {"first_day": day - 1})
