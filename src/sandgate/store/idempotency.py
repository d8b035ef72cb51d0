"""First answers to requests with an idempotency key."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.ids import UserId
from sandgate.store.base import DraftAnswer, SavedAnswer
from sandgate.store.database import Database
from sandgate.store.schema import idempotency
from sandgate.store.statements import changed, upsert

_columns = idempotency.c
_is_this = sa.and_(_columns.user_id == sa.bindparam("wanted_user"), _columns.key == sa.bindparam("wanted_key"))
_is_unanswered = _columns.status.is_(None)

# What has outlived its time makes room for a new claim.
_CLAIM = upsert(
    idempotency,
    "(user_id, key) DO UPDATE SET request_sha256 = excluded.request_sha256, status = excluded.status, "
    "body = excluded.body, created_at = excluded.created_at WHERE idempotency.created_at < :fresh_after",
).bindparams(sa.bindparam("fresh_after", type_=_columns.created_at.type))
_FIND: Select[Any] = sa.select(_columns.request_sha256, _columns.status, _columns.body, _columns.created_at).where(
    _is_this
)
_SAVE = (
    sa.update(idempotency)
    .where(_is_this, _is_unanswered)
    .values(status=sa.bindparam("answer_status"), body=sa.bindparam("answer_body"))
)
_DRAFT = sa.update(idempotency).where(_is_this, _is_unanswered).values(body=sa.bindparam("answer_body"))
# A draft is an unanswered row with a body.
_DRAFTED_STATUS = 200
_PUBLISH = (
    sa.update(idempotency)
    .where(_is_unanswered, sa.func.length(_columns.body) > 0)
    .values(status=sa.literal(_DRAFTED_STATUS))
)
_PUBLISH_ONE = _PUBLISH.where(_is_this)
_RELEASE = sa.delete(idempotency).where(_is_this, _is_unanswered)
_RELEASE_UNANSWERED = sa.delete(idempotency).where(_is_unanswered)
_PRUNE = sa.delete(idempotency).where(_columns.created_at < sa.bindparam("before"))


class SqlIdempotencyStore:
    """See :class:`sandgate.store.base.IdempotencyStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(
        self, user_id: UserId, key: str, request_sha256: bytes, *, at: datetime, fresh_after: datetime
    ) -> SavedAnswer | None:
        """Take the key for a new request (None), or answer what it holds.

        A row older than ``fresh_after`` is replaced, as if the key had never been used.
        """
        row = {
            "user_id": user_id,
            "key": key,
            "request_sha256": request_sha256,
            "status": None,
            "created_at": at,
            "body": b"",
            "fresh_after": fresh_after,
        }
        return await self._database.write(lambda connection: _claim(connection, row))

    async def save(self, user_id: UserId, key: str, status: int, body: bytes) -> None:
        """Keep the answer for a claimed key; the first one stays."""
        parameters = {**_named(user_id, key), "answer_status": status, "answer_body": body}
        await self._database.write(lambda connection: changed(connection.execute(_SAVE, parameters)), repeatable=True)

    async def release(self, user_id: UserId, key: str) -> None:
        """Give back a claimed key whose request was not carried out; an answer that was drafted for it is given now."""
        parameters = _named(user_id, key)

        def work(connection: Connection) -> None:
            connection.execute(_PUBLISH_ONE, parameters)
            connection.execute(_RELEASE, parameters)

        await self._database.write(work)

    async def release_unanswered(self) -> int:
        """Give back every claimed key without an answer: at the start, their requests died with the last process.

        Keys that have a draft are answered by it. Answers how many were given back.
        """

        def work(connection: Connection) -> int:
            connection.execute(_PUBLISH)
            return connection.execute(_RELEASE_UNANSWERED).rowcount

        return await self._database.write(work)

    async def prune(self, before: datetime) -> int:
        """Forget answers from before; answers how many."""
        return await self._database.write(lambda connection: connection.execute(_PRUNE, {"before": before}).rowcount)


def keep_draft(connection: Connection, draft: DraftAnswer) -> None:
    """Write a draft inside the transaction that carries its request out."""
    connection.execute(_DRAFT, {**_named(draft.user_id, draft.key), "answer_body": draft.body})


def _named(user_id: UserId, key: str) -> dict[str, Any]:
    return {"wanted_user": user_id, "wanted_key": key}


def _claim(connection: Connection, row: dict[str, Any]) -> SavedAnswer | None:
    while True:
        if changed(connection.execute(_CLAIM, row)):
            return None
        # Another process may give the key back between the two statements; then it is there to be claimed.
        held = connection.execute(_FIND, _named(row["user_id"], row["key"])).one_or_none()
        if held is not None:
            return _parse(held)


def _parse(row: Row[Any]) -> SavedAnswer:
    return SavedAnswer(row.request_sha256, row.status, row.body, row.created_at)
