"""Who sees all of an execution's output while it is written, and may make the code wait for that."""

from collections.abc import Callable
from typing import Protocol

from sandgate.core.session import Bundle


class OutputWatch(Protocol):
    """Told of both streams of one execution. What is kept for its record is kept all the same.

    ``most_bytes`` is how much of a stream may be written beyond the kept part.
    """

    @property
    def most_bytes(self) -> int:
        """What is more ends the execution as ``output_limit``."""
        ...

    def begin(self) -> None:
        """The code runs from now on; until then it was queued."""
        ...

    def put(self, stream: str, data: bytes, resume: Callable[[], None]) -> bool:
        """Take a piece of ``stdout`` or ``stderr``. False when the next one has to wait until ``resume`` is called.

        At the end of an execution pieces may come in spite of that, as much as a pipe holds.
        """
        ...

    def show(self, bundle: Bundle) -> None:
        """Take something that an execution in a session shows, after all that was put before."""
        ...
