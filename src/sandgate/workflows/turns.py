"""Runs of a group take turns: each is let in, in the order of their creation, as soon as there is room."""

from bisect import insort
from collections.abc import Callable, Sequence
from datetime import datetime

from sandgate.core.errors import StoreUnavailable
from sandgate.core.ids import RunId, UserId
from sandgate.core.run import Run
from sandgate.store.base import RunStore
from sandgate.telemetry.log import get_logger
from sandgate.workflows.events import CancelAsked, Entered, Event
from sandgate.workflows.live import LiveRun

_Group = tuple[UserId, str]

_log = get_logger(__name__)


class Turns:
    """The runs of this process that wait. The database decides who enters; what is here only knows whom to ask for.

    ``post`` is told to look at a run again.
    """

    def __init__(self, store: RunStore, post: Callable[[LiveRun], None]) -> None:
        self._store = store
        self._post = post
        self._live: dict[RunId, LiveRun] = {}
        self._waiting: dict[_Group, list[RunId]] = {}

    def add(self, live: LiveRun) -> None:
        """Keep a run in mind, if it has to wait for its turn."""
        group = _group_of(live.run)
        if group is not None and live.run.waits_for_slot:
            self._live[live.run.run_id] = live
            insort(self._waiting.setdefault(group, []), live.run.run_id)

    def leave(self, run: Run) -> None:
        """A run has ended, or is another process's: there may be room for the next one."""
        group = _group_of(run)
        if group is not None:
            self._forget(group, run.run_id)
            self._call_next(group)

    def look(self) -> None:
        """Ask for the first of each group again: a turn may have ended in another process."""
        for group in list(self._waiting):
            self._call_next(group)

    async def ask(self, live: LiveRun, events: Sequence[Event], now: datetime) -> Sequence[Event]:
        """What follows the events for a run that waits: that it is let in, or nothing.

        Only the first of its group is asked for: those behind it could not pass it.
        """
        group = _group_of(live.run)
        if group is None or live.run.run_id not in self._live or self._waiting[group][0] != live.run.run_id:
            return ()
        if any(isinstance(event, CancelAsked) for event in events):
            return ()
        try:
            at = await self._store.enter(live.run, now)
        except StoreUnavailable as fault:
            # It is asked for again when time is looked at.
            _log.warning("run not let in yet", run_id=live.run.run_id, reason=fault.message)
            return ()
        if at is None:
            return ()
        self._forget(group, live.run.run_id)
        self._call_next(group)
        return (Entered(at),)

    def _forget(self, group: _Group, run_id: RunId) -> None:
        if self._live.pop(run_id, None) is not None:
            self._waiting[group].remove(run_id)
            if not self._waiting[group]:
                del self._waiting[group]

    def _call_next(self, group: _Group) -> None:
        waiting = self._waiting.get(group)
        if waiting:
            self._post(self._live[waiting[0]])


def _group_of(run: Run) -> _Group | None:
    return None if run.slot_group is None else (run.owner_id, run.slot_group)
