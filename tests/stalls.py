"""For how long the machine kept this process from running, for tests that measure how late something is."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PAUSE_S = 0.01
# Less is how late a thread is that waits for its turn in this process.
_LEAST_S = 0.05


class Stalls:
    """What a thread of this process with nothing to do was late by, all in all, is in ``total_s``."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self._over = threading.Event()

    def _note(self) -> None:
        due = time.monotonic() + PAUSE_S
        while not self._over.wait(PAUSE_S):
            late_s = time.monotonic() - due
            if late_s > _LEAST_S:
                self.total_s += late_s
            due = time.monotonic() + PAUSE_S

    @classmethod
    @contextmanager
    def noted(cls) -> Iterator["Stalls"]:
        """Note them during the block."""
        stalls = cls()
        thread = threading.Thread(target=stalls._note, name="stalls")
        thread.start()
        try:
            yield stalls
        finally:
            stalls._over.set()
            thread.join()
