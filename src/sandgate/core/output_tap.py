"""Where the output of an execution can be seen while it is written."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

OutputListener = Callable[[str, bytes], None]
"""Is told the name of a stream, ``stdout`` or ``stderr``, and what was written to it."""


class OutputSource(Protocol):
    """A stream that is being read. ``on_kept`` is told of every further part that is kept, None: nobody is."""

    on_kept: Callable[[bytes], None] | None

    def kept(self) -> bytes:
        """What was kept so far."""
        ...


class OutputTap:
    """Handed to an execution, and costs it nothing until somebody listens. One listener at most."""

    __slots__ = ("_listener", "_sources")

    def __init__(self) -> None:
        self._sources: Mapping[str, OutputSource] = {}
        self._listener: OutputListener | None = None

    def open(self, sources: Mapping[str, OutputSource]) -> None:
        """Say where the output comes from, once the execution has begun."""
        self._sources = sources
        self._connect()

    def listen(self, listener: OutputListener) -> None:
        """Tell the listener what is kept of the output: first all that there is, then each part as it comes."""
        self._listener = listener
        self._connect()

    def kept(self, name: str) -> bytes:
        """What is kept of a stream so far; empty before the execution has begun."""
        source = self._sources.get(name)
        return b"" if source is None else source.kept()

    def _connect(self) -> None:
        listener = self._listener
        if listener is None:
            return
        for name, source in self._sources.items():
            before = source.kept()
            if before:
                listener(name, before)
            source.on_kept = partial(listener, name)
