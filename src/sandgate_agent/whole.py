"""Standard streams that write all that they are given.

On Linux a write to a pipe waits until all of it has gone, and an unbuffered interpreter counts on that: what a shorter
write leaves it drops. gVisor writes what fits into a pipe of the host's.
"""

import io
import sys
from typing import Any, Optional


class WholeFile(io.FileIO):
    """A file whose every write is whole, unless it was told not to block."""

    def write(self, data: Any) -> Optional[int]:  # type: ignore[override]
        """See :class:`io.FileIO`."""
        written = super().write(data)
        if written is None or written == memoryview(data).nbytes:
            return written
        rest = memoryview(data).cast("B")
        while written < len(rest):
            more = super().write(rest[written:])
            if more is None:
                break
            written += more
        return written


def put_in_place() -> None:
    """Have the interpreter's standard output and error written whole."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        usual = getattr(sys, name)
        raw = WholeFile(number, "wb", closefd=False)
        raw.name = usual.name
        text: Any = io.TextIOWrapper(raw, usual.encoding, usual.errors, "\n", usual.line_buffering, True)
        text.mode = usual.mode
        setattr(sys, name, text)
        setattr(sys, "__{}__".format(name), text)
