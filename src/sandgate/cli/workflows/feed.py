"""Events of a run as they come, read in the background, so that whoever waits can take all that there are at once."""

import queue
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from sandgate.cli.streams import FIRST_WAIT_S, LONGEST_WAIT_S, is_away
from sandgate.sdk.errors import ClientError
from sandgate.sdk.events import ServerEvent

if TYPE_CHECKING:
    from sandgate.sdk.client import Client

_MOST_WAITING = 10_000


class EventFeed:
    """The events of one run. It connects again by itself, after the last event that it has seen.

    ``is_absent`` is True once the server has said that it has none, or that they cannot be read.
    """

    def __init__(self, client: "Client", run_id: str) -> None:
        self.is_absent = False
        self._client = client
        self._run_id = run_id
        self._events: queue.Queue[ServerEvent | None] = queue.Queue(_MOST_WAITING)
        self._stopped = threading.Event()
        self._last_id = ""
        # A daemon: it may be in the middle of waiting for a server when the command ends.
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more; does not wait."""
        self._stopped.set()

    def take(self, timeout_s: float) -> list[ServerEvent]:
        """All events that are there, after waiting for the first; none when the time is over or none will come."""
        taken: list[ServerEvent | None] = []
        with suppress(queue.Empty):
            taken.append(self._events.get(timeout=timeout_s))
            while True:
                taken.append(self._events.get_nowait())
        return [event for event in taken if event is not None]

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._stopped.is_set():
            before = self._last_id
            try:
                self._read()
            except ClientError as error:
                if not is_away(error):
                    self.is_absent = True
                    self._events.put(None)
                    return
            wait_s = FIRST_WAIT_S if self._last_id != before else min(LONGEST_WAIT_S, wait_s * 2)
            self._stopped.wait(wait_s)

    def _read(self) -> None:
        with closing(self._client.stream_run_events(self._run_id, self._last_id)) as events:
            for event in events:
                if self._stopped.is_set():
                    return
                self._events.put(event)
                self._last_id = event.event_id or self._last_id
