"""Rows of API keys and of revoked tokens."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.errors import UserNotFound
from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import ApiKeyId, UserId
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import ApiKey
from sandgate.store.database import Database
from sandgate.store.idempotency import keep_answer
from sandgate.store.schema import api_keys, revoked_tokens, users
from sandgate.store.statements import changed, newest_first, page_of, page_parameters, upsert

_columns = api_keys.c
_is_this = _columns.api_key_id == sa.bindparam("wanted_id")

_INSERT = sa.insert(api_keys)
# The lock keeps the user from being deleted before the key is committed.
_LOCK_USER = sa.select(users.c.user_id).where(users.c.user_id == sa.bindparam("wanted_id")).with_for_update(read=True)
_FIND = sa.select(api_keys).where(_is_this)
_OF_USER = sa.select(api_keys).where(_columns.user_id == sa.bindparam("user_id"))
_LIST = newest_first(_OF_USER, _columns.api_key_id, PageRequest())
_LIST_BEFORE = newest_first(_OF_USER, _columns.api_key_id, PageRequest(before_id=""))
_is_older = sa.or_(_columns.last_used_at.is_(None), _columns.last_used_at < sa.bindparam("at"))
_TOUCH = sa.update(api_keys).where(_is_this, _is_older).values(last_used_at=sa.bindparam("at"))
_DELETE = sa.delete(api_keys).where(_is_this)
_REVOKE = upsert(
    revoked_tokens,
    "(token_id) DO UPDATE SET expires_at = excluded.expires_at WHERE excluded.expires_at > revoked_tokens.expires_at",
)
_IS_REVOKED: Select[Any] = sa.select(sa.literal_column("1")).where(
    revoked_tokens.c.token_id == sa.bindparam("wanted_id")
)
_PRUNE_REVOKED = sa.delete(revoked_tokens).where(revoked_tokens.c.expires_at < sa.bindparam("before"))


class SqlCredentialStore:
    """See :class:`sandgate.store.base.CredentialStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert_api_key(self, key: ApiKey, answer: KeptAnswer | None = None) -> None:
        """Add a row, and what is answered about it; raises ``UserNotFound`` when its user has been deleted."""
        row = _row_of(key)
        if not await self._database.write(lambda connection: _insert_api_key(connection, row, answer)):
            raise UserNotFound(f"There is no user {key.user_id} to make an API key for.")

    async def find_api_key(self, api_key_id: ApiKeyId) -> ApiKey | None:
        """The row."""
        row = await self._database.read(
            lambda connection: connection.execute(_FIND, {"wanted_id": api_key_id}).one_or_none()
        )
        return None if row is None else _parse(row)

    async def list_api_keys(self, user_id: UserId, page: PageRequest) -> Page[ApiKey]:
        """A page of a user's keys, newest first."""
        statement = _LIST if page.before_id is None else _LIST_BEFORE
        parameters = {"user_id": user_id, **page_parameters(page)}
        rows = await self._database.read(lambda connection: connection.execute(statement, parameters).all())
        return page_of(rows, page, _parse)

    async def touch_api_key(self, api_key_id: ApiKeyId, at: datetime) -> None:
        """Note when the key was last used; never goes back."""
        parameters = {"wanted_id": api_key_id, "at": at}
        await self._database.write(lambda connection: changed(connection.execute(_TOUCH, parameters)), repeatable=True)

    async def delete_api_key(self, api_key_id: ApiKeyId) -> bool:
        """Remove the row; False when there was none."""
        parameters = {"wanted_id": api_key_id}
        return await self._database.write(lambda connection: changed(connection.execute(_DELETE, parameters)))

    async def revoke_token(self, token_id: str, expires_at: datetime) -> None:
        """Remember that the token is ended, until it would have expired anyway."""
        row = {"token_id": token_id, "expires_at": expires_at}
        await self._database.write(lambda connection: changed(connection.execute(_REVOKE, row)), repeatable=True)

    async def is_revoked(self, token_id: str) -> bool:
        """Whether the token was ended."""
        parameters = {"wanted_id": token_id}
        return await self._database.read(
            lambda connection: connection.execute(_IS_REVOKED, parameters).scalar() is not None
        )

    async def prune_revoked(self, before: datetime) -> int:
        """Forget tokens that expired before; answers how many."""
        parameters = {"before": before}
        return await self._database.write(lambda connection: connection.execute(_PRUNE_REVOKED, parameters).rowcount)


def _insert_api_key(connection: Connection, row: dict[str, Any], answer: KeptAnswer | None) -> bool:
    if connection.execute(_LOCK_USER, {"wanted_id": row["user_id"]}).one_or_none() is None:
        return False
    connection.execute(_INSERT, row)
    keep_answer(connection, answer)
    return True


def _row_of(key: ApiKey) -> dict[str, Any]:
    return {
        "api_key_id": key.api_key_id,
        "user_id": key.user_id,
        "label": key.label,
        "secret_sha256": key.secret_sha256,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
    }


def _parse(row: Row[Any]) -> ApiKey:
    return ApiKey(**row._mapping)
