"""Notes between processes on one PostgreSQL, by its LISTEN and NOTIFY. Other databases have one process."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection, make_url

from sandgate.core.ids import RunId
from sandgate.store import faults, postgres
from sandgate.store.base import NoteKind, RunNote
from sandgate.store.connections import Location
from sandgate.telemetry.log import get_logger

_CHANNEL = "sandgate_runs"
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.2, 5.0

_NOTIFY = sa.select(sa.func.pg_notify(_CHANNEL, sa.bindparam("payload")))

_log = get_logger(__name__)


def publish(connection: Connection, note: RunNote) -> None:
    """Tell every process, once the transaction that this is part of has been committed."""
    if connection.dialect.name == "postgresql":
        connection.execute(_NOTIFY, {"payload": f"{note.kind} {note.run_id or ''}"})


class SqlRunNotes:
    """See :class:`sandgate.store.base.RunNotes`. The connection is its own, and is made anew when it is lost."""

    def __init__(self, location: Location) -> None:
        self._location = location

    async def listen(self, on_note: Callable[[RunNote], None]) -> None:
        """Hear notes until cancelled; returns at once where there are no other processes."""
        if isinstance(self._location, Path):
            return
        url, clock = make_url(self._location), asyncio.get_running_loop().time
        delay_s = _FIRST_DELAY_S

        def on_payload(payload: str) -> None:
            note = _parse(payload)
            if note is not None:
                on_note(note)

        while True:
            started = clock()
            try:
                await postgres.listen(url, _CHANNEL, lambda: on_note(RunNote(NoteKind.AGAIN)), on_payload)
            except faults.UnreachableError as error:
                _log.warning("other servers are not heard", reason=str(error))
            if clock() - started > _LONGEST_DELAY_S:
                delay_s = _FIRST_DELAY_S
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)


def _parse(payload: str) -> RunNote | None:
    """None for what another version of the server says."""
    kind, _, run_id = payload.partition(" ")
    with suppress(ValueError):
        return RunNote(NoteKind(kind), RunId(run_id) if run_id else None)
    return None
