"""First answers to requests with an idempotency key."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.errors import IdempotencyInProgress
from sandgate.core.idempotency import KeptAnswer, KeyClaim
from sandgate.core.ids import UserId
from sandgate.store.base import SavedAnswer
from sandgate.store.database import Database
from sandgate.store.schema import idempotency
from sandgate.store.statements import changed, upsert

_columns = idempotency.c
_is_this = sa.and_(_columns.user_id == sa.bindparam("wanted_user"), _columns.key == sa.bindparam("wanted_key"))
_is_claim = sa.and_(_is_this, _columns.claim_id == sa.bindparam("wanted_claim"))
_is_unanswered = _columns.status.is_(None)
# What versions without servers in these rows have left is everybody's.
_is_of_server = sa.or_(_columns.server_id == sa.bindparam("wanted_server"), _columns.server_id.is_(None))

# What has outlived its time makes room for a new claim.
_CLAIM = upsert(
    idempotency,
    "(user_id, key) DO UPDATE SET request_sha256 = excluded.request_sha256, status = excluded.status, "
    "body = excluded.body, created_at = excluded.created_at, claim_id = excluded.claim_id, "
    "server_id = excluded.server_id WHERE idempotency.created_at < :fresh_after",
).bindparams(sa.bindparam("fresh_after", type_=_columns.created_at.type))
_FIND: Select[Any] = sa.select(_columns.request_sha256, _columns.status, _columns.body, _columns.created_at).where(
    _is_this
)
_SAVE = (
    sa.update(idempotency)
    .where(_is_claim, _is_unanswered)
    .values(status=sa.bindparam("answer_status"), body=sa.bindparam("answer_body"))
)
# Not only while it is unanswered: a transaction of which nobody knows whether it was committed is run again.
_KEEP = (
    sa.update(idempotency)
    .where(_is_claim)
    .values(status=sa.bindparam("answer_status"), body=sa.bindparam("answer_body"))
)
# A draft is an unanswered row with a body.
_DRAFTED_STATUS = 200
_PUBLISH = (
    sa.update(idempotency)
    .where(_is_unanswered, sa.func.length(_columns.body) > 0)
    .values(status=sa.literal(_DRAFTED_STATUS))
)
_PUBLISH_ONE = _PUBLISH.where(_is_claim)
_PUBLISH_OF_SERVER = _PUBLISH.where(_is_of_server)
_RELEASE = sa.delete(idempotency).where(_is_claim, _is_unanswered)
_RELEASE_UNANSWERED = sa.delete(idempotency).where(_is_unanswered)
_RELEASE_OF_SERVER = _RELEASE_UNANSWERED.where(_is_of_server)
_PRUNE = sa.delete(idempotency).where(_columns.created_at < sa.bindparam("before"))


class SqlIdempotencyStore:
    """See :class:`sandgate.store.base.IdempotencyStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(
        self, claim: KeyClaim, request_sha256: bytes, *, at: datetime, fresh_after: datetime
    ) -> SavedAnswer | None:
        """Take the key for a new request (None), or answer what it holds.

        A row older than ``fresh_after`` is replaced, as if the key had never been used.
        """
        row = {
            "user_id": claim.user_id,
            "key": claim.key,
            "request_sha256": request_sha256,
            "status": None,
            "created_at": at,
            "body": b"",
            "claim_id": claim.claim_id,
            "server_id": claim.server_id,
            "fresh_after": fresh_after,
        }
        return await self._database.write(lambda connection: _claim(connection, row))

    async def find(self, user_id: UserId, key: str) -> SavedAnswer | None:
        """What the key holds."""
        parameters = {"wanted_user": user_id, "wanted_key": key}
        row = await self._database.read(lambda connection: connection.execute(_FIND, parameters).one_or_none())
        return None if row is None else _parse(row)

    async def save(self, claim: KeyClaim, status: int, body: bytes) -> None:
        """Keep the answer for a claimed key; the first one stays."""
        parameters = {**_named(claim), "answer_status": status, "answer_body": body}
        await self._database.write(lambda connection: changed(connection.execute(_SAVE, parameters)), repeatable=True)

    async def release(self, claim: KeyClaim) -> None:
        """Give back a claimed key whose request was not carried out; an answer that was drafted for it is given now."""
        parameters = _named(claim)

        def work(connection: Connection) -> None:
            connection.execute(_PUBLISH_ONE, parameters)
            connection.execute(_RELEASE, parameters)

        await self._database.write(work)

    async def release_unanswered(self, server_id: str | None = None) -> int:
        """Give back the claimed keys of a server (None: of all) without an answer: their requests died with it.

        Keys that have a draft are answered by it. Answers how many were given back.
        """
        return await self._database.write(lambda connection: release_unanswered(connection, server_id))

    async def prune(self, before: datetime) -> int:
        """Forget answers from before; answers how many."""
        return await self._database.write(lambda connection: connection.execute(_PRUNE, {"before": before}).rowcount)


def keep_answer(connection: Connection, answer: KeptAnswer | None) -> None:
    """Write an answer inside the transaction that carries its request out; None: there is no key.

    Raises ``IdempotencyInProgress`` when the key is not the request's any more, so that nothing is done twice.
    """
    if answer is None:
        return
    parameters = {**_named(answer.claim), "answer_status": answer.status, "answer_body": answer.body}
    if not changed(connection.execute(_KEEP, parameters)):
        raise IdempotencyInProgress(
            f"The server was out of touch for so long that Idempotency-Key {answer.claim.key} was given back; nothing "
            "was done for this request, ask again"
        )


def release_unanswered(connection: Connection, server_id: str | None) -> int:
    """See ``SqlIdempotencyStore.release_unanswered``, inside a transaction."""
    if server_id is None:
        connection.execute(_PUBLISH)
        return connection.execute(_RELEASE_UNANSWERED).rowcount
    connection.execute(_PUBLISH_OF_SERVER, {"wanted_server": server_id})
    return connection.execute(_RELEASE_OF_SERVER, {"wanted_server": server_id}).rowcount


def _named(claim: KeyClaim) -> dict[str, Any]:
    return {"wanted_user": claim.user_id, "wanted_key": claim.key, "wanted_claim": claim.claim_id}


def _claim(connection: Connection, row: dict[str, Any]) -> SavedAnswer | None:
    while True:
        if changed(connection.execute(_CLAIM, row)):
            return None
        # Another process may give the key back between the two statements; then it is there to be claimed.
        found = connection.execute(_FIND, {"wanted_user": row["user_id"], "wanted_key": row["key"]}).one_or_none()
        if found is not None:
            return _parse(found)


def _parse(row: Row[Any]) -> SavedAnswer:
    return SavedAnswer(row.request_sha256, row.status, row.body, row.created_at)
