"""Rows of the audit log."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from sandgate.core.audit import (
    BEGINNING,
    AuditChain,
    AuditEntry,
    AuditHead,
    AuditOutcome,
    AuditRow,
    Credential,
)
from sandgate.store.audit_schema import audit_head, audit_log
from sandgate.store.base.audit import AuditFilter
from sandgate.store.database import Database
from sandgate.store.statements import HotStatement, is_one_of, padded, upsert

_columns = audit_log.c
_FIELDS = tuple(field.name for field in fields(AuditEntry))

KindT = TypeVar("KindT", bound=StrEnum)

_INSERT = HotStatement(upsert(audit_log, "(number) DO NOTHING"))
_FIRST_HEAD = upsert(audit_head, "(head_id) DO NOTHING")
# The lock makes other servers on the same database wait until this transaction is over, so that each goes on where the
# other one ended.
_HEAD = sa.select(audit_head).where(audit_head.c.head_id == 1)
_LOCKED_HEAD = _HEAD.with_for_update()
# A server that was stopped while it has the lock has it until the database ends its session. What waits for the lock
# holds up all writes of this server meanwhile, and has to be done again later: the first time it is waited for as long
# as a busy server may have it, and from then on hardly at all, until it could be had again.
_BE_BRIEF = sa.text("SELECT set_config('lock_timeout', :limit, true)")
_USUAL_WAIT, _BRIEF_WAIT = "500ms", "20ms"
_LAST_NUMBER = sa.select(sa.func.max(_columns.number))
_HEAD_FIELDS = tuple(field.name for field in fields(AuditHead))
_MOVE_HEAD = HotStatement(
    sa.update(audit_head)
    .where(audit_head.c.head_id == sa.literal_column("1"))
    .values({name: sa.bindparam(f"new_{name}", type_=audit_head.c[name].type) for name in _HEAD_FIELDS})
)
_KNOWN = sa.select(_columns.audit_id).where(is_one_of(_columns.audit_id, "ids"))
_READ = (
    sa.select(audit_log)
    .where(_columns.number > sa.bindparam("after_number"))
    .order_by(_columns.number)
    .limit(sa.bindparam("most"))
)
_DELETE = sa.delete(audit_log).where(_columns.number < sa.bindparam("first_number"))
_CONDITIONS: Mapping[str, sa.ColumnElement[bool]] = {
    "after": _columns.at >= sa.bindparam("after", type_=_columns.at.type),
    "before": _columns.at < sa.bindparam("before", type_=_columns.at.type),
    "before_number": _columns.number < sa.bindparam("before_number"),
}


class SqlAuditStore:
    """See :class:`sandgate.store.base.AuditStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wait = _USUAL_WAIT

    async def append(self, entries: Sequence[AuditEntry], chain: AuditChain) -> int:
        """Add entries behind the last row, in this order; answers the number of the last."""
        return await self._at_the_end(lambda connection, wait: _append(connection, entries, chain, wait))

    async def list(self, wanted: AuditFilter, before_number: int | None, limit: int) -> Sequence[AuditRow]:
        """At most ``limit`` rows, newest first, with numbers below ``before_number``."""
        given = {
            "actor_id": wanted.actor_id,
            "action": wanted.action,
            "resource_id": wanted.resource_id,
            "outcome": wanted.outcome,
            "after": wanted.after,
            "before": wanted.before,
            "before_number": before_number,
        }
        parameters: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        statement = _list_statement(tuple(parameters))
        parameters["most"] = limit
        rows = await self._database.read(lambda connection: connection.execute(statement, parameters).all())
        return [_parse(row) for row in rows]

    async def read(self, after_number: int, limit: int) -> Sequence[AuditRow]:
        """At most ``limit`` rows with numbers above ``after_number``, oldest first."""
        parameters = {"after_number": after_number, "most": limit}
        rows = await self._database.read(lambda connection: connection.execute(_READ, parameters).all())
        return [_parse(row) for row in rows]

    async def find_head(self) -> AuditHead | None:
        """Where the log ends and begins; None when nothing was ever added."""
        row = await self._database.read(lambda connection: connection.execute(_HEAD).one_or_none())
        return None if row is None else _parse_head(row)

    async def prune(self, before: datetime, most: int, chain: AuditChain) -> int:
        """Remove at most ``most`` rows from the beginning, up to the first one that is not older; answers how many."""
        return await self._at_the_end(lambda connection, wait: _prune(connection, before, most, chain, wait))

    async def _at_the_end(self, work: Callable[[Connection, str], int]) -> int:
        """Do what needs the lock, behind all other work of its transaction."""

        def do(connection: Connection) -> int:
            wait, self._wait = self._wait, _BRIEF_WAIT
            done = work(connection, wait)
            # It could be had. If not, the next try comes with another transaction, soon or later.
            self._wait = _USUAL_WAIT
            return done

        return await self._database.write(do, repeatable=True, last=True)


def _append(connection: Connection, entries: Sequence[AuditEntry], chain: AuditChain, wait: str) -> int:
    head = _lock_head(connection, chain, wait)
    known = set(connection.execute(_KNOWN, {"ids": padded(entry.audit_id for entry in entries)}).scalars())
    # A row that somebody put in behind the end must not keep others from being added.
    number = max(head.number, connection.execute(_LAST_NUMBER).scalar_one() or 0)
    rows = chain.follow(head.digest, number, [entry for entry in entries if entry.audit_id not in known])
    if rows:
        _INSERT.run_all(connection, [_values_of(row) for row in rows])
        _move(connection, chain.make_head(rows[-1].number, rows[-1].digest, head.first_number, head.anchor))
    return rows[-1].number if rows else head.number


def _prune(connection: Connection, before: datetime, most: int, chain: AuditChain, wait: str) -> int:
    head = _lock_head(connection, chain, wait)
    oldest = connection.execute(_READ, {"after_number": head.first_number - 1, "most": most}).all()
    count = next((index for index, row in enumerate(oldest) if row.at >= before), len(oldest))
    if count:
        anchor, first_number = bytes(oldest[count - 1].digest), oldest[count - 1].number + 1
        # The guard lets go of what is before the beginning.
        _move(connection, chain.make_head(head.number, head.digest, first_number, anchor))
        connection.execute(_DELETE, {"first_number": first_number})
    return count


def _lock_head(connection: Connection, chain: AuditChain, wait: str) -> AuditHead:
    if connection.dialect.name == "postgresql":
        connection.execute(_BE_BRIEF, {"limit": wait})
    row = connection.execute(_LOCKED_HEAD).one_or_none()
    if row is None:
        first = chain.make_head(0, BEGINNING, 1, BEGINNING)
        connection.execute(_FIRST_HEAD, {"head_id": 1, **{name: getattr(first, name) for name in _HEAD_FIELDS}})
        row = connection.execute(_LOCKED_HEAD).one()
    return _parse_head(row)


def _move(connection: Connection, head: AuditHead) -> None:
    _MOVE_HEAD.run(connection, {f"new_{name}": getattr(head, name) for name in _HEAD_FIELDS})


def _parse_head(row: Row[Any]) -> AuditHead:
    return AuditHead(row.number, bytes(row.digest), row.first_number, bytes(row.anchor), bytes(row.seal))


def _values_of(row: AuditRow) -> dict[str, Any]:
    values = {name: getattr(row.entry, name) for name in _FIELDS}
    values["details"] = json.dumps(dict(row.entry.details), separators=(",", ":"))
    return {**values, "number": row.number, "digest": row.digest}


def _parse(row: Row[Any]) -> AuditRow:
    values = {name: row._mapping[name] for name in _FIELDS}
    values["outcome"], values["credential"] = _kind(AuditOutcome, row.outcome), _kind(Credential, row.credential)
    values["details"] = _details(row.details)
    return AuditRow(row.number, AuditEntry(**values), bytes(row.digest))


def _kind(kind: type[KindT], value: str) -> KindT:
    """The member; what is none, because somebody changed the row, is left as it is for the chain to tell of."""
    try:
        return kind(value)
    except ValueError:
        return value  # type: ignore[return-value]


def _details(text: str) -> dict[str, Any]:
    """The object; what is none, because somebody changed the row, is shown as it is."""
    try:
        found = json.loads(text)
    except ValueError:
        found = text
    return found if isinstance(found, dict) else {"unreadable": text}


@lru_cache(maxsize=256)
def _list_statement(given: tuple[str, ...]) -> sa.Select[Any]:
    statement = sa.select(audit_log)
    for name in given:
        condition = _CONDITIONS.get(name)
        statement = statement.where(_columns[name] == sa.bindparam(name) if condition is None else condition)
    return statement.order_by(_columns.number.desc()).limit(sa.bindparam("most"))
