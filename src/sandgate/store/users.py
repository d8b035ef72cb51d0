"""Rows of users."""

from datetime import datetime
from enum import Enum, auto
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from sandgate.core.errors import LastAdmin, UserNameTaken
from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import UserId
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Role, User
from sandgate.store.database import Database
from sandgate.store.idempotency import keep_answer
from sandgate.store.schema import users
from sandgate.store.statements import changed, newest_first, page_of, page_parameters, upsert
from sandgate.store.trigger_schema import schedules, webhooks
from sandgate.store.volumes import condemn_volumes_of

_columns = users.c
_is_this = _columns.user_id == sa.bindparam("wanted_id")

_INSERT = upsert(users, "(name) DO NOTHING")
_FIND = sa.select(users).where(_is_this)
_FIND_BY_NAME = sa.select(users).where(_columns.name == sa.bindparam("wanted_name"))
_LIST = newest_first(sa.select(users), _columns.user_id, PageRequest())
_LIST_BEFORE = newest_first(sa.select(users), _columns.user_id, PageRequest(before_id=""))
_COUNT = sa.select(sa.func.count()).select_from(users)
_UPDATE = sa.update(users).where(_is_this)
_DELETE = sa.delete(users).where(_is_this)
# The locks make whoever would take away another admin at the same time wait, and then look again.
_ENABLED_ADMINS = (
    sa.select(_columns.user_id)
    .where(_columns.role == Role.ADMIN, _columns.disabled.is_(False))
    .order_by(_columns.user_id)
    .with_for_update()
)


class _Refusal(Enum):
    """Answered rather than raised inside the transaction, which others share."""

    LAST_ADMIN = auto()


class SqlUserStore:
    """See :class:`sandgate.store.base.UserStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, user: User, answer: KeptAnswer | None = None) -> None:
        """Add a row, and what is answered about it; raises ``UserNameTaken``."""
        row = _row_of(user)

        def work(connection: Connection) -> bool:
            if not changed(connection.execute(_INSERT, row)):
                return False
            keep_answer(connection, answer)
            return True

        if not await self._database.write(work):
            raise UserNameTaken(f"There is a user named {user.name!r} already; choose another name.")

    async def find(self, user_id: UserId) -> User | None:
        """The row with this id."""
        return await self._database.read(lambda connection: _find(connection, user_id))

    async def find_by_name(self, name: str) -> User | None:
        """The row with this name (compared exactly)."""
        row = await self._database.read(
            lambda connection: connection.execute(_FIND_BY_NAME, {"wanted_name": name}).one_or_none()
        )
        return None if row is None else _parse(row)

    async def list(self, page: PageRequest) -> Page[User]:
        """A page, newest first."""
        statement = _LIST if page.before_id is None else _LIST_BEFORE
        parameters = page_parameters(page)
        rows = await self._database.read(lambda connection: connection.execute(statement, parameters).all())
        return page_of(rows, page, _parse)

    async def count(self) -> int:
        """How many users there are."""
        return await self._database.read(lambda connection: connection.execute(_COUNT).scalar_one())

    async def update(
        self,
        user_id: UserId,
        *,
        role: Role | None = None,
        password_hash: str | None = None,
        disabled: bool | None = None,
        tokens_valid_from: datetime | None = None,
    ) -> User | None:
        """Change what is not None in one transaction and answer the new row; None when there is none.

        Raises ``LastAdmin``, with nothing written, when no enabled admin would be left.
        """
        wanted = {
            "role": role,
            "password_hash": password_hash,
            "disabled": disabled,
            "tokens_valid_from": tokens_valid_from,
        }
        values = {name: value for name, value in wanted.items() if value is not None}
        answer = await self._database.write(lambda connection: _update(connection, user_id, values))
        if isinstance(answer, _Refusal):
            raise _last_admin(user_id)
        return answer

    async def delete(self, user_id: UserId) -> bool:
        """Remove the row, API keys, schedules and webhooks; False when there was none. Raises ``LastAdmin``."""
        answer = await self._database.write(lambda connection: _delete(connection, user_id))
        if isinstance(answer, _Refusal):
            raise _last_admin(user_id)
        return answer


def _last_admin(user_id: UserId) -> LastAdmin:
    return LastAdmin(f"{user_id} is the last enabled admin: make or enable another admin first.")


def _find(connection: Connection, user_id: UserId) -> User | None:
    row = connection.execute(_FIND, {"wanted_id": user_id}).one_or_none()
    return None if row is None else _parse(row)


def _update(connection: Connection, user_id: UserId, values: dict[str, Any]) -> User | _Refusal | None:
    takes_away = values.get("role", Role.ADMIN) is not Role.ADMIN or values.get("disabled", False)
    if takes_away and _is_last_admin(connection, user_id):
        return _Refusal.LAST_ADMIN
    if values:
        connection.execute(_UPDATE.values(values), {"wanted_id": user_id})
    return _find(connection, user_id)


def _delete(connection: Connection, user_id: UserId) -> bool | _Refusal:
    if _is_last_admin(connection, user_id):
        return _Refusal.LAST_ADMIN
    # First: whoever adds something of the user's holds this row meanwhile, and finds none afterwards.
    was_there = changed(connection.execute(_DELETE, {"wanted_id": user_id}))
    condemn_volumes_of(connection, user_id)
    for table in (schedules, webhooks):
        connection.execute(sa.delete(table).where(table.c.owner_id == user_id))
    return was_there


def _is_last_admin(connection: Connection, user_id: UserId) -> bool:
    return connection.execute(_ENABLED_ADMINS).scalars().all() == [user_id]


def _row_of(user: User) -> dict[str, Any]:
    return {
        "user_id": user.user_id,
        "name": user.name,
        "role": user.role,
        "password_hash": user.password_hash,
        "disabled": user.disabled,
        "created_at": user.created_at,
        "tokens_valid_from": user.tokens_valid_from,
    }


def _parse(row: Row[Any]) -> User:
    return User(**{**row._mapping, "role": Role(row.role)})
