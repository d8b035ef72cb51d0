"""Words of the processes that nothing may end, on standard error."""

import sys
from contextlib import suppress


def say(text: str) -> None:
    """Write a line, if that is possible: a log whose disk is full, or whose reader is gone, ends nobody."""
    # Of a closed stream it is a ValueError; without a standard error there is none to write to.
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
