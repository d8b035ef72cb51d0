"""Rows of webhooks, and of what was delivered to them."""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import RunId, UserId, WebhookId, WorkflowId
from sandgate.core.page import Page, PageRequest
from sandgate.core.trigger import Delivery, DeliveryStatus, Signature, Webhook
from sandgate.store.base import DeliveryKeys, RunChange
from sandgate.store.database import Database
from sandgate.store.heavy_rows import HeavyTable
from sandgate.store.idempotency import keep_answer
from sandgate.store.runs import insert_run
from sandgate.store.statements import changed, newest_first, page_parameters
from sandgate.store.trigger_schema import webhook_deliveries, webhook_keys, webhooks
from sandgate.store.triggers import delete_parts, has_room
from sandgate.store.versions import write_beginning

MOST_DELIVERIES = 50
"""So many of a webhook's deliveries are kept, the last ones."""

_HEAVY = HeavyTable(webhooks, "inputs", "filter")

_columns, _keys, _delivered = webhooks.c, webhook_keys.c, webhook_deliveries.c
_is_this = _columns.webhook_id == sa.bindparam("wanted_id")
_FIXED = ("webhook_id", "workflow_id", "owner_id", "created_at")

_INSERT = sa.insert(webhooks)
_FIND = sa.select(webhooks).where(_is_this)
_FIND_BY_TOKEN = sa.select(webhooks).where(_columns.token_sha256 == sa.bindparam("wanted_token"))
# Deliveries of one webhook are taken one after the other, so that of two with the same key one is the first.
_HOLD: Select[Any] = sa.select(_columns.webhook_id).where(_is_this).with_for_update()
_REPLACE = (
    sa.update(webhooks)
    .where(_is_this, _columns.updated_at == sa.bindparam("held_updated_at", type_=_columns.updated_at.type))
    .values({c.name: sa.bindparam(f"new_{c.name}", type_=c.type) for c in webhooks.columns if c.name not in _FIXED})
)
_DELETE = sa.delete(webhooks).where(_is_this)
_FORGET_KEYS = sa.delete(webhook_keys).where(
    _keys.webhook_id == sa.bindparam("wanted_id"),
    _keys.created_at < sa.bindparam("fresh_after", type_=_keys.created_at.type),
)
_FIND_KEY: Select[Any] = sa.select(_keys.run_id).where(
    _keys.webhook_id == sa.bindparam("wanted_id"), _keys.key_sha256 == sa.bindparam("wanted_key")
)
_INSERT_KEY = sa.insert(webhook_keys)
_NOTE = sa.insert(webhook_deliveries)
_DELIVERIES = (
    sa.select(webhook_deliveries)
    .where(_delivered.webhook_id == sa.bindparam("wanted_id"))
    .order_by(_delivered.delivery_id.desc())
    .limit(MOST_DELIVERIES)
)
_FIRST_FORGOTTEN: Select[Any] = (
    sa.select(_delivered.delivery_id)
    .where(_delivered.webhook_id == sa.bindparam("wanted_id"))
    .order_by(_delivered.delivery_id.desc())
    .offset(MOST_DELIVERIES)
    .limit(1)
)
_FORGET_DELIVERIES = sa.delete(webhook_deliveries).where(
    _delivered.webhook_id == sa.bindparam("wanted_id"), _delivered.delivery_id <= sa.bindparam("last")
)


class SqlWebhookStore:
    """See :class:`sandgate.store.base.WebhookStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, webhook: Webhook, most: int, answer: KeptAnswer | None = None) -> bool | None:
        """Add a row, and what is answered about it.

        None when its workflow has been deleted; False when its owner has ``most`` or more; nothing is written then.
        """

        def work(connection: Connection) -> bool | None:
            room = has_room(connection, webhooks, webhook.workflow_id, webhook.owner_id, most)
            if not room:
                return room
            connection.execute(_INSERT, _row_of(webhook))
            keep_answer(connection, answer)
            return True

        return await self._database.write(work)

    async def find(self, webhook_id: WebhookId) -> Webhook | None:
        """The row."""
        parameters = {"wanted_id": webhook_id}
        row = await self._database.read(lambda connection: connection.execute(_FIND, parameters).one_or_none())
        return None if row is None else _parse(row)

    async def find_by_token(self, token_sha256: bytes) -> Webhook | None:
        """The row with this token."""
        parameters = {"wanted_token": token_sha256}
        row = await self._database.read(lambda connection: connection.execute(_FIND_BY_TOKEN, parameters).one_or_none())
        return None if row is None else _parse(row)

    async def list(self, owner_id: UserId | None, workflow_id: WorkflowId | None, page: PageRequest) -> Page[Webhook]:
        """A page, newest first; None means any.

        It ends early, and says where to go on, when it holds ``heavy_rows.MOST_BYTES``.
        """
        given = {"owner_id": owner_id, "workflow_id": workflow_id}
        parameters: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        statement = _list_statement(tuple(parameters), page.before_id is not None)
        parameters |= page_parameters(page)
        return await self._database.read(
            lambda connection: _HEAVY.read_page(connection, statement, parameters, page, _parse)
        )

    async def replace(self, before: Webhook, after: Webhook) -> bool:
        """Write what may change; False, and nothing written, unless the row is as old as ``before``."""
        parameters = {f"new_{name}": value for name, value in _row_of(after).items() if name not in _FIXED}
        parameters |= {"wanted_id": before.webhook_id, "held_updated_at": before.updated_at}
        return await self._database.write(lambda connection: changed(connection.execute(_REPLACE, parameters)))

    async def delete(self, webhook_id: WebhookId) -> bool:
        """Remove the row; False when there was none."""

        def work(connection: Connection) -> bool:
            if not changed(connection.execute(_DELETE, {"wanted_id": webhook_id})):
                return False
            delete_parts(connection, webhook_id)
            return True

        return await self._database.write(work)

    async def accept(
        self,
        delivery: Delivery,
        keys: DeliveryKeys,
        change: RunChange,
        lease_s: float | None = None,
        *,
        fresh_after: datetime,
    ) -> RunId | None:
        """Add a run, the delivery that started it and the keys that it is known by, all or nothing; answers the run.

        When one of the keys came before, after ``fresh_after``, the answer is the run that it started; the delivery is
        kept as a duplicate, and its signature is known from now on. None, and nothing written, when the workflow or
        the webhook has been deleted. Raises ``VersionGone``.
        """
        this = {"wanted_id": delivery.webhook_id}

        def work(connection: Connection) -> RunId | None:
            if connection.execute(_HOLD, this).first() is None:
                return None
            connection.execute(_FORGET_KEYS, {**this, "fresh_after": fresh_after})
            by_sender, by_signature = (_find_first(connection, delivery, key) for key in (keys.sender, keys.signature))
            first = by_signature or by_sender
            run_id = first or change.run.run_id
            if first is None:
                insert_run(connection, change, lease_s)
                _keep_key(connection, delivery, keys.sender, run_id)
            if by_signature is None:
                _keep_key(connection, delivery, keys.signature, run_id)
            status = delivery.status if first is None else DeliveryStatus.DUPLICATE
            _note(connection, replace(delivery, status=status, run_id=run_id))
            return run_id

        return await write_beginning(self._database, change.run, work, None)

    async def note(self, delivery: Delivery) -> None:
        """Keep a delivery that started nothing."""

        def work(connection: Connection) -> None:
            if connection.execute(_HOLD, {"wanted_id": delivery.webhook_id}).first() is not None:
                _note(connection, delivery)

        await self._database.write(work)

    async def list_deliveries(self, webhook_id: WebhookId) -> Sequence[Delivery]:
        """The last deliveries that are kept, newest first."""
        parameters = {"wanted_id": webhook_id}
        rows = await self._database.read(lambda connection: connection.execute(_DELIVERIES, parameters).all())
        return [Delivery(**{**row._mapping, "status": DeliveryStatus(row.status)}) for row in rows]


@lru_cache
def _list_statement(equal: tuple[str, ...], has_before: bool) -> Select[Any]:
    base = _HEAVY.light
    for name in equal:
        base = base.where(_columns[name] == sa.bindparam(name))
    return newest_first(base, _columns.webhook_id, PageRequest(before_id="" if has_before else None))


def _find_first(connection: Connection, delivery: Delivery, key: bytes | None) -> RunId | None:
    if key is None:
        return None
    found = connection.execute(_FIND_KEY, {"wanted_id": delivery.webhook_id, "wanted_key": key}).first()
    return None if found is None else RunId(found.run_id)


def _keep_key(connection: Connection, delivery: Delivery, key: bytes | None, run_id: RunId) -> None:
    if key is not None:
        row = {"webhook_id": delivery.webhook_id, "key_sha256": key, "created_at": delivery.received_at}
        connection.execute(_INSERT_KEY, {**row, "run_id": run_id})


def _note(connection: Connection, delivery: Delivery) -> None:
    """Keep a delivery, and forget the oldest beyond what is kept."""
    connection.execute(_NOTE, {field.name: getattr(delivery, field.name) for field in fields(delivery)})
    this = {"wanted_id": delivery.webhook_id}
    last = connection.execute(_FIRST_FORGOTTEN, this).scalar_one_or_none()
    if last is not None:
        connection.execute(_FORGET_DELIVERIES, {**this, "last": last})


def _row_of(webhook: Webhook) -> dict[str, Any]:
    return {field.name: getattr(webhook, field.name) for field in fields(webhook)}


def _parse(row: Row[Any]) -> Webhook:
    return Webhook(**{**row._mapping, "signature": Signature(row.signature)})
