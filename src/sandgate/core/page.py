"""Pages of a list: newest first, stable while rows are added."""

from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """``limit`` items (1 to 200) whose id sorts before ``before_id`` (None: from the newest)."""

    limit: int = 50
    before_id: str | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """The items, and the id to go on from (None at the end)."""

    items: tuple[ItemT, ...]
    next_before_id: str | None
