"""What is written down of an environment's connections: sums, and the newest of them."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime

from sandgate.core.network import Connection, NetworkTotals, Verdict
from sandgate.sandbox.proxy.notes import Notes
from sandgate.sandbox.proxy.problems import Problem, Reason


class Entry:
    """One connection, from when it was asked for."""

    def __init__(self, ledger: "Ledger", at: datetime) -> None:
        self.host: str | None = None
        self.port: int | None = None
        self.verdict = Verdict.FAILED
        self.reason = ""
        self.sent_bytes = 0
        self.received_bytes = 0
        # What it was cut off for, if it was.
        self.cut: Problem | None = None
        self._ledger = ledger
        self._at = at
        self._began = self.used_at = time.monotonic()
        self._ended: float | None = None

    def connect(self) -> None:
        """The host may be reached, and was."""
        self.verdict = Verdict.ALLOWED
        self._ledger.opened(self)

    def count(self, *, sent: int = 0, received: int = 0) -> None:
        """Bytes went through. Raises ``Problem`` when the environment has had as many as it may."""
        self.used_at = time.monotonic()
        self.sent_bytes += sent
        self.received_bytes += received
        self._ledger.count(sent, received)

    def end(self, problem: Problem | None = None) -> None:
        """It is over; how it ended when it was open, and otherwise why it never was."""
        if self._ended is not None:
            return
        self._ended = time.monotonic()
        problem = self.cut or problem
        self.reason = Reason.CLOSED if problem is None else problem.reason
        opened = self.verdict is Verdict.ALLOWED
        if not opened and problem is not None:
            self.verdict = problem.verdict
        self._ledger.ended(self, opened=opened)

    def shown(self) -> Connection:
        """For a report."""
        until = self._ended or time.monotonic()
        return Connection(
            self._at, self.host, self.port, self.verdict, self.reason, self.sent_bytes, self.received_bytes,
            round((until - self._began) * 1000),
        )  # fmt: skip


class Ledger:
    """Of one environment. ``most_bytes`` is what may go through, both ways together; 0 is no bound."""

    def __init__(self, now: Callable[[], datetime], kept: int, most_bytes: int, notes: Notes) -> None:
        self._now = now
        self._notes = notes
        self._most_bytes = most_bytes
        self._entries: deque[Entry] = deque(maxlen=kept)
        self._open: set[Entry] = set()
        self._counts = dict.fromkeys(Verdict, 0)
        self._sent_bytes = 0
        self._received_bytes = 0

    def begin(self) -> Entry:
        """A connection is asked for."""
        entry = Entry(self, self._now())
        self._entries.append(entry)
        return entry

    def opened(self, entry: Entry) -> None:
        """It leads to its host."""
        self._open.add(entry)

    def ended(self, entry: Entry, *, opened: bool) -> None:
        """It is over."""
        self._counts[entry.verdict] += 1
        if opened:
            self._open.discard(entry)
        self._notes.ended(entry.shown())

    def close(self) -> None:
        """Nothing will be written down any more."""
        self._notes.closed(self.totals())

    def count(self, sent: int, received: int) -> None:
        """Bytes went through. Raises ``Problem``."""
        self._sent_bytes += sent
        self._received_bytes += received
        self.check_bytes()

    def check_bytes(self) -> None:
        """Raises ``Problem`` when as many went through as may."""
        if self._most_bytes and self._sent_bytes + self._received_bytes > self._most_bytes:
            text = f"this environment has had the {self._most_bytes} bytes of network that it may have"
            raise Problem(Reason.BYTE_LIMIT, text)

    def totals(self) -> NetworkTotals:
        """All of it."""
        counts = self._counts
        return NetworkTotals(
            counts[Verdict.ALLOWED] + len(self._open), counts[Verdict.DENIED], counts[Verdict.FAILED],
            len(self._open), self._sent_bytes, self._received_bytes,
        )  # fmt: skip

    def newest(self) -> Iterator[Connection]:
        """What is kept of single connections, newest first."""
        return (entry.shown() for entry in reversed(self._entries))
