"""Streams of events that go on where they broke off, over restarts of the server."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from sandgate.sdk.errors import ApiError, ServerUnreachable

if TYPE_CHECKING:
    from sandgate.sdk.events import ServerEvent

#: How long a server may be away before nobody waits for it any more.
PATIENCE_S = 300.0
#: Between two attempts: the first wait, which is doubled with each, and the longest.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 5.0

_UNAVAILABLE = 503

Opened = Callable[[str], "Generator[ServerEvent, None, None]"]
"""Opens a stream behind an id of an event, or at its beginning for an empty one."""


def is_away(error: Exception) -> bool:
    """Whether a server has said, by its silence or with 503, that it may be there later."""
    return isinstance(error, ServerUnreachable) or (isinstance(error, ApiError) and error.status == _UNAVAILABLE)


def follow_to_end(
    opened: Opened,
    on_trouble: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator["ServerEvent"]:
    """Events up to the one that is called ``finished``; each comes once, however often the connection breaks.

    Raises ``ServerUnreachable`` or ``ApiError`` when the server is away for ``PATIENCE_S``, ``ApiError`` when it
    refuses.
    """
    position, wait_s = "", FIRST_WAIT_S
    give_up_at = monotonic() + PATIENCE_S
    while True:
        try:
            with closing(opened(position)) as events:
                for event in events:
                    yield event
                    if event.kind == "finished":
                        return
                    position, wait_s = event.event_id or position, FIRST_WAIT_S
                    give_up_at = monotonic() + PATIENCE_S
        except (ServerUnreachable, ApiError) as error:
            if not is_away(error) or monotonic() + wait_s > give_up_at:
                raise
            on_trouble(f"{error.message}; trying again")
        else:
            if monotonic() + wait_s > give_up_at:
                raise ServerUnreachable("The server ends the stream again and again, and says nothing", sent=True)
        sleep(wait_s)
        wait_s = min(LONGEST_WAIT_S, wait_s * 2)
