"""The processes that work at the files of sandboxes: how many there are, and whose end is theirs."""

import errno

from sandgate.sandbox.launcher.errand import Errand

# The gateway asks for 48: four environments at once for four copies each, 16 snapshots, 16 that are laid out. What it
# has stopped waiting for may still be at work.
MOST_AT_ONCE = 64


class Places:
    """``most`` of them at once in the whole launcher."""

    def __init__(self, most: int = MOST_AT_ONCE) -> None:
        self._most = most
        self._taken: list[Errand] = []

    def check(self) -> None:
        """Raises ``OSError`` when there is no place for another one."""
        self._taken = [errand for errand in self._taken if not errand.is_buried]
        if len(self._taken) >= self._most:
            raise OSError(errno.EAGAIN, f"files of {self._most} sandboxes are being worked at, the most at once")

    def take(self, errand: Errand) -> None:
        """It has a place until the last of it is gone."""
        self._taken.append(errand)


class FileWork:
    """What is at work at the files of one sandbox: one that fills it, one that packs it, and those that copy it.

    All of them end with it, and those that read it, which is to stand still for them, when it goes on.
    """

    def __init__(self) -> None:
        self._filling: Errand | None = None
        self._packing: Errand | None = None
        self._copying: list[Errand] = []

    def check_not_filled(self) -> None:
        """Raises ``OSError`` while something fills it."""
        if self._filling is not None and not self._filling.is_over:
            raise OSError(errno.EBUSY, "it is being filled already")

    def note_filling(self, errand: Errand) -> None:
        """This fills it."""
        self._filling = errand

    def note_packing(self, errand: Errand) -> None:
        """This packs it; nobody waits any more for what did so before."""
        if self._packing is not None:
            self._packing.give_up("it is being packed anew")
        self._packing = errand

    def note_copying(self, errand: Errand) -> None:
        """This gives its files to another one."""
        self._copying = [each for each in self._copying if not each.is_over]
        self._copying.append(errand)

    def go_on(self) -> None:
        """The sandbox is about to change its files again."""
        self._end_reading("it goes on again")

    def end(self, reason: str) -> None:
        """The sandbox ends."""
        if self._filling is not None:
            self._filling.give_up(reason)
        self._end_reading(reason)

    def _end_reading(self, reason: str) -> None:
        for errand in self._copying:
            errand.give_up(reason)
        if self._packing is not None:
            self._packing.give_up(reason)
        self._copying, self._packing = [], None
