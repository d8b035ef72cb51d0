"""Transactions of servers that share a database, one at a time where they are about the same thing."""

import hashlib
import time
from collections.abc import Collection, Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sandgate.store import faults

# A busy server has a turn for as long as a transaction takes. One that was stopped in the middle of its own has it
# until the database ends its session, and whoever waits holds up all writes of this server: once one was waited for in
# vain, the others are waited for more briefly, and that one is for some time only asked for.
_LONGEST_WAIT, _BRIEF_WAIT = "500ms", "200ms"
_STUCK_S = 5.0
# Of locks that transactions hold, which end with them.
# Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADVISORY-LOCKS
_LOCK = "SELECT pg_advisory_xact_lock({})"
_TRY = "SELECT {}"
_TRY_ONE = "pg_try_advisory_xact_lock({})"
# The patience with locks is that of the turns while they are waited for, and then what it was before.
_BEFORE = (
    "SAVEPOINT turns",
    "SELECT set_config('sandgate.patience', current_setting('lock_timeout'), true)",
    "SET LOCAL lock_timeout = '{}'",
)
_AFTER = (
    "SELECT set_config('lock_timeout', current_setting('sandgate.patience'), true)",
    "RELEASE SAVEPOINT turns",
)
# What was locked since the savepoint is let go, and the patience is what it was.
_LET_GO = "ROLLBACK TO SAVEPOINT turns; RELEASE SAVEPOINT turns"


class Turns:
    """Takes turns for the transactions of one connection."""

    def __init__(self) -> None:
        # Until when each is known to be with somebody who does not go on.
        self._stuck: dict[str, float] = {}
        # Until when it is remembered that one did not come in a brief wait, which says little.
        self._late: dict[str, float] = {}

    def take(self, connection: Connection, wanted: Collection[str]) -> frozenset[str]:
        """Wait until no other transaction has one of these, and keep them until this one ends; those that do not come.

        To be done before anything else, and once: everybody waits for them in the same order, and nobody waits who has
        a row that another one waits for, so that no two wait for each other. SQLite has one writer, whose turn it
        always is.
        """
        if not wanted or connection.dialect.name != "postgresql":
            return frozenset()
        self._forget(time.monotonic())
        asked = {turn for turn in wanted if turn in self._stuck}
        longest = _BRIEF_WAIT if self._stuck else _LONGEST_WAIT
        if not _wait_for(connection, set(wanted) - asked, longest):
            asked = set(wanted)
        missing = _ask_for(connection, sorted(asked, key=key_of))
        for turn in set(wanted) - missing:
            self._stuck.pop(turn, None)
            self._late.pop(turn, None)
        self._note_missing(missing, longest)
        return frozenset(missing)

    def _forget(self, now: float) -> None:
        self._stuck = {turn: until for turn, until in self._stuck.items() if until > now}
        self._late = {turn: until for turn, until in self._late.items() if until > now}

    def _note_missing(self, missing: Collection[str], waited: str) -> None:
        until = time.monotonic() + _STUCK_S
        for turn in missing:
            if waited == _LONGEST_WAIT or turn in self._late:
                self._stuck.setdefault(turn, until)
            self._late[turn] = until


def key_of(turn: str) -> int:
    """The number of its lock."""
    return int.from_bytes(hashlib.sha256(turn.encode(errors="surrogatepass")).digest()[:8], "big", signed=True)


def _wait_for(connection: Connection, turns: Collection[str], longest: str) -> bool:
    """Have them all, or none after so long."""
    if not turns:
        return True
    locks = (_LOCK.format(key) for key in sorted(map(key_of, turns)))
    try:
        _execute(connection, "; ".join((*_BEFORE, *locks, *_AFTER)).format(longest))
    except DBAPIError as error:
        if not faults.is_lock_held(error):
            raise
        _execute(connection, _LET_GO)
        return False
    return True


def _ask_for(connection: Connection, turns: Sequence[str]) -> set[str]:
    """Have as many of them as nobody has; the others."""
    if not turns:
        return set()
    statement = _TRY.format(", ".join(_TRY_ONE.format(key_of(turn)) for turn in turns))
    got = connection.exec_driver_sql(statement, execution_options={"no_parameters": True}).one()
    return {turn for turn, has_it in zip(turns, got, strict=True) if not has_it}


def _execute(connection: Connection, statements: str) -> None:
    """All in one exchange."""
    connection.exec_driver_sql(statements, execution_options={"no_parameters": True})
