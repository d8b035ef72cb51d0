"""The user who is to own what is about to be added."""

import sqlalchemy as sa
from sqlalchemy import Connection

from sandgate.core.ids import UserId
from sandgate.store.schema import users

_HOLD = sa.select(users.c.user_id).where(users.c.user_id == sa.bindparam("wanted_owner")).with_for_update()


def hold_owner(connection: Connection, owner_id: UserId) -> bool:
    """Whether the user is there, who then does not go before the end of the transaction.

    Whoever adds to what a user has, and counts that before, holds the user first: of two at once, one waits, and counts
    what the other has added. (SQLite has one writer; there it is only the look.)
    """
    return connection.execute(_HOLD, {"wanted_owner": owner_id}).first() is not None
