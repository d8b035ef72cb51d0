"""What a process of the inside writes, line by line into the server's log: as untrusted as the packages it imports."""

import os
import re

from sandgate.sandbox.launcher.log import log
from sandgate.sandbox.launcher.reactor import Reactor

_LIMIT_BYTES = 64 * 1024
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_LINE_LIMIT = 500


def printable(text: str) -> str:
    """A line of what comes from inside, fit for a log and for the reason of an end."""
    return _UNPRINTABLE.sub(" ", text)[:_LINE_LIMIT]


class InsideLog:
    """Owns the reading end of the pipe. ``last_words`` is the last line, for the reason of an end."""

    def __init__(self, reactor: Reactor, descriptor: int, name: str) -> None:
        self.last_words = ""
        self._reactor = reactor
        self._descriptor = descriptor
        self._name = name
        self._length = 0
        os.set_blocking(descriptor, False)
        reactor.watch(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 4096)
        except BlockingIOError:
            return
        if not data:
            self._reactor.forget(self._descriptor)
            return
        self._length += len(data)
        if self._length <= _LIMIT_BYTES:
            for line in filter(str.strip, data.decode("utf-8", "replace").splitlines()):
                self.note(line)

    def note(self, line: str) -> None:
        """Keep a line and pass it on."""
        self.last_words = printable(line)
        log(f"{self._name}: {self.last_words}")

    def close(self) -> None:
        """The process has ended: read what is left."""
        self._read()
        self._reactor.forget(self._descriptor)
        os.close(self._descriptor)
