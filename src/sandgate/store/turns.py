"""Transactions of servers that share a database, one at a time where they are about the same thing."""

import hashlib
from collections.abc import Collection

from sqlalchemy import Connection

# A busy server has a turn for as long as a transaction takes. One that was stopped in the middle of its own has it
# until the database ends its session, and whoever waits holds up all writes of this server.
_LONGEST_WAIT = "500ms"
# Of locks that transactions hold, which end with them.
# Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADVISORY-LOCKS
_LOCK = "SELECT pg_advisory_xact_lock({})"


def take_turns(connection: Connection, turns: Collection[str]) -> None:
    """Wait until no other transaction has one of these, and keep them until this one ends.

    To be done before anything else, and once: everybody takes them in the same order, and nobody has a row that another
    one waits for, so that no two wait for each other. From then on the transaction waits for no lock for long. SQLite
    has one writer, whose turn it always is.
    """
    if not turns or connection.dialect.name != "postgresql":
        return
    locks = (_LOCK.format(key) for key in sorted(map(key_of, turns)))
    # One exchange for all of it.
    statements = "; ".join((f"SET LOCAL lock_timeout = '{_LONGEST_WAIT}'", *locks))
    connection.exec_driver_sql(statements, execution_options={"no_parameters": True})


def key_of(turn: str) -> int:
    """The number of its lock."""
    return int.from_bytes(hashlib.sha256(turn.encode(errors="surrogatepass")).digest()[:8], "big", signed=True)
