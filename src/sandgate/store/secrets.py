"""Rows of secrets."""

from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from enum import Enum, auto
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.errors import UserNotFound
from sandgate.core.ids import UserId
from sandgate.core.secret import Secret
from sandgate.store.database import Database
from sandgate.store.owners import hold_owner
from sandgate.store.schema import secrets
from sandgate.store.statements import changed, is_one_of, padded, upsert

_columns = secrets.c
_is_owners = _columns.owner_id == sa.bindparam("wanted_owner")
_is_this = sa.and_(_is_owners, _columns.name == sa.bindparam("wanted_name"))

_FIND = sa.select(secrets).where(_is_this)
_FIND_MANY = sa.select(secrets).where(_is_owners, is_one_of(_columns.name, "names"))
_COUNT: Select[Any] = sa.select(sa.func.count()).select_from(secrets).where(_is_owners)
_PUT = upsert(
    secrets,
    "(owner_id, name) DO UPDATE SET updated_at = excluded.updated_at, key_id = excluded.key_id, "
    "sealed = excluded.sealed",
)
_LIST: Select[Any] = (
    sa.select(*(column for column in secrets.columns if column.name != "sealed"))
    .where(_is_owners)
    .order_by(_columns.name)
)
_DELETE = sa.delete(secrets).where(_is_this)


class _Refusal(Enum):
    """Answered rather than raised inside the transaction, which others share."""

    NO_USER = auto()
    TOO_MANY = auto()


class SqlSecretStore:
    """See :class:`sandgate.store.base.SecretStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, secret: Secret, most: int) -> Secret | None:
        """Add a row, or replace the value of the one that is there; the row as it is then.

        None, and nothing written, when the owner has ``most`` others. Raises ``UserNotFound`` when the owner is gone.
        """
        kept = await self._database.write(lambda connection: _put(connection, secret, most), repeatable=True)
        if kept is _Refusal.NO_USER:
            raise UserNotFound(f"There is no user {secret.owner_id} to keep a secret for.")
        return kept if isinstance(kept, Secret) else None

    async def list(self, owner_id: UserId) -> Sequence[Secret]:
        """All of an owner by name; their sealed values are empty."""
        parameters = {"wanted_owner": owner_id}
        rows = await self._database.read(lambda connection: connection.execute(_LIST, parameters).all())
        return [_parse(row, sealed=b"") for row in rows]

    async def find(self, owner_id: UserId, names: Collection[str]) -> Sequence[Secret]:
        """Those that are there, with their sealed values."""
        parameters = {"wanted_owner": owner_id, "names": padded(names)}
        rows = await self._database.read(lambda connection: connection.execute(_FIND_MANY, parameters).all())
        return [_parse(row) for row in rows]

    async def delete(self, owner_id: UserId, name: str) -> bool:
        """Remove the row; False when there was none."""
        parameters = {"wanted_owner": owner_id, "wanted_name": name}
        return await self._database.write(lambda connection: changed(connection.execute(_DELETE, parameters)))


def _put(connection: Connection, secret: Secret, most: int) -> Secret | _Refusal:
    wanted = {"wanted_owner": secret.owner_id, "wanted_name": secret.name}
    if not hold_owner(connection, secret.owner_id):
        return _Refusal.NO_USER
    before = connection.execute(_FIND, wanted).one_or_none()
    if before is None and connection.execute(_COUNT, wanted).scalar_one() >= most:
        return _Refusal.TOO_MANY
    connection.execute(_PUT, {field.name: getattr(secret, field.name) for field in fields(secret)})
    return secret if before is None else replace(secret, created_at=_parse(before).created_at)


def _parse(row: Row[Any], **more: Any) -> Secret:
    values = {**row._mapping, **more}
    return Secret(**{**values, "owner_id": UserId(values["owner_id"]), "sealed": bytes(values["sealed"])})
