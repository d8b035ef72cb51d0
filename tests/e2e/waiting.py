"""Waiting for what other processes do."""

import time
from collections.abc import Callable
from typing import Any

LIMIT_S = 60.0


def until(seen: Callable[[], Any], what: str) -> Any:
    """Wait until ``seen()`` is true and answer it; fail with ``what`` was waited for."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        found = seen()
        if found:
            return found
        time.sleep(0.05)  # waits: other processes act in their own time
    raise AssertionError(f"not within {LIMIT_S} s: {what}")
