"""Puts entries together that are alike, so that who is refused, or executes, all the time does not fill the log."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

from sandgate.core.addresses import network_of
from sandgate.core.audit import AuditEntry
from sandgate.core.clock import Clock
from sandgate.core.ids import make_audit_id

WINDOW_S = 60.0
#: So many that are alike have a row each in one window; the rest share one.
MOST_ALIKE = 10
# Of users, and of strangers, who may come from as many addresses as they like. What is more is one kind, of nobody.
_MOST_KINDS, _MOST_KINDS_OF_STRANGERS = 10_000, 1_000
# As many environments as a user may have by default, and of all kinds together what is a few MB of memory, and of rows
# when the windows are over; what is done to more in one minute has no name.
_MOST_THINGS, _MOST_THINGS_IN_ALL = 1_000, 10_000
_OF_EACH = ("actor_id", "actor_name", "credential_id", "resource_id", "address")
_get_each = attrgetter(*_OF_EACH)


class _Rest:
    """What stands for so many that have no row: the newest one, without what is of it alone."""

    __slots__ = ("_details", "_each", "_newest", "_request_id", "count")

    def __init__(self, entry: AuditEntry) -> None:
        self.count = 1
        self._newest = entry
        self._each: tuple[str | None, ...] = _get_each(entry)
        self._request_id = entry.request_id
        self._details = entry.details

    def add(self, entry: AuditEntry) -> None:
        """Nobody has done what many have. As little as can be, because it may be done for each request."""
        self.count += 1
        self._newest = entry
        each = _get_each(entry)
        if each != self._each:
            self._each = tuple(one if one == other else None for one, other in zip(each, self._each, strict=True))
        if entry.request_id != self._request_id:
            self._request_id = None
        details = self._details
        if entry.details != details:
            theirs = details.items()
            self._details = {name: value for name, value in entry.details.items() if (name, value) in theirs}

    def entry(self) -> AuditEntry:
        """One for all of them."""
        common: dict[str, Any] = dict(zip(_OF_EACH, self._each, strict=True))
        return replace(
            self._newest,
            audit_id=make_audit_id(),
            times=self.count,
            request_id=self._request_id,
            details=self._details,
            **common,
        )


@dataclass(slots=True)
class _Window:
    """What came of one kind since the window began; ``rests`` stand for those that have no row yet."""

    ends_at: float
    is_of_stranger: bool
    came: int = 0
    rests: dict[str | None, _Rest] = field(default_factory=dict)

    @property
    def named(self) -> int:
        """How many of its rests are of one thing."""
        return len(self.rests) - (None in self.rests)

    def sum(self, thing: str | None, entry: AuditEntry, *, has_room: bool) -> None:
        """Count one more that has no row; about a thing of its own if there is room for another, or for that one."""
        if thing not in self.rests and (not has_room or self.named >= _MOST_THINGS):
            thing = None
        if thing in self.rests:
            self.rests[thing].add(entry)
        else:
            self.rests[thing] = _Rest(entry)


class Repeats:
    """Alike is the same action with the same outcome, of one user or, of strangers, from one network.

    ``most_alike`` of a kind have an entry each in one window; the rest share one, or ``by_thing`` one for each
    thing that they are about.
    """

    def __init__(self, clock: Clock, most_alike: int = MOST_ALIKE, *, by_thing: bool = False) -> None:
        self._clock = clock
        self._most_alike = most_alike
        self._by_thing = by_thing
        self._windows: OrderedDict[Hashable, _Window] = OrderedDict()
        self._of_strangers = 0
        self._named = 0

    def take(self, entry: AuditEntry) -> bool:
        """Count an entry; whether it is to have a row of its own."""
        stranger = entry.actor_id is None
        who = network_of(entry.address or "") if stranger else entry.actor_id
        key: Hashable = (who, entry.action, entry.code)
        if key not in self._windows and self._is_full(of_strangers=stranger):
            stranger, key = False, (None, entry.action, entry.code)
        window = self._windows.get(key)
        if window is None:
            ends_at = self._clock.monotonic() + WINDOW_S
            window = self._windows[key] = _Window(ends_at, stranger)
            self._of_strangers += window.is_of_stranger
        window.came += 1
        if window.came <= self._most_alike:
            return True
        named = window.named
        thing = entry.resource_id if self._by_thing else None
        window.sum(thing, entry, has_room=self._named < _MOST_THINGS_IN_ALL)
        self._named += window.named - named
        return False

    def drain(self, *, everything: bool = False) -> list[AuditEntry]:
        """Entries for the rest of each kind whose window is over (or of each kind)."""
        now = self._clock.monotonic()
        over = [key for key, window in self._windows.items() if everything or window.ends_at <= now]
        windows = [self._windows.pop(key) for key in over]
        self._of_strangers -= sum(window.is_of_stranger for window in windows)
        self._named -= sum(window.named for window in windows)
        return [rest.entry() for window in windows for rest in window.rests.values()]

    def _is_full(self, *, of_strangers: bool) -> bool:
        if of_strangers:
            return self._of_strangers >= _MOST_KINDS_OF_STRANGERS
        return len(self._windows) - self._of_strangers >= _MOST_KINDS
