"""Takes what an execution writes to stdout as fast as it can be put away, and no faster."""

import asyncio
from collections.abc import Callable

_MOST_WAITING_BYTES = 1 << 20


class Intake:
    """See :class:`sandgate.core.execution.OutputSink`; one task reads."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._closed = False
        self._resume: Callable[[], None] | None = None
        self._changed = asyncio.Event()

    def put(self, data: bytes, resume: Callable[[], None]) -> bool:
        """See :class:`sandgate.core.execution.OutputSink`."""
        self._parts.append(data)
        self._size += len(data)
        self._changed.set()
        if self._size < _MOST_WAITING_BYTES:
            return True
        self._resume = resume
        return False

    def close(self) -> None:
        """See :class:`sandgate.core.execution.OutputSink`."""
        self._closed = True
        self._changed.set()

    async def read(self) -> bytes:
        """All that has come since the last time; waits for some. Nothing at the end."""
        while not self._parts and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        parts, self._parts, self._size = self._parts, [], 0
        resume, self._resume = self._resume, None
        if resume is not None:
            resume()
        return b"".join(parts)
