"""Rows of signals to runs."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from sandgate.core.ids import RunId, SignalId
from sandgate.core.run import RunSignal, SignalKind
from sandgate.store.base import NoteKind, RunNote
from sandgate.store.database import Database
from sandgate.store.notes import publish
from sandgate.store.schema import run_signals, runs
from sandgate.store.statements import upsert

# The lock makes the end of the run, which deletes its signals, come before or after, never at the same time.
_LIVE = (
    sa.select(runs.c.run_id)
    .where(runs.c.run_id == sa.bindparam("wanted_id"), runs.c.finished_at.is_(None))
    .with_for_update(read=True)
)
_INSERT = upsert(run_signals, "(signal_id) DO NOTHING")
_HELD = (
    sa.select(run_signals)
    .join(runs, runs.c.run_id == run_signals.c.run_id)
    .where(
        runs.c.lease_owner == sa.bindparam("owner"),
        runs.c.finished_at.is_(None),
        # What only a newer server understands waits for one.
        run_signals.c.kind.in_(tuple(SignalKind)),
    )
    .order_by(run_signals.c.signal_id)
)
_EXISTS = sa.select(run_signals.c.signal_id).where(run_signals.c.signal_id == sa.bindparam("wanted_id"))


class SqlSignalStore:
    """See :class:`sandgate.store.base.SignalStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, signal: RunSignal) -> bool:
        """Add a row, unless it is there, and wake up the process that works on the run.

        False, and nothing written, when it has ended.
        """

        def work(connection: Connection) -> bool:
            if connection.execute(_LIVE, {"wanted_id": signal.run_id}).first() is None:
                return False
            add_signals(connection, [signal])
            return True

        return await self._database.write(work)

    async def list_held(self, owner: str) -> Sequence[RunSignal]:
        """The signals to runs that ``owner`` works on, oldest first."""
        rows = await self._database.read(lambda connection: connection.execute(_HELD, {"owner": owner}).all())
        return [_parse(row) for row in rows]

    async def exists(self, signal_id: SignalId) -> bool:
        """Whether nobody has acted on it yet."""
        parameters = {"wanted_id": signal_id}
        return await self._database.read(lambda connection: connection.execute(_EXISTS, parameters).first()) is not None


def add_signals(connection: Connection, signals: Sequence[RunSignal]) -> None:
    """Add rows inside a transaction that holds their runs, which live."""
    for signal in signals:
        connection.execute(_INSERT, {field.name: getattr(signal, field.name) for field in fields(signal)})
        publish(connection, RunNote(NoteKind.SIGNAL, signal.run_id))


def _parse(row: Row[Any]) -> RunSignal:
    return RunSignal(SignalId(row.signal_id), RunId(row.run_id), SignalKind(row.kind), row.created_at, dict(row.body))
