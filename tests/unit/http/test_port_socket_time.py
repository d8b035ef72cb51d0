"""How long a web socket to a port may take, its handshake included."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import h11
import pytest

from sandgate.http.port_passage import Passage, PortLimits
from sandgate.http.port_socket import SocketPassage

_LIFETIME_S = 1000.0


class _Silent:
    """A client, or a server inside, that says nothing more."""

    is_going_away = False

    def __init__(self) -> None:
        self.closed = False
        self.heads: list[Any] = []

    async def read(self) -> bytes:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    receive = read

    def close(self) -> None:
        self.closed = True


async def test_handshake_and_what_follows_share_one_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a handshake that took four fifths of it there is one fifth left."""
    loop = asyncio.get_running_loop()
    real, passed = loop.time, [0.0]
    monkeypatch.setattr(loop, "time", lambda: real() + passed[0])
    client = _Silent()
    passage = SimpleNamespace(
        limits=PortLimits(answer_timeout_s=_LIFETIME_S, lifetime_s=_LIFETIME_S),
        exchange=SimpleNamespace(request_id="r", status=0),
        stream=_Silent(),
        inner=SimpleNamespace(trailing_data=(b"", False)),
    )

    async def begin(*_: object, **__: object) -> None:
        """Nobody is asked."""

    async def attend(_upload: Any, download: Any, _check: object) -> None:
        _upload.close()
        passed[0] += 0.8 * _LIFETIME_S
        await download

    async def read_head() -> h11.InformationalResponse:
        return h11.InformationalResponse(status_code=101, headers=[])

    passage.begin, passage.attend, passage.read_head = begin, attend, read_head
    socket = SocketPassage(cast(Passage, passage))
    talking = asyncio.create_task(
        socket.run({}, cast(Any, client.read), cast(Any, None), lambda _: cast(Any, client), None)
    )
    while passage.exchange.status != 101:  # noqa: ASYNC110 - it is seen from outside
        await asyncio.sleep(0)
    passed[0] += 0.19 * _LIFETIME_S
    # waits: nothing happens, which only time can show
    await asyncio.wait({talking}, timeout=0.05)
    assert not talking.done()
    passed[0] += 0.02 * _LIFETIME_S
    await asyncio.wait({talking}, timeout=30)
    assert (talking.done(), client.closed) == (True, True)
    talking.cancel()
