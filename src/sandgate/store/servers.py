"""Rows of servers, and the end of what dead ones had."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from sandgate.core.states import LIVE_ENVIRONMENT_STATUSES
from sandgate.store.base import Remains
from sandgate.store.clocks import database_now
from sandgate.store.database import Database
from sandgate.store.environments import fail_all_of
from sandgate.store.executions import mark_lost
from sandgate.store.idempotency import release_unanswered
from sandgate.store.schema import environments, idempotency, servers
from sandgate.store.statements import changed, upsert

_GONE = "the server that it was on is gone"

_columns = servers.c
_is_this = _columns.server_id == sa.bindparam("wanted_id")
_is_over = _columns.lease_until <= sa.bindparam("now", type_=_columns.lease_until.type)

_PUT = upsert(servers, "(server_id) DO UPDATE SET lease_until = excluded.lease_until")
_RENEW = sa.update(servers).where(_is_this).values(lease_until=sa.bindparam("until", type_=_columns.lease_until.type))
_DEAD: Select[Any] = sa.select(_columns.server_id).where(_is_over).order_by(_columns.server_id)
_LOCK_DEAD: Select[Any] = sa.select(_columns.server_id).where(_is_this, _is_over).with_for_update()
_LEAVE = sa.delete(servers).where(_is_this)
_live = ", ".join(f"'{status}'" for status in sorted(LIVE_ENVIRONMENT_STATUSES))
_FORGOTTEN = sa.text(
    "INSERT INTO servers (server_id, lease_until) SELECT DISTINCT left_by.server_id, CAST(:now AS BIGINT) FROM ("  # noqa: S608 - made of names and states of this code
    f"SELECT server_id FROM {environments.name} WHERE status IN ({_live}) AND deleted_at IS NULL "
    f"UNION ALL SELECT server_id FROM {idempotency.name} WHERE status IS NULL) left_by "
    "WHERE left_by.server_id IS NOT NULL ON CONFLICT (server_id) DO NOTHING"
).bindparams(sa.bindparam("now", type_=_columns.lease_until.type))


class SqlServerStore:
    """See :class:`sandgate.store.base.ServerStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def is_shared(self) -> bool:
        """Whether other servers may use the database."""
        return self._database.is_shared

    async def join(self, server_id: str, now: datetime, lease_s: float) -> None:
        """Add or renew the row.

        Servers that something is left of and that have no row get one whose lease has run out.
        """

        def work(connection: Connection) -> None:
            at = database_now(connection, now)
            connection.execute(_PUT, {"server_id": server_id, "lease_until": at + timedelta(seconds=lease_s)})
            connection.execute(_FORGOTTEN, {"now": at})

        await self._database.write(work, repeatable=True)

    async def renew(self, server_id: str, now: datetime, lease_s: float) -> bool:
        """Hold the row for another ``lease_s``; False, and it is made anew, when somebody has buried the server."""

        def work(connection: Connection) -> bool:
            until = database_now(connection, now) + timedelta(seconds=lease_s)
            held = changed(connection.execute(_RENEW, {"wanted_id": server_id, "until": until}))
            if not held:
                connection.execute(_PUT, {"server_id": server_id, "lease_until": until})
            return held

        return await self._database.write(work)

    async def list_dead(self, now: datetime) -> Sequence[str]:
        """The servers whose lease has run out."""

        def work(connection: Connection) -> Sequence[str]:
            return connection.execute(_DEAD, {"now": database_now(connection, now)}).scalars().all()

        return await self._database.read(work)

    async def bury(self, server_id: str, now: datetime) -> Remains | None:
        """End what a dead server had, and remove its row, in one transaction; None when it lives after all."""

        def work(connection: Connection) -> Remains | None:
            at = database_now(connection, now)
            if connection.execute(_LOCK_DEAD, {"wanted_id": server_id, "now": at}).first() is None:
                return None
            lost = mark_lost(connection, at, server_id=server_id)
            failed = fail_all_of(connection, server_id, at, _GONE)
            keys = release_unanswered(connection, server_id)
            connection.execute(_LEAVE, {"wanted_id": server_id})
            return Remains(failed, len(lost), keys)

        return await self._database.write(work)

    async def leave(self, server_id: str) -> None:
        """Remove the row of a server that has ended everything."""
        await self._database.write(
            lambda connection: changed(connection.execute(_LEAVE, {"wanted_id": server_id})), repeatable=True
        )
