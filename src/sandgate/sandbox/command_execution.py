"""A command in a sandbox, as the gateway sees it: an execution that is talked to while it runs."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial

from sandgate.core.execution import ExecutionRequest
from sandgate.core.limits import Limits
from sandgate.sandbox.command_channel import CommandChannel
from sandgate.sandbox.execution import WaitingChild, ZygoteExecution
from sandgate.sandbox.kernel_kills import KernelKills
from sandgate.sandbox.output import OutputStream
from sandgate_agent import wire


class CommandExecution(ZygoteExecution):
    """See :class:`ZygoteExecution`. Of its output nothing is kept but by whoever watches it.

    A later gateway may take it up only once it has been told all that it needs to begin.
    """

    _is_kept_first = False
    is_command = True

    def __init__(self, request: ExecutionRequest, limits: Limits, kernel_kills: KernelKills) -> None:
        super().__init__(request, limits, kernel_kills)
        assert request.command is not None  # noqa: S101 - what it is made for
        self._words = CommandChannel(request.command.talk)
        self._source = self._words

    def resume(
        self, child: WaitingChild, age_s: float, kill: Callable[[], None], kills_before: int, *, has_ended: bool
    ) -> None:
        """See :class:`ZygoteExecution`."""
        super().resume(child, age_s, kill, kills_before, has_ended=has_ended)
        self._send_more()

    def _stream(self, name: str, descriptor: int) -> OutputStream:
        if self._watcher is None:
            return super()._stream(name, descriptor)
        take = partial(self._watcher.put, name)
        return OutputStream(descriptor, 0, self._watcher.most_bytes, self._on_flood, None, take)

    def _watch(self) -> None:
        super()._watch()
        if self._child is not None:
            asyncio.get_running_loop().add_reader(self._child.channel.fileno(), self._hear)

    def _hear(self) -> None:
        """Take what the child says as it comes."""
        if self._child is not None and not self._take_words(self._child.channel):
            asyncio.get_running_loop().remove_reader(self._child.channel.fileno())

    def _take_words(self, channel: socket.socket) -> bool:
        """Read once; False when there will be no more, or it is a report, which is read at the end."""
        try:
            part = channel.recv(wire.REPORT_LIMIT, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(part) and self._words.hear(part)

    def _read_end(self, channel: socket.socket) -> "tuple[str, str, str] | None":
        """The report, if it could not be started. Of hostile ones, which say more than fits, no more is read."""
        asyncio.get_running_loop().remove_reader(channel.fileno())
        self._take_words(channel)
        self._words.close()
        return wire.parse_report(self._words.report)

    def on_lost(self) -> None:
        """See :class:`ZygoteExecution`."""
        super().on_lost()
        self._words.close()
