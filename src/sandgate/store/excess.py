"""Owners of whom more is kept than may be."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from sandgate.core.ids import UserId
from sandgate.store.schema import runs
from sandgate.store.statements import is_one_of, padded

# Of more it is as well to look at all.
_MOST_OWNERS = 500

SINCE = sa.bindparam("since", type_=runs.c.finished_at.type)
"""A time, in the conditions of what is looked at."""
HAS_ENDED_SINCE = sa.and_(runs.c.finished_at.is_not(None), runs.c.finished_at >= SINCE)
"""Of a run; an index has these."""


class Excess:
    """``kept`` are the sizes of all that is kept, with their owners; ``news`` the owners to whom some came since."""

    def __init__(self, kept: sa.FromClause, news: sa.SelectBase) -> None:
        self._of_all = _over(kept)
        self._of_some = _over(kept, is_one_of(kept.c.owner_id, "wanted_owners"))
        owners = news.subquery()
        # Not the bare column, whose index would be walked from one end to the other in search of the few with news.
        owner = sa.func.coalesce(owners.c.owner_id, "")
        self._news: Select[Any] = sa.select(owner).distinct().limit(_MOST_OWNERS + 1)

    def find(self, connection: Connection, most_bytes: int, since: datetime | None) -> Sequence[tuple[UserId, int]]:
        """Who has more, and how much more; with ``since`` only of those to whom some came since then."""
        parameters: dict[str, Any] = {"most_bytes": most_bytes}
        statement = self._of_all
        if since is not None:
            owners = connection.execute(self._news, {"since": since}).scalars().all()
            if not owners:
                return []
            if len(owners) <= _MOST_OWNERS:
                statement, parameters = self._of_some, {**parameters, "wanted_owners": padded(owners)}
        rows = connection.execute(statement, parameters).all()
        return [(UserId(row.owner_id), int(row.excess_bytes)) for row in rows]


def _over(kept: sa.FromClause, *conditions: sa.ColumnElement[bool]) -> Select[Any]:
    sums = sa.func.sum(kept.c.size_bytes)
    most = sa.bindparam("most_bytes", type_=sa.BigInteger)
    return (
        sa.select(kept.c.owner_id, (sums - most).label("excess_bytes"))
        .where(*conditions)
        .group_by(kept.c.owner_id)
        .having(sums > most)
    )
