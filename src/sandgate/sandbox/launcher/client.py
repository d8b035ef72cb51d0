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
# What was kept of an execution.
_MOST_DESCRIPTORS = 4


def _close_all(ends: Sequence[int]) -> None:
    for end in ends:
        os.close(end)


class Answer:
    """The parts of an answer; the descriptors belong to whoever asked."""

    def __init__(self) -> None:
        self.parts: list[Mapping[str, Any]] = []
        self.descriptors: list[int] = []

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
        self._pending: dict[int, tuple[Answer, asyncio.Future[Answer]]] = {}
        self._socket: socket.socket | None = None
        self._unsent: deque[tuple[bytes, list[int]]] = deque()

    def connect(self, path: Path) -> None:
        """Connect. Raises ``LauncherUnavailable``."""
        try:
            self._socket = connect(path)
        except OSError as error:
            raise LauncherUnavailable(f"The launcher does not answer at {path}: {error.strerror}") from error
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._on_readable)

    async def request(self, verb: str, *, limit_s: float, **fields: Any) -> Answer:
        """Ask and wait for the answer.

        Raises ``LauncherUnavailable`` when it is gone or silent for ``limit_s``, ``SandboxFailed`` when it refuses.
        """
        if self._socket is None:
            raise LauncherUnavailable("The launcher is not connected; it is being started again.")
        number = next(self._numbers)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending[number] = (Answer(), future)
        try:
            self._unsent.append((protocol.pack({"verb": verb, "number": number, **fields}), []))
            self._send()
            async with asyncio.timeout(limit_s):
                return await future
        except TimeoutError:
            raise LauncherUnavailable(f"The launcher did not answer {verb} within {limit_s:.0f} seconds.") from None
        finally:
            self._pending.pop(number, None)
            self._close_unclaimed(future)

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

    def _send_later(self, message: bytes, ends: Sequence[int]) -> None:
        """With copies, because the originals may be closed before its turn comes."""
        copies: list[int] = []
        try:
            copies.extend(os.dup(end) for end in ends)
        except OSError:
            _close_all(copies)
        else:
            self._unsent.append((message, copies))
            self._send()

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

    def _close_unclaimed(self, future: asyncio.Future[Answer]) -> None:
        """An answer that came while its caller was being cancelled has nobody to close its descriptors."""
        task = asyncio.current_task()
        if future.done() and not future.cancelled() and not future.exception() and task and task.cancelling():
            _close_all(future.result().descriptors)

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
        answer.parts.append(message)
        answer.descriptors.extend(received)
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
