"""Following a run to its end, over restarts of the server.

Events of the run say that something has happened; what has become of it is asked then. Where a server has no events,
it is asked now and then.
"""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sandgate.cli.streams import FIRST_WAIT_S, LONGEST_WAIT_S, PATIENCE_S, is_away
from sandgate.cli.workflows.feed import EventFeed
from sandgate.sdk.errors import ApiError, ServerUnreachable
from sandgate.sdk.events import ServerEvent

if TYPE_CHECKING:
    from sandgate.sdk.answers import RunView
    from sandgate.sdk.client import Client

OUTPUT_KINDS = frozenset({"stdout", "stderr"})
"""The kinds of events that carry what code has printed."""

_BETWEEN_VIEWS_S = 0.1
# With events, asking now and then only guards against one that was lost.
_WITH_EVENTS_S, _WITHOUT_EVENTS_S = 2.0, 0.4


class Watch:
    """One run that is followed. ``on_trouble`` is told when the server is away, ``on_events`` what has happened."""

    def __init__(
        self,
        client: "Client",
        run_id: str,
        *,
        on_trouble: Callable[[str], None],
        on_events: Callable[[list[ServerEvent]], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._run_id = run_id
        self._on_trouble = on_trouble
        self._on_events = on_events
        self._sleep = sleep
        self._monotonic = monotonic
        self._feed = EventFeed(client, run_id)

    def views(self) -> Iterator["RunView"]:
        """The run as it is now, then each time that something has happened; the last one has ended.

        Raises ``ServerUnreachable`` or ``ApiError`` when the server is away for ``PATIENCE_S``, ``ApiError`` when it
        refuses.
        """
        view = self._client.get_run(self._run_id)
        yield view
        if not view.is_live:
            return
        self._feed.start()
        try:
            while view.is_live:
                self._wait()
                view = self._ask_patiently()
                yield view
        finally:
            self._feed.stop()

    def _wait(self) -> None:
        """Until the run may have changed; output alone changes nothing that a view has."""
        while True:
            is_absent = self._feed.is_absent
            events = self._feed.take(0.0 if is_absent else _WITH_EVENTS_S)
            if events and self._on_events is not None:
                self._on_events(events)
            self._sleep(_WITHOUT_EVENTS_S if is_absent else _BETWEEN_VIEWS_S)
            if not events or any(event.kind not in OUTPUT_KINDS for event in events):
                return

    def _ask_patiently(self) -> "RunView":
        give_up_at = self._monotonic() + PATIENCE_S
        wait_s = FIRST_WAIT_S
        while True:
            try:
                return self._client.get_run(self._run_id)
            except (ServerUnreachable, ApiError) as error:
                if not is_away(error) or self._monotonic() + wait_s > give_up_at:
                    raise
                self._on_trouble(f"{error.message}; trying again")
            self._sleep(wait_s)
            wait_s = min(LONGEST_WAIT_S, wait_s * 2)
