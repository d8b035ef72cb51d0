"""The gateway's side of the launcher's socket keeps no descriptor that nobody is given."""

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sandgate.core.errors import LauncherUnavailable, SandboxFailed
from sandgate.sandbox import descriptors
from sandgate.sandbox.launcher.client import LauncherClient
from tests.unit.sandbox.conftest import settle


class Launcher:
    """Says what the test wants."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel

    def answer(self, *, ends: int = 1, **fields: Any) -> None:
        """A part of the answer to the first request, with descriptors."""
        sent = [os.open("/dev/null", os.O_RDONLY) for _end in range(ends)]
        descriptors.send(self.channel, json.dumps({"number": 1, "ok": True, **fields}).encode(), sent)
        for end in sent:
            os.close(end)


@pytest.fixture
async def both(no_leak: None, tmp_path: Path) -> AsyncIterator[tuple[LauncherClient, Launcher]]:
    """A client that is connected, and what it is connected to."""
    client = LauncherClient(lambda _id, _reason, _tag: None, lambda: None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        client.connect(tmp_path / "socket")
        channel, _address = listener.accept()
    with channel:
        yield client, Launcher(channel)
        client.close()


Both = tuple[LauncherClient, Launcher]


async def test_launcher_that_dies_within_an_answer(both: Both) -> None:
    """What came with the first part is closed."""
    client, launcher = both
    asked = asyncio.ensure_future(client.request("create", limit_s=60))
    await asyncio.sleep(0)
    launcher.answer(more=True)
    # What it has not read would make an error of its end.
    launcher.channel.recv(65_536)
    launcher.channel.close()
    with pytest.raises(LauncherUnavailable, match="went away"):
        await asked


async def test_launcher_that_refuses_after_a_part(both: Both) -> None:
    """What came with the first part is closed."""
    client, launcher = both
    asked = asyncio.ensure_future(client.request("create", limit_s=60))
    await asyncio.sleep(0)
    launcher.answer(more=True)
    launcher.answer(ok=False, error="no")
    with pytest.raises(SandboxFailed):
        await asked


async def test_launcher_that_is_silent_after_a_part(both: Both) -> None:
    """What came with the first part is closed, and with those that come too late."""
    client, launcher = both
    asked = asyncio.ensure_future(client.request("create", limit_s=0.01))
    await asyncio.sleep(0)
    launcher.answer(more=True)
    with pytest.raises(LauncherUnavailable, match="did not answer"):
        await asked
    launcher.answer()
    await settle()


async def test_answer_in_the_moment_when_time_is_up(both: Both) -> None:
    """It came, and is not given to whoever asked."""
    client, launcher = both
    asked = asyncio.ensure_future(client.request("create", limit_s=0.01))
    await asyncio.sleep(0)
    launcher.answer()
    time.sleep(0.02)  # noqa: ASYNC251 # waits: the loop has to find both at once
    with pytest.raises(LauncherUnavailable, match="did not answer"):
        await asked


async def test_answer_whose_caller_is_cancelled(both: Both) -> None:
    """It came, and nobody is there to take it."""
    client, launcher = both
    asked = asyncio.ensure_future(client.request("create", limit_s=60))
    await asyncio.sleep(0)
    launcher.answer()
    client._on_readable()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_answer_that_is_taken(both: Both) -> None:
    """Its descriptors are the caller's."""
    client, launcher = both
    asked = asyncio.ensure_future(client.request("create", limit_s=60))
    await asyncio.sleep(0)
    launcher.answer(ends=2)
    answer = await asked
    assert [len(received) for received in answer.received] == [2]
    answer.close()
