"""How often the kernel has killed in a sandbox because it had no memory left, and whom that is laid to.

The kernel counts for the whole sandbox. Whoever is killed by it is out of memory, and so is who fails after something
that it has started was killed. Of several side by side only one that held much of the memory can be meant, and a kill
that has been laid to another one, or that another one that held much has borne, is none of its own.
"""

import os
from collections.abc import Awaitable, Callable

_MOST_TEXT = 512


class KernelKills:
    """Of one sandbox. ``ask()`` answers the kernel's count, None when it is not to be had now.

    ``counter``, where there is one, is the kernel's own, and this object's from here on.
    """

    def __init__(self, ask: Callable[[], Awaitable[int | None]], counter: int | None = None) -> None:
        self._ask = ask
        self._counter = counter
        # As many as are known of, and of these as many as were laid to somebody, or borne.
        self._known = 0
        self._explained = 0

    @property
    def is_exact(self) -> bool:
        """Whether :meth:`look` sees all that there have been."""
        return self._counter is not None

    def look(self) -> int:
        """How many there have been, as far as can be seen without asking."""
        if self._counter is not None:
            self._known = max(self._known, _read(self._counter))
        return self._known

    async def count(self) -> int:
        """How many there have been."""
        if self._counter is None:
            self._known = max(self._known, await self._ask() or 0)
        return self.look()

    async def have_killed(self, before: int) -> bool:
        """Whether one that was killed, and began when there were so many, was killed by the kernel."""
        return self._explain(await self.count() > before)

    async def have_hurt(self, before: int) -> bool:
        """Whether one that failed, and began when there were so many, has lost something that nobody else has."""
        return self._explain(await self.count() > max(before, self._explained))

    async def note_end(self, before: int, *, could_be_meant: bool) -> None:
        """One that began when there were so many has ended otherwise, and borne what came since, if it was meant."""
        self._explain(await self.count() > before and could_be_meant)

    def _explain(self, is_so: bool) -> bool:
        if is_so:
            self._explained = self._known
        return is_so

    def close(self) -> None:
        """Let go of the counter; what is known stays so."""
        self.look()
        counter, self._counter = self._counter, None
        if counter is not None:
            os.close(counter)


def _read(counter: int) -> int:
    """Of ``memory.events``, or ``memory.oom_control`` of version 1; 0 when the group is gone."""
    try:
        text = os.pread(counter, _MOST_TEXT, 0)
    except OSError:
        return 0
    _before, found, rest = text.partition(b"oom_kill ")
    number = rest.partition(b"\n")[0]
    return int(number) if found and number.isdigit() else 0
