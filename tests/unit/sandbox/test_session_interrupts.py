"""Interrupts that came before the cell that they are for had begun."""

import asyncio
import json
from typing import cast

import pytest

from sandgate.sandbox import session_interrupts
from sandgate.sandbox.cell import Cell
from sandgate.sandbox.session_interrupts import SessionInterrupts
from sandgate.sandbox.timers import Timers
from sandgate_agent import wire


def _is_meant(answer: bytes) -> bool:
    length, _code = wire.unpack_code_header(answer[: wire.CODE_HEADER_BYTES])
    found: bool = json.loads(answer[wire.CODE_HEADER_BYTES :][:length])["missed"]
    return found


class _Slot(list[str]):
    """What was sent; ``often`` is set at the fifth."""

    def __init__(self) -> None:
        self.often = asyncio.Event()

    def interrupt(self) -> None:
        """Send one."""
        self.append("interrupt")
        if len(self) == 5:
            self.often.set()


def _make() -> tuple[SessionInterrupts, _Slot]:
    slot = _Slot()
    interrupts = SessionInterrupts(Timers(), lambda: slot.append("unheard"))
    interrupts.send_by(slot.interrupt)
    return interrupts, slot


async def test_a_cell_is_told_once_whether_it_was_meant() -> None:
    """Code can ask for ever, and is told nothing more; nothing is sent beside the answer."""
    interrupts, sent = _make()
    first, second = cast(Cell, object()), cast(Cell, object())
    interrupts.send(first)
    assert _is_meant(interrupts.answer_missed(first, is_shell=False))
    assert interrupts.answer_missed(first, is_shell=False) == b""
    interrupts.confirm()
    assert not _is_meant(interrupts.answer_missed(second, is_shell=False))
    assert sent == ["interrupt"]


async def test_a_shell_is_interrupted_until_its_cell_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It loses one that comes at a bad moment; another cell than the one that was meant is left alone."""
    monkeypatch.setattr(session_interrupts, "_REPEAT_S", 0.001)
    interrupts, sent = _make()
    first, second = cast(Cell, object()), cast(Cell, object())
    interrupts.send(first)
    assert interrupts.answer_missed(first, is_shell=True) == b""
    await asyncio.wait_for(sent.often.wait(), 30)
    interrupts.end_cell()
    count = len(sent)
    assert interrupts.answer_missed(second, is_shell=True) == b""
    # Longer than until the next one would have been sent.
    await asyncio.sleep(0.005)
    assert len(sent) == count
    assert set(sent) == {"interrupt"}


async def test_a_shell_is_not_interrupted_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes on all the same is ended by other means."""
    monkeypatch.setattr(session_interrupts, "_REPEAT_S", 0.0)
    monkeypatch.setattr(session_interrupts, "_MOST_REPEATS", 3)
    interrupts, sent = _make()
    cell = cast(Cell, object())
    interrupts.send(cell)
    interrupts.answer_missed(cell, is_shell=True)
    await asyncio.wait_for(sent.often.wait(), 30)
    await asyncio.sleep(0.005)
    assert len(sent) == 5
    for _each in sent:
        interrupts.confirm()
    assert not interrupts.are_under_way
