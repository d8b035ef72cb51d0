"""A deadline is judged after what has come before it was heard."""

import asyncio
import socket
import time

import pytest

from sandgate.sandbox import patient_timer
from sandgate.sandbox.patient_timer import PatientTimer


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Late is what is a few milliseconds late."""
    monkeypatch.setattr(patient_timer, "_LATE_S", 0.005)
    monkeypatch.setattr(patient_timer, "_HEARING_S", 0.001)


async def _after(stands_still_s: float) -> list[str]:
    """What is called in which order, when something arrives while the process stands still past a deadline."""
    loop, called = asyncio.get_running_loop(), list[str]()
    reader, writer = await _pipe(called)
    over = loop.create_future()

    def end() -> None:
        called.append("deadline")
        over.set_result(None)

    PatientTimer(0.002, end)
    if stands_still_s:
        writer.write(b"x")
        time.sleep(stands_still_s)  # waits: standing still is what is tried  # noqa: ASYNC251
    await over
    writer.close()
    reader.close()
    return called


async def _pipe(called: list[str]) -> tuple[asyncio.BaseTransport, asyncio.WriteTransport]:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()

    class Hears(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            called.append("heard")

    reader, _ = await loop.create_connection(Hears, sock=theirs)
    writer, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    return reader, writer


async def test_what_came_while_the_process_stood_still_is_heard_first() -> None:
    """The deadline comes after it, and not much later."""
    assert await _after(0.01) == ["heard", "deadline"]


async def test_a_deadline_comes_in_time() -> None:
    """Without anything to hear, as well as when it is cancelled."""
    assert await _after(0) == ["deadline"]
    called: list[str] = []
    timer = PatientTimer(0.0, lambda: called.append("deadline"))
    timer.cancel()
    late = PatientTimer(0.0, lambda: called.append("deadline"))
    time.sleep(0.006)  # waits: standing still is what is tried  # noqa: ASYNC251
    await asyncio.sleep(0)
    late.cancel()
    await asyncio.sleep(0.002)
    assert called == []
