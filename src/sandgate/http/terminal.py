"""A terminal over a web socket, as xterm.js and its attach addon speak it.

What the client sends is typed, whether it comes as text or as bytes; what the terminal shows is sent as bytes in UTF-8.
A text that begins with NUL and a brace is no input but JSON behind NUL: ``{"resize": {"rows": 24, "cols": 80}}``. NUL
alone is what keyboards send for control and space.
"""

import asyncio
import json
from contextlib import suppress

from pydantic import ValidationError

from sandgate.core.command import Order, OrderKind
from sandgate.core.errors import Conflict
from sandgate.core.process import Process, ProcessStatus
from sandgate.environments.active_process import ActiveProcess
from sandgate.environments.process_output import ProcessPosition, ProcessReader
from sandgate.http.models.processes import TerminalWanted
from sandgate.http.web_socket import Message, WebSocket

PROTOCOL = "sandgate.terminal.v1"
CONTROL = "\0{"
_NORMAL, _UNSUPPORTED, _GOING_AWAY = 1000, 1003, 1001


class Terminal:
    """One client at a process's terminal. ``is_own``: the process was started for it, and is killed when it goes."""

    def __init__(self, active: ActiveProcess, position: ProcessPosition | None, *, is_own: bool) -> None:
        self._active = active
        self._position = position
        self._is_own = is_own

    async def talk(self, socket: WebSocket) -> tuple[int, str]:
        """Show and type until the process has ended, or the client has gone; with which code to close, and why."""
        # The client sets the pace: the process waits for who looks at it.
        reader = ProcessReader(self._active, self._position, sets_pace=True)
        showing = asyncio.ensure_future(self._show(socket, reader))
        typing = asyncio.ensure_future(self._type(socket))
        try:
            done, _ = await asyncio.wait({showing, typing}, return_when=asyncio.FIRST_COMPLETED)
            return (showing if showing in done else typing).result()
        finally:
            for task in (showing, typing):
                task.cancel()
            await asyncio.wait({showing, typing})
            reader.close()

    def close(self) -> None:
        """The client has gone, or has never come."""
        if self._is_own:
            self._active.handle.cancel()

    async def _show(self, socket: WebSocket, reader: ProcessReader) -> tuple[int, str]:
        journal = self._active.journal
        while True:
            parts = reader.read()
            if parts:
                await socket.send("".join(part.text for part in parts).encode("utf-8", "replace"))
            elif journal.has_ended:
                row = self._active.row
                return (_GOING_AWAY if row.status is ProcessStatus.LOST else _NORMAL), describe_end(row)
            else:
                await journal.wait_for_change()

    async def _type(self, socket: WebSocket) -> tuple[int, str]:
        while True:
            message = await socket.receive()
            if message is None:
                return _NORMAL, ""
            if isinstance(message, str) and message.startswith(CONTROL):
                if not self._obey(message.removeprefix("\0")):
                    return _UNSUPPORTED, "a control message is not understood"
            else:
                await self._feed(message)

    async def _feed(self, message: Message) -> None:
        """As fast as it is read. What is typed for one that reads no more is for nobody."""
        data = message.encode("utf-8", "replace") if isinstance(message, str) else message
        await self._active.talk.feed(data, None)

    def _obey(self, text: str) -> bool:
        try:
            asked = json.loads(text)
            size = TerminalWanted.model_validate(asked["resize"]).size()
        except (ValueError, KeyError, TypeError, RecursionError, ValidationError):
            return False
        # One that has just ended, or takes nothing any more, has no size.
        with suppress(Conflict):
            self._active.tell(Order(OrderKind.RESIZE, size=size))
        return True


def describe_end(row: Process) -> str:
    """The end of a process in a few words."""
    if row.signal is not None:
        return f"ended by {row.signal}"
    if row.exit_code is not None:
        return f"exited with {row.exit_code}"
    return row.error or row.status.value
