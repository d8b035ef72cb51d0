"""What a build says: kept in a file up to a bound, and followed from any position on."""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandgate.core.session import Bundle

_CUT = b"\n[what was said after this was not kept]\n"
_PART_BYTES = 64 * 1024
# Beyond what is kept a program may go on for so long before it is taken for one that never ends.
_MOST_OUTPUT_BYTES = 256 * 1024**2


class BuildLog:
    """The log of one build that is under way. Positions are bytes of it, in UTF-8."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        """Raises ``OSError``."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._most = most_bytes
        self._kept = bytearray()
        self._changed = asyncio.Event()
        self.last_line = ""
        self.has_ended = False

    @property
    def kept(self) -> bytes:
        """What there is so far."""
        return bytes(self._kept)

    def read(self, position: int) -> bytes:
        """The next part from a position on; nothing when there is none now."""
        return bytes(self._kept[position : position + _PART_BYTES])

    async def wait_for_change(self) -> None:
        """Wait until there is more, or it has ended."""
        await self._changed.wait()

    def say(self, line: str) -> None:
        """The service's own words."""
        self.write(f"== {line}\n".encode("utf-8", "replace"))

    def write(self, data: bytes) -> None:
        """What a program of the build wrote; what comes after the end is lost."""
        if self.has_ended:
            return
        # A character that comes in two parts is not put together: positions would not be those of the file any more.
        text = data.decode("utf-8", "replace").replace("\0", "\ufffd").encode()
        lines = text.strip().splitlines()
        if lines:
            self.last_line = lines[-1].decode("utf-8", "replace")[:500]
        room = self._most - len(self._kept)
        if room <= 0:
            return
        part = text if len(text) <= room else text[:room].decode("utf-8", "ignore").encode() + _CUT
        if len(text) > room:
            self._most = 0
        self._kept += part
        # A disk that is full keeps nobody from building.
        with suppress(OSError):
            os.write(self._file, part)
        self._wake()

    def end(self) -> None:
        """There is no more."""
        self.has_ended = True
        os.close(self._file)
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class LogWatch:
    """Puts the output of an execution into a log; see :class:`sandgate.core.output_watch.OutputWatch`."""

    most_bytes = _MOST_OUTPUT_BYTES

    def __init__(self, log: BuildLog) -> None:
        self._log = log

    def begin(self) -> None:
        """See ``OutputWatch``."""

    def put(self, stream: str, data: bytes, resume: Callable[[], None]) -> bool:  # noqa: ARG002 - both are one log
        """See ``OutputWatch``."""
        self._log.write(data)
        return True

    def show(self, bundle: Bundle) -> None:
        """See ``OutputWatch``."""


def _whole_characters(data: bytes) -> int:
    """How much of it is without a character at the end that goes on behind it."""
    for back in range(1, 4):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if back < length else len(data)
        if byte < 0x80:
            break
    return len(data)


def read_log(kept: bytes | None, path: Path) -> str:
    """A whole log; None: what is in its file, and nothing where there is none. It blocks."""
    with suppress(OSError):
        kept = path.read_bytes() if kept is None else kept
    return (kept or b"").decode("utf-8", "replace")


def _read_part(path: Path, position: int) -> bytes:
    with suppress(OSError), path.open("rb") as file:
        file.seek(position)
        return file.read(_PART_BYTES)
    return b""


@dataclass(frozen=True, slots=True)
class LogPart:
    """``position`` is where to go on after it; the last one has no text."""

    position: int
    text: str
    is_last: bool = False


class LogEvents:
    """Follows a log to its end: batches of parts; ``aclose`` comes last.

    ``log`` is None for one that is over, of which all is in the file at ``path``.
    """

    def __init__(self, log: BuildLog | None, path: Path, position: int) -> None:
        self._log = log
        self._path = path
        self._position = position
        self._finished = False

    def __aiter__(self) -> "LogEvents":
        return self

    async def __anext__(self) -> Sequence[LogPart]:
        """The next part; waits for one. Raises ``StopAsyncIteration``."""
        while not self._finished:
            log = self._log
            rest = await self._read() if log is None else log.read(self._position)
            if rest:
                data = rest[: _whole_characters(rest)] if len(rest) == _PART_BYTES else rest
                self._position += len(data)
                return [LogPart(self._position, data.decode("utf-8", "replace"))]
            if log is not None and not log.has_ended:
                await log.wait_for_change()
                continue
            self._finished = True
            return [LogPart(self._position, "", is_last=True)]
        raise StopAsyncIteration

    async def _read(self) -> bytes:
        return await asyncio.to_thread(_read_part, self._path, self._position)

    async def aclose(self) -> None:
        """Nobody reads on."""
        self._finished = True
