"""Interrupts of one session, as the gateway sees them: what its slot has not passed on, and which cell they are for."""

from collections.abc import Callable

from sandgate.sandbox.cell import Cell
from sandgate.sandbox.timers import Timers
from sandgate_agent import wire

# How long the slot may take to pass one on.
_CONFIRM_LIMIT_S = 5.0
_REPEAT_S, _MOST_REPEATS = 0.2, 20


class SessionInterrupts:
    """``on_unheard`` is called when the slot does not pass one on."""

    def __init__(self, timers: Timers, on_unheard: Callable[[], None]) -> None:
        self._timers = timers
        self._on_unheard = on_unheard
        self._send: Callable[[], None] = lambda: None
        # Those that the slot has not confirmed: until then none of them may meet another cell.
        self._unconfirmed = 0
        self._meant: Cell | None = None
        self._missed_by: Cell | None = None

    def send_by(self, send: Callable[[], None]) -> None:
        """How the slot is told to interrupt."""
        self._send = send

    @property
    def are_under_way(self) -> bool:
        """Whether the next cell has to wait."""
        return self._unconfirmed > 0

    def send(self, cell: Cell | None) -> None:
        """Interrupt what runs: this cell, or whatever an earlier gateway has left."""
        self._meant = cell
        self._unconfirmed += 1
        self._send()
        self._timers.set("interrupt", _CONFIRM_LIMIT_S, self._on_unheard)

    def confirm(self) -> None:
        """The slot has passed one on."""
        self._unconfirmed = max(0, self._unconfirmed - 1)
        if not self._unconfirmed:
            self._timers.cancel("interrupt")

    def answer_missed(self, cell: Cell, *, is_shell: bool) -> bytes:
        """What to say when one came before this cell had begun: once, for code may tell of it for ever."""
        if self._missed_by is cell:
            return b""
        self._missed_by, is_meant = cell, self._meant is cell
        if not is_shell:
            return wire.pack_code(b"", {"missed": is_meant})
        if is_meant:
            self._insist(cell, _MOST_REPEATS)
        return b""

    def _insist(self, cell: Cell, times: int) -> None:
        """A shell cannot be told, and loses an interrupt that comes while it is just beginning: more follow then."""
        self.send(cell)
        if times:
            self._timers.set("insist", _REPEAT_S, lambda: self._insist(cell, times - 1))

    def end_cell(self) -> None:
        """No more for the one that ran."""
        self._timers.cancel("insist")
