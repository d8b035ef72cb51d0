"""Ids of the host that no two sandboxes share."""

import heapq

from sandgate.sandbox.launcher.config import IDS_OF_SANDBOX, ZYGOTE_IDS


class HostIds:
    """Hands out the lowest free place in the range of sandboxes."""

    def __init__(self, base: int, most: int) -> None:
        self._first = base + ZYGOTE_IDS
        self._most = most
        self._next = 0
        self._free: list[int] = []

    def take(self) -> int | None:
        """The first of ``IDS_OF_SANDBOX`` ids; None when all are taken."""
        if self._free:
            return self._first + heapq.heappop(self._free) * IDS_OF_SANDBOX
        if self._next >= self._most:
            return None
        self._next += 1
        return self._first + (self._next - 1) * IDS_OF_SANDBOX

    def discard(self, first: int) -> None:
        """Give ids back, when nothing runs under them any more."""
        heapq.heappush(self._free, (first - self._first) // IDS_OF_SANDBOX)
