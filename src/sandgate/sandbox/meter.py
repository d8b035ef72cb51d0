"""What the kernel counts for a sandbox while an execution runs in it: processor time of its slot, and memory.

A process tells its parent what it used when the parent waits for it, and nobody when the parent has said that it will
not. The control group counts all of them; the launcher hands over its counters as open files, which cost less than a
microsecond to read.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_MOST_TEXT = 512


@dataclass(frozen=True, slots=True)
class Measured:
    """What was counted from one moment to another; None is what nothing counts, or not for this execution alone.

    ``is_whole`` is False when it began earlier than it was looked at.
    """

    cpu_us: int | None = None
    peak_memory_bytes: int | None = None
    is_whole: bool = True


class Metering:
    """One execution that is measured, from its making to :meth:`end`."""

    def __init__(self, meter: "Meter", place: int, start_us: int | None, *, is_whole: bool) -> None:
        self.place = place
        self.is_blurred = False
        self.peak: int | None = None
        self._meter = meter
        self._start_us = start_us
        self._is_whole = is_whole
        self._measured: Measured | None = None

    def end(self) -> Measured:
        """What was counted; the same each time."""
        if self._measured is None:
            now_us = self._meter.end(self)
            known = now_us is not None and self._start_us is not None and not self.is_blurred
            used_us = max(0, (now_us or 0) - (self._start_us or 0)) if known else None
            self._measured = Measured(used_us, self.peak, self._is_whole)
        return self._measured


class Meter:
    """The counters of a sandbox. Owns what it is given of the whole of it: its ``time``, and its memory's ``peak``."""

    def __init__(self, ends: Mapping[str, int] = MappingProxyType({})) -> None:
        self._time, self._peak = ends.get("time"), ends.get("peak")
        self._apart: dict[int, int] = {}
        # Of slots that are gone; their time stays the sandbox's.
        self._past_us = 0
        self._running: set[Metering] = set()

    def add(self, place: int, time: int) -> None:
        """A slot whose time is counted apart, by a counter that belongs to this from here on."""
        self._apart[place] = time

    def remove(self, place: int) -> None:
        """The slot is gone, or about to be."""
        time = self._apart.pop(place, None)
        if time is not None:
            self._past_us += _read_time(time) or 0
            os.close(time)

    def begin(self, place: int = 0, *, is_whole: bool = True) -> Metering:
        """Measure an execution in this slot from now on."""
        self._note_peak()
        metering = Metering(self, place, self._read(place), is_whole=is_whole)
        if place not in self._apart:
            # The time of what runs beside it, and is not counted apart either, cannot be told from its own.
            for other in self._running:
                if other.place not in self._apart:
                    other.is_blurred = metering.is_blurred = True
        self._running.add(metering)
        return metering

    def end(self, metering: Metering) -> int | None:
        """See :class:`Metering`; the time of its slot."""
        self._note_peak()
        self._running.discard(metering)
        return self._read(metering.place)

    def _read(self, place: int) -> int | None:
        """The time of a slot, in microseconds; of those that are not counted apart, together."""
        if place in self._apart:
            return _read_time(self._apart[place])
        whole = _read_time(self._time)
        return None if whole is None else whole - self._past_us - sum(_read_time(e) or 0 for e in self._apart.values())

    def _note_peak(self) -> None:
        """Whatever begins or ends: until now the most was this, and from now on it is counted anew."""
        if self._peak is None:
            return
        peak = _read_number(self._peak)
        for metering in self._running:
            if peak is not None:
                metering.peak = max(metering.peak or 0, peak)
        try:
            os.pwrite(self._peak, b"0", 0)
        except OSError:
            # Too old a kernel, or a sandbox that is gone: the next figure would not be the next execution's.
            os.close(self._peak)
            self._peak = None

    def close(self) -> None:
        """Let go of all counters."""
        for end in (self._time, self._peak, *self._apart.values()):
            if end is not None:
                os.close(end)
        self._time = self._peak = None
        self._apart.clear()


def _read_text(end: int) -> bytes:
    try:
        return os.pread(end, _MOST_TEXT, 0)
    except OSError:
        # The group is gone.
        return b""


def _read_number(end: int) -> int | None:
    text = _read_text(end).strip()
    return int(text) if text.isdigit() else None


def _read_time(end: int | None) -> int | None:
    """Microseconds, of version 1 (a number of nanoseconds) or 2 (``usage_usec`` and a number, in the first line)."""
    if end is None:
        return None
    first = _read_text(end).partition(b"\n")[0]
    if first.isdigit():
        return int(first) // 1000
    name, _, number = first.partition(b" ")
    return int(number) if name == b"usage_usec" and number.isdigit() else None


NOTHING = Measured()
