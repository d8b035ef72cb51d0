"""Lists of rows that may be large: what one answer holds of them is bounded, whatever the size of its page."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Executable, Row, Select

from sandgate.core.limits import MIB
from sandgate.core.page import ItemT, Page, PageRequest
from sandgate.store.statements import is_one_of, padded, page_of

MOST_BYTES = 4 * MIB
"""What one answer holds of outputs, inputs or definitions: bounds memory, and how long it takes to write it as JSON."""

# Of rows whose large columns are no larger, a page of the most rows holds less than that.
_LIGHT_BYTES = 16 * 1024


def count_that_fit(sizes: Sequence[int], limit: int) -> int:
    """How many of the first rows make a page: up to the one that fills it, so that there is always one."""
    sizes_before = list(itertools.accumulate(sizes, initial=0))[: min(limit, len(sizes))]
    return sum(size < MOST_BYTES for size in sizes_before)


class HeavyTable:
    """A table of rows with a few columns that may be large; the first of these is never NULL.

    A page takes one statement as long as no row is large: of one that is, the large columns come as NULL, and it is
    read by itself once it is known that it fits.
    """

    def __init__(self, table: sa.Table, *heavy: str, times: int = 1) -> None:
        """``times``: how often the answer has the large columns."""
        self._key = table.primary_key.columns.values()[0]
        self._mark = heavy[0]
        lengths = [sa.func.coalesce(sa.func.length(table.c[name]), 0) for name in heavy]
        size = times * sum(lengths[1:], lengths[0])
        is_light = size <= _LIGHT_BYTES
        self.light: Select[Any] = sa.select(
            *(
                sa.case((is_light, column)).label(column.name) if column.name in heavy else column
                for column in table.columns
            )
        )
        wanted = is_one_of(self._key, "wanted_ids")
        self._sizes: Select[Any] = sa.select(self._key, size.label("size_bytes")).where(wanted)
        self._whole: Select[Any] = sa.select(table).where(wanted)

    def read_page(
        self,
        connection: Connection,
        statement: Executable,
        parameters: dict[str, Any],
        page: PageRequest,
        parse: Callable[[Row[Any]], ItemT],
    ) -> Page[ItemT]:
        """The page that ``statement`` finds, which is made from ``light``; it ends early when it is full."""
        rows = connection.execute(statement, parameters).all()
        heavy = {row[0] for row in rows if row._mapping[self._mark] is None}
        if not heavy:
            return page_of(rows, page, parse)
        sizes = {row[0]: int(row.size_bytes) for row in connection.execute(self._sizes, {"wanted_ids": padded(heavy)})}
        count = count_that_fit([sizes.get(row[0], 0) for row in rows], page.limit)
        shown = rows[:count]
        wanted = [row[0] for row in shown if row[0] in heavy]
        whole = {row[0]: row for row in connection.execute(self._whole, {"wanted_ids": padded(wanted)})}
        # What was removed since is left out.
        found = [whole.get(row[0]) if row[0] in heavy else row for row in shown]
        items = tuple(parse(row) for row in found if row is not None)
        return Page(items, shown[-1][0] if count < len(rows) else None)
