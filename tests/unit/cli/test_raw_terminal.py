"""The user's terminal while it is lent to a program elsewhere."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import pytest

from sandgate.cli.environments.raw_terminal import lend, size_of

if TYPE_CHECKING:
    from sandgate.sdk.terminal import Terminal


class Remote:
    """A terminal elsewhere whose program ends at once."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def pieces(self) -> Iterator[bytes]:
        """Nothing is shown."""
        return iter(())

    def resize(self, rows: int, columns: int) -> None:
        """Note it."""
        self.sizes.append((rows, columns))

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def terminal() -> Iterator[int]:
    """A terminal of the user's."""
    outer, inner = os.openpty()
    yield inner
    os.close(inner)
    os.close(outer)


@pytest.mark.parametrize("is_other", [True, False])
def test_a_size_that_changed_while_it_was_opened_is_told(terminal: int, is_other: bool) -> None:
    """Once it is lent; one that has not changed needs no word."""
    remote, now = Remote(), size_of(terminal)
    opened_with = (now[0] + 1, now[1]) if is_other else now
    assert lend(cast("Terminal", remote), terminal, terminal, opened_with)
    assert remote.sizes == ([now] if is_other else [])
