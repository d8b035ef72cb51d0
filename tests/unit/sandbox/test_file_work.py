"""How many processes work at files at once, and which of them end when."""

from typing import cast

import pytest

from sandgate.sandbox.launcher.errand import Errand
from sandgate.sandbox.launcher.file_work import FileWork, Places


class FakeErrand:
    """One that ends when it is told to, and is buried a while after that."""

    def __init__(self) -> None:
        self.is_over = self.is_buried = False
        self.reason = ""

    def give_up(self, reason: str) -> None:
        """See ``Errand``."""
        if not self.is_over:
            self.is_over, self.reason = True, reason


def _errand() -> Errand:
    return cast(Errand, FakeErrand())


def _reasons(*errands: Errand) -> list[str]:
    return [cast(FakeErrand, each).reason for each in errands]


def test_there_are_so_many_at_once() -> None:
    """One that has been given up has its place until nothing of it is left."""
    places, errands = Places(2), [_errand(), _errand()]
    for each in errands:
        places.check()
        places.take(each)
    with pytest.raises(OSError, match="2 sandboxes are being worked at"):
        places.check()
    errands[0].give_up("deleted")
    with pytest.raises(OSError, match="the most at once"):
        places.check()
    errands[0].is_buried = True
    places.check()


def test_what_reads_ends_when_the_sandbox_goes_on() -> None:
    """What fills it does not; all of it ends with the sandbox."""
    work = FileWork()
    filling, packing, *copying = (_errand() for _each in range(4))
    work.note_filling(filling)
    work.note_packing(packing)
    for each in copying:
        work.note_copying(each)
    work.go_on()
    assert _reasons(packing, *copying, filling) == ["it goes on again"] * 3 + [""]
    with pytest.raises(OSError, match="filled already"):
        work.check_not_filled()
    again = _errand()
    work.note_packing(again)
    work.end("it was deleted")
    assert _reasons(filling, again, packing) == ["it was deleted"] * 2 + ["it goes on again"]
    work.check_not_filled()


def test_a_sandbox_is_packed_by_one() -> None:
    """The last that was asked for."""
    work, first, second = FileWork(), _errand(), _errand()
    work.note_packing(first)
    work.note_packing(second)
    assert _reasons(first, second) == ["it is being packed anew", ""]
