"""Interrupts of a session's process: which of them hit its code, and which nothing."""

import _signal
import os
import threading
from typing import Any, Callable


def write_all(descriptor: int, data: bytes) -> None:
    """Write, whatever else is to be written there meanwhile."""
    while data:
        data = data[os.write(descriptor, data) :]


class Interrupts:
    """Lets an interrupt hit the code, and nothing else: neither the frame that is being written nor the next cell."""

    def __init__(self) -> None:
        self._in_code = False
        self._shields = 0
        self._came = False
        # Whether one came for no code, since that was last asked.
        self._missed = False
        # What an interrupt does that is not for code of this process.
        self.outside: Callable[[], None] = lambda: None
        _signal.signal(_signal.SIGINT, self._on_signal)

    def _on_signal(self, _number: int, _frame: Any) -> None:
        if not self._in_code:
            self._missed = True
            self.outside()
            return
        if self._shields:
            self._came = True
            return
        raise KeyboardInterrupt

    def begin(self) -> None:
        """Code runs from here on."""
        self._came = False
        self._in_code = True

    def end(self) -> None:
        """It does not any more."""
        while True:
            try:
                self._in_code = False
            except KeyboardInterrupt:
                continue
            else:
                return

    def take_missed(self) -> bool:
        """Whether one came for no code, since this was last asked."""
        missed, self._missed = self._missed, False
        return missed

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of something, interrupted or not."""
        self.shield()
        try:
            write_all(descriptor, data)
        finally:
            self.unshield()

    def shield(self) -> None:
        """Let none through until :meth:`unshield`. Only the main thread is interrupted."""
        if threading.current_thread() is threading.main_thread():
            self._shields += 1

    def unshield(self) -> None:
        """Let them through again. Raises ``KeyboardInterrupt`` when one has come meanwhile."""
        if threading.current_thread() is threading.main_thread():
            self._shields -= 1
            if self._came and not self._shields and self._in_code:
                self._came = False
                raise KeyboardInterrupt
