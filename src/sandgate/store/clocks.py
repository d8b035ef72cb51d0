"""What time it is for everybody who uses a database."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

# Not ``now()``, which stands still during a transaction and so while it waits for a lock.
_NOW: Select[Any] = sa.select(sa.func.clock_timestamp())


def database_now(connection: Connection, own: datetime) -> datetime:
    """The time by the clock of the database; by ``own`` where one process has the database for itself."""
    if connection.dialect.name != "postgresql":
        return own
    now: datetime = connection.execute(_NOW).scalar_one()
    return now.astimezone(UTC)
