"""The words that go between the gateway and the child that stands by a command; see ``sandgate_agent/wire.py``."""

from collections.abc import Callable, Mapping
from typing import Any

from sandgate.core.command import Command, Order, OrderKind
from sandgate.core.command_talk import CommandTalk
from sandgate_agent import wire

_SIMPLE: Mapping[OrderKind, bytes] = {OrderKind.INPUT_END: wire.INPUT_END, OrderKind.SIGNAL: wire.SIGNAL}


def describe(command: Command) -> dict[str, Any]:
    """What the child is given."""
    size = command.terminal
    return {
        "commands": [list(words) for words in command.commands],
        "env": dict(command.env),
        "cwd": command.cwd,
        "stdin": command.takes_input,
        "pty": None if size is None else [size.rows, size.columns],
    }


def _encode(order: Order) -> bytes:
    if order.kind is OrderKind.INPUT:
        return wire.pack_word(wire.INPUT, len(order.data)) + order.data
    if order.size is not None:
        return wire.pack_word(wire.RESIZE, order.size.rows << 16 | order.size.columns)
    return wire.pack_word(_SIMPLE[order.kind], order.number)


class CommandChannel:
    """See :class:`sandgate.core.execution.InputSource`; and hears what the child says, which is hostile."""

    def __init__(self, talk: CommandTalk) -> None:
        self._talk = talk
        self._heard = b""

    def take(self, resume: Callable[[], None]) -> bytes:
        """See :class:`sandgate.core.execution.InputSource`."""
        return b"".join(map(_encode, self._talk.take(resume)))

    def hear(self, data: bytes) -> bool:
        """Take what the child says; False when nothing more of it can be understood, or is a report."""
        self._heard += data
        start = 0
        known = True
        while known and len(self._heard) - start >= wire.WORD_BYTES:
            known = self._note(*wire.parse_word(self._heard[start : start + wire.WORD_BYTES]))
            start += wire.WORD_BYTES if known else 0
        self._heard = self._heard[start:]
        return known and len(self._heard) < wire.WORD_BYTES

    def _note(self, kind: bytes, number: int) -> bool:
        if kind == wire.BEGUN:
            self._talk.on_begun(number)
        elif kind == wire.TAKEN:
            self._talk.on_taken(number)
        elif kind == wire.INPUT_CLOSED:
            self._talk.on_input_closed()
        else:
            return False
        return True

    @property
    def report(self) -> bytes:
        """What was said last, and is no word."""
        return self._heard

    def close(self) -> None:
        """The command has ended, or the child that stood by it."""
        self._talk.on_input_closed()
