"""For how long the machine kept this process from running, for tests that measure how late something is."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PAUSE_S = 0.01
# Less is how late a thread is that waits for its turn in this process.
_LEAST_S = 0.05


class Stalls:
    """What a thread of this process with nothing to do was late by, all in all, is in ``total_s`` after the block.

    But for the processor time that this process used meanwhile: it was its own work then that was in the way.
    """

    def __init__(self) -> None:
        # When each was due and when it was over, by ``time.monotonic``, and how much of that was the machine's.
        self._known: list[tuple[float, float, float]] = []
        self._over = threading.Event()

    @property
    def total_s(self) -> float:
        """All of them."""
        return sum(stalled_s for _due, _end, stalled_s in self._known)

    def between(self, began: float, ended: float) -> float:
        """What is known of this time, of each stall no more than the part that lies in it, in seconds."""
        parts = [(min(over, ended) - max(due, began), stalled_s) for due, over, stalled_s in self._known]
        return sum(min(part) for part in parts if part[0] > 0)

    def note(self, due: float, over: float, used_s: float) -> None:
        """Something was due then, and over only later, while the process used that much of the processor."""
        stalled_s = over - due - used_s
        if stalled_s > _LEAST_S:
            self._known.append((due, over, stalled_s))

    def _watch(self, began: float, used_s: float) -> None:
        is_over = False
        while not is_over:
            is_over = self._over.wait(PAUSE_S)
            now, now_used_s = time.monotonic(), time.process_time()
            self.note(began + PAUSE_S, now, now_used_s - used_s)
            began, used_s = now, now_used_s

    @classmethod
    @contextmanager
    def noted(cls) -> Iterator["Stalls"]:
        """Note them during the block."""
        stalls = cls()
        began = (time.monotonic(), time.process_time())
        thread = threading.Thread(target=stalls._watch, args=began, name="stalls")
        thread.start()
        try:
            yield stalls
        finally:
            stalls._over.set()
            thread.join()
