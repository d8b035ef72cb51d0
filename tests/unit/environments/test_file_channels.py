"""What an environment sends of its files, however it is cut into parts."""

import asyncio
import struct

import pytest

from sandgate.core.errors import FilesUnavailable
from sandgate.core.execution import Termination, Usage
from sandgate.core.intake import Intake
from sandgate.core.states import ExecutionStatus
from sandgate.environments.file_channels import Channel


class _Running:
    """Goes on until it is cancelled."""

    def __init__(self) -> None:
        self._end = asyncio.Event()

    async def wait(self) -> Termination:
        """Until then."""
        await self._end.wait()
        return Termination(ExecutionStatus.CANCELLED, None, b"", b"", False, False, None, 0.0, Usage(0, 0))

    def cancel(self) -> None:
        """End it."""
        self._end.set()


def _parts(*parts: bytes) -> bytes:
    return b"".join(struct.pack("!I", len(part)) + part for part in parts)


async def test_others_get_their_turn_however_small_the_parts_are() -> None:
    """And all of them come."""
    intake = Intake()
    channel = Channel(_Running(), intake)
    intake.put(_parts(*[b"x"] * 1000, b"last", b"", b"{}"), lambda: None)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.ensure_future(others())
    whole = b""
    while part := await channel.part():
        whole += part
    assert (whole, turns > 500) == (b"x" * 1000 + b"last", True)
    assert await channel.record() == b"{}"
    beside.cancel()
    channel.close()


async def test_parts_come_whole_however_they_arrive() -> None:
    """In pieces; one that is cut off is told from an end."""
    intake, running = Intake(), _Running()
    channel = Channel(running, intake)
    text, got = _parts(b"first", b"second"), b""
    for place in range(0, len(text), 3):
        asyncio.get_running_loop().call_later(place / 1000, intake.put, text[place : place + 3], lambda: None)
    while len(got) < 11:
        got += await channel.part()
    assert got == b"firstsecond"
    intake.put(_parts(b"third")[:6], lambda: None)
    assert await channel.part() == b"th"
    running.cancel()
    with pytest.raises(FilesUnavailable):
        await channel.part()
    channel.close()
