"""What the launcher has to say, for the server's log."""

import os
from contextlib import suppress


def log(text: str) -> None:
    """One line, or several; a disk that is full is no reason to end."""
    with suppress(OSError):
        os.write(2, f"launcher: {text}\n".encode("utf-8", "replace"))
