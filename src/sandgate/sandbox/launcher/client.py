"""The gateway's side of the launcher's socket, for one event loop."""

import asyncio
import itertools
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sandgate.core.errors import LauncherUnavailable, SandboxFailed
from sandgate.sandbox import descriptors
from sandgate.sandbox.launcher import protocol
from sandgate.sandbox.launcher.address import connect

_READS_AT_ONCE = 64
# A new sandbox: its control socket, three counters, the ends of a child.
_MOST_DESCRIPTORS = 7


def _close_all(ends: Sequence[int]) -> None:
    for end in ends:
        os.close(end)


class Reply:
    """The parts of an answer, and what came with each; the descriptors belong to whoever asked."""

    def __init__(self) -> None:
        self.parts: list[Mapping[str, Any]] = []
        self.received: list[list[int]] = []

    def add(self, part: Mapping[str, Any], received: list[int]) -> None:
        """One more part."""
        self.parts.append(part)
        self.received.append(received)

    def take_sandbox(self) -> tuple[socket.socket, Mapping[str, int], list[int]]:
        """A control socket, counters by name, and what comes behind them; all of it the caller's.

        Raises ``SandboxFailed`` when this process had no room for them.
        """
        if not self.received[0]:
            raise SandboxFailed(
                "The gateway has no descriptors left for a sandbox; raise its limit of open files, or let it hold less",
                {"reason": "the gateway has no descriptors left"},
            )
        (control, *others), self.received[0] = self.received[0], []
        names = self.parts[0]["counters"]
        counters = dict(zip(names, others, strict=False))
        return socket.socket(fileno=control), counters, others[len(names) :]

    def close(self) -> None:
        """Let go of what nobody has taken."""
        for received in self.received:
            _close_all(received)
            received.clear()

    @property
    def values(self) -> Mapping[str, Any]:
        """The last part."""
        return self.parts[-1]


class LauncherClient:
    """One connection. ``on_lost()`` is called once at its end, ``on_event(environment_id, reason, tag)`` for what ends
    unasked: a sandbox, or with a tag one execution in it.


    ``on_memory(environment_id)`` for what uses more memory than it may.
    """

    def __init__(
        self,
        on_event: Callable[[str, str, str | None], None],
        on_lost: Callable[[], None],
        on_memory: Callable[[str], None] = lambda _environment_id: None,
    ) -> None:
        self._on_event = on_event
        self._on_memory = on_memory
        self._on_lost = on_lost
        self._numbers = itertools.count(1)
        self._pending: dict[int, tuple[Reply, asyncio.Future[Reply]]] = {}
        self._socket: socket.socket | None = None
        self._unsent: deque[tuple[bytes, list[int]]] = deque()

    def connect(self, path: Path) -> None:
        """Connect. Raises ``LauncherUnavailable``."""
        try:
            self._socket = connect(path)
        except OSError as error:
            raise LauncherUnavailable(f"The launcher does not answer at {path}: {error.strerror}") from error
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._on_readable)

    async def request(self, verb: str, *, limit_s: float, **fields: Any) -> Reply:
        """Ask and wait for the answer; see :meth:`request_with`."""
        return await self.request_with((), verb, limit_s=limit_s, **fields)

    async def request_with(self, ends: Sequence[int], verb: str, *, limit_s: float, **fields: Any) -> Reply:
        """Ask, with copies of descriptors, and wait for the answer.

        Raises ``LauncherUnavailable`` when it is gone or silent for ``limit_s``, ``SandboxFailed`` when it refuses.
        """
        if self._socket is None:
            raise LauncherUnavailable("The launcher is not connected; it is being started again.")
        number = next(self._numbers)
        message = protocol.pack({"verb": verb, "number": number, **fields})
        if len(message) > protocol.MESSAGE_LIMIT:
            raise SandboxFailed(f"{verb} needs {len(message)} bytes, more than a request to the launcher may have")
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        answer = Reply()
        self._pending[number] = (answer, future)
        claimed = False
        try:
            if not self._send_later(message, ends):
                raise LauncherUnavailable("The gateway has no descriptors left for a request; raise its limit of files")
            async with asyncio.timeout(limit_s):
                await future
        except TimeoutError:
            raise LauncherUnavailable(f"The launcher did not answer {verb} within {limit_s:.0f} seconds.") from None
        else:
            claimed = True
            return answer
        finally:
            self._pending.pop(number, None)
            if not claimed:
                # It failed, or its caller is gone, with some of it here already: nobody else closes that.
                answer.close()

    def notify(self, verb: str, ends: Sequence[int], **fields: Any) -> None:
        """Tell something that has no answer, with copies of descriptors.

        Without a launcher, or without room for the copies, it is told to nobody.
        """
        if self._socket is None:
            return
        message = protocol.pack({"verb": verb, "number": 0, **fields})
        if self._unsent or not self._send_now(message, ends):
            self._send_later(message, ends)

    def _send_now(self, message: bytes, ends: Sequence[int]) -> bool:
        """Send it if the launcher takes it; False when it has to wait."""
        assert self._socket is not None  # noqa: S101 - the caller has looked
        try:
            descriptors.send(self._socket, message, list(ends))
        except BlockingIOError:
            return False
        except OSError:
            self._lose()
        return True

    def _send_later(self, message: bytes, ends: Sequence[int]) -> bool:
        """With copies, because the originals may be closed before its turn comes; False without room for them."""
        copies: list[int] = []
        try:
            copies.extend(os.dup(end) for end in ends)
        except OSError:
            _close_all(copies)
            return False
        self._unsent.append((message, copies))
        self._send()
        return True

    def _send(self) -> None:
        """Send what waits, as far as the launcher takes it, and go on when it takes more."""
        if self._socket is None:
            return
        loop = asyncio.get_running_loop()
        try:
            while self._unsent:
                descriptors.send(self._socket, *self._unsent[0])
                _close_all(self._unsent.popleft()[1])
        except BlockingIOError:
            loop.add_writer(self._socket.fileno(), self._send)
        except OSError:
            self._lose()
        else:
            loop.remove_writer(self._socket.fileno())

    def _on_readable(self) -> None:
        for _read in range(_READS_AT_ONCE):
            if self._socket is None:
                return
            try:
                data, received = descriptors.receive(self._socket, _MOST_DESCRIPTORS)
            except BlockingIOError:
                return
            except OSError:
                data, received = b"", []
            if not data:
                self._lose()
                return
            self._on_message(json.loads(data), received)

    def _on_message(self, message: Mapping[str, Any], received: list[int]) -> None:
        if message.get("event") == "ended":
            self._on_event(message["environment_id"], message["reason"], message.get("tag"))
            return
        if message.get("event") == "memory":
            self._on_memory(message["environment_id"])
            return
        answer, future = self._pending.get(message["number"], (None, None))
        if answer is None or future is None or future.done():
            _close_all(received)
            return
        answer.add(message, received)
        if not message["ok"]:
            future.set_exception(
                SandboxFailed(f"The launcher refused: {message['error']}", {"reason": message["error"]})
            )
        elif not message.get("more"):
            future.set_result(answer)

    def _lose(self) -> None:
        if self._socket is None:
            return
        self.close()
        self._on_lost()

    def close(self) -> None:
        """Disconnect; whoever waits for an answer is refused."""
        if self._socket is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket.fileno())
        loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._socket = None
        while self._unsent:
            _close_all(self._unsent.popleft()[1])
        for _answer, future in self._pending.values():
            if not future.done():
                future.set_exception(LauncherUnavailable("The launcher went away; it is being started again."))
