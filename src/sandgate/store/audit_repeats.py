"""Puts refusals together that are alike, so that whoever is refused all the time does not fill the audit log."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace

from sandgate.core.audit import AuditEntry
from sandgate.core.clock import Clock
from sandgate.core.ids import make_audit_id

WINDOW_S = 60.0
#: So many that are alike have a row each in one window; the rest share one.
MOST_ALIKE = 10
_MOST_KINDS = 10_000


@dataclass(slots=True)
class _Window:
    """What came of one kind since the window began; ``newest`` is the last one that has no row yet."""

    ends_at: float
    came: int = 0
    unwritten: int = 0
    newest: AuditEntry | None = None


class Repeats:
    """Alike are refusals of the same action for the same reason, to one user or, of strangers, to one address."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows: OrderedDict[Hashable, _Window] = OrderedDict()

    def take(self, entry: AuditEntry) -> bool:
        """Count an entry; whether it is to have a row of its own."""
        who = entry.actor_id or entry.address
        key: Hashable = (who, entry.action, entry.code)
        if key not in self._windows and len(self._windows) >= _MOST_KINDS:
            key = (None, entry.action, entry.code)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(self._clock.monotonic() + WINDOW_S)
        window.came += 1
        if window.came <= MOST_ALIKE:
            return True
        window.unwritten += 1
        window.newest = entry
        return False

    def drain(self, *, everything: bool = False) -> list[AuditEntry]:
        """One entry for the rest of each kind whose window is over (or of each kind)."""
        now = self._clock.monotonic()
        over = [key for key, window in self._windows.items() if everything or window.ends_at <= now]
        windows = [self._windows.pop(key) for key in over]
        return [
            replace(window.newest, audit_id=make_audit_id(), times=window.unwritten)
            for window in windows
            if window.newest is not None
        ]
