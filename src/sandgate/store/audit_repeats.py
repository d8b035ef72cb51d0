"""Puts refusals together that are alike, so that whoever is refused all the time does not fill the audit log."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace

from sandgate.core.addresses import network_of
from sandgate.core.audit import AuditEntry
from sandgate.core.clock import Clock
from sandgate.core.ids import make_audit_id

WINDOW_S = 60.0
#: So many that are alike have a row each in one window; the rest share one.
MOST_ALIKE = 10
# Of users, and of strangers, who may come from as many addresses as they like. What is more is one kind, of nobody.
_MOST_KINDS, _MOST_KINDS_OF_STRANGERS = 10_000, 1_000
_OF_EACH = ("actor_id", "actor_name", "credential_id", "resource_id", "address")


@dataclass(slots=True)
class _Window:
    """What came of one kind since the window began; ``rest`` stands for those that have no row yet."""

    ends_at: float
    is_of_stranger: bool
    came: int = 0
    unwritten: int = 0
    rest: AuditEntry | None = None


class Repeats:
    """Alike are refusals of the same action for the same reason, to one user or, of strangers, to one network."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows: OrderedDict[Hashable, _Window] = OrderedDict()
        self._of_strangers = 0

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
        if window.came <= MOST_ALIKE:
            return True
        window.unwritten += 1
        window.rest = entry if window.rest is None else _in_common(window.rest, entry)
        return False

    def drain(self, *, everything: bool = False) -> list[AuditEntry]:
        """One entry for the rest of each kind whose window is over (or of each kind)."""
        now = self._clock.monotonic()
        over = [key for key, window in self._windows.items() if everything or window.ends_at <= now]
        windows = [self._windows.pop(key) for key in over]
        self._of_strangers -= sum(window.is_of_stranger for window in windows)
        return [
            replace(window.rest, audit_id=make_audit_id(), times=window.unwritten)
            for window in windows
            if window.rest is not None
        ]

    def _is_full(self, *, of_strangers: bool) -> bool:
        if of_strangers:
            return self._of_strangers >= _MOST_KINDS_OF_STRANGERS
        return len(self._windows) - self._of_strangers >= _MOST_KINDS


def _in_common(before: AuditEntry, newest: AuditEntry) -> AuditEntry:
    """The newest one, without what is of it alone: nobody has done what many have."""
    different = {name: None for name in _OF_EACH if getattr(before, name) != getattr(newest, name)}
    return replace(newest, **different) if different else newest  # type: ignore[arg-type]
