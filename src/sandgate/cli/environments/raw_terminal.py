"""The user's terminal, lent to a program that runs elsewhere, and given back as it was."""

import os
import select
import signal
import struct
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from types import FrameType
from typing import TYPE_CHECKING

from sandgate.sdk.errors import ClientError

if TYPE_CHECKING:
    from sandgate.sdk.terminal import Terminal

#: Ctrl-], with which telnet is left, too.
LEAVE = b"\x1d"
_PIECE_BYTES = 64 * 1024
_RESIZED, _ENDED = b"r", b"e"
# What programs switch on and one that is cut off leaves on: colours, mouse, bracketed paste, focus, keypad and cursor
# keys, the other screen, a cursor that is not shown. Source: Xterm Control Sequences, "DEC Private Mode Set".
_RESET = b"\x1b[0m\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\x1b[?2004l\x1b[?1l\x1b>\x1b[?1047l\x1b[?25h"


def size_of(descriptor: int) -> tuple[int, int]:
    """Rows and columns."""
    rows, columns, _, _ = struct.unpack("HHHH", ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * 8))
    return rows or 24, columns or 80


def lend(remote: "Terminal", keys: int, screen: int, size: tuple[int, int]) -> bool:
    """Type and show until the program elsewhere has ended; False when the user has left before, with ``LEAVE``.

    ``keys`` and ``screen`` are descriptors of a terminal, ``size`` is what ``remote`` was opened with. Raises
    ``ClientError`` when the connection breaks.
    """
    with _raw(keys, screen), _told() as (wake, woken):
        if size_of(screen) != size:
            # Nobody was told of that while it was being opened.
            remote.resize(*size_of(screen))
        failures: list[ClientError] = []
        showing = threading.Thread(target=_show, args=(remote, screen, wake, failures), daemon=True)
        showing.start()
        try:
            has_ended = _type(remote, keys, screen, woken)
        finally:
            remote.close()
            showing.join()
    if failures and has_ended:
        raise failures[0]
    return has_ended


def _show(remote: "Terminal", screen: int, wake: int, failures: list[ClientError]) -> None:
    try:
        # A screen that is gone ends it, too.
        with suppress(OSError):
            for piece in remote.pieces():
                _write_all(screen, piece)
    except ClientError as error:
        failures.append(error)
    finally:
        os.write(wake, _ENDED)


def _type(remote: "Terminal", keys: int, screen: int, woken: int) -> bool:
    while True:
        ready, _, _ = select.select([keys, woken], [], [])
        if woken in ready:
            told = os.read(woken, 4096)
            if _ENDED in told:
                return True
            if _RESIZED in told:
                remote.resize(*size_of(screen))
        if keys in ready:
            typed = _read(keys)
            if not typed or LEAVE in typed:
                remote.send(typed.partition(LEAVE)[0])
                return False
            remote.send(typed)


def _read(keys: int) -> bytes:
    """What was typed; nothing when the terminal is gone."""
    try:
        return os.read(keys, _PIECE_BYTES)
    except OSError:
        return b""


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def _raw(keys: int, screen: int) -> Iterator[None]:
    """Every key goes through, none means anything here. Whatever ends this, the terminal is as it was before."""
    before = termios.tcgetattr(keys)
    try:
        # What was typed before is for the program, too.
        tty.setraw(keys, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
        with suppress(OSError):
            _write_all(screen, _RESET)


@contextmanager
def _told() -> Iterator[tuple[int, int]]:
    """A pipe that says that the size is another one; signals that would end this end it the usual way."""
    woken, wake = os.pipe()

    def note(_number: int, _frame: FrameType | None) -> None:
        os.write(wake, _RESIZED)

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {
        signal.SIGWINCH: signal.signal(signal.SIGWINCH, note),
        **{number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)},
    }
    try:
        yield wake, woken
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake)
        os.close(woken)
