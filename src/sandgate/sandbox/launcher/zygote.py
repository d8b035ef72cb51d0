"""One template's zygote, as the launcher sees it."""

import json
import os
import re
import select
import socket
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from sandgate.sandbox import descriptors
from sandgate.sandbox.launcher import jail, processes
from sandgate.sandbox.launcher.cgroup import Group, GroupLimits
from sandgate.sandbox.launcher.config import LauncherConfig, TemplateConfig
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate_agent import wire

_LOG_LIMIT = 64 * 1024
# A template's packages run in it. What it clones is in its group until the launcher has moved it.
_LIMITS = GroupLimits(memory_bytes=2 * 1024**3, cpu_millis=None, processes=4096)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_LINE_LIMIT = 500


def printable(text: str) -> str:
    """A line of what comes from inside, fit for a log and for the reason of an end."""
    return _UNPRINTABLE.sub(" ", text)[:_LINE_LIMIT]


class Zygote:
    """Starts the process, passes requests on once it is ready, and notices its end."""

    def __init__(
        self,
        config: LauncherConfig,
        template: TemplateConfig,
        reactor: Reactor,
        *,
        on_end: Callable[["Zygote"], None],
    ) -> None:
        self.template = template
        self.pid = -1
        self._config = config
        self._reactor = reactor
        self._on_end = on_end
        self._ready = False
        self._waiting: deque[tuple[bytes, list[int]]] = deque()
        self._cloning: dict[int, Callable[[int], None]] = {}
        self._clones = 0
        self._logged = 0
        self._last_words = ""

    def start(self, host_id: int, group: Group | None, filter_program: bytes | None) -> None:
        """Start the process. Raises ``OSError`` with nothing left behind."""
        if group is not None:
            group.make(_LIMITS)
        self._channel, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log, log = os.pipe()
        ready, go = os.pipe()
        try:
            self.pid = jail.start_zygote(
                self._config, self.template, host_id=host_id, channel=channel.fileno(), log=log, ready=ready
            )
            self._pidfd = os.pidfd_open(self.pid)
            if group is not None:
                group.attach(self.pid)
            os.write(go, b"g")
        finally:
            channel.close()
            for descriptor in (log, ready, go):
                os.close(descriptor)
        os.set_blocking(self._log, False)
        self._reactor.watch(self._log, self._on_log)
        self._reactor.watch(self._channel.fileno(), self._on_message)
        self._reactor.watch(self._pidfd, self._on_exit)
        self._reactor.call_later(self._config.start_limit_s, self._check_started)
        # One that has ended already is noticed by its descriptor, with its last words.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._send_setup(filter_program)
        self._channel.setblocking(False)

    def _send_setup(self, filter_program: bytes | None) -> None:
        message = json.dumps(jail.setup_message(self._config, self.template)).encode()
        if filter_program is None:
            self._channel.send(message)
            return
        program = os.memfd_create("filter", os.MFD_CLOEXEC)
        with os.fdopen(program, "wb") as file:
            file.write(filter_program)
            file.flush()
            file.seek(0)
            descriptors.send(self._channel, message, [file.fileno()])

    @property
    def has_hung_up(self) -> bool:
        """Whether it is dying: it lets go of the channel before its sandboxes are killed and its end is seen."""
        poll = select.poll()
        poll.register(self._channel, 0)
        return bool(poll.poll(0))

    @property
    def patience_s(self) -> float:
        """How long a slot that is asked for now may take; it waits for the zygote when that has not started yet."""
        return self._config.build_limit_s + (0.0 if self._ready else self._config.start_limit_s)

    @property
    def last_words(self) -> str:
        """The last line that it wrote, for the reason of its end."""
        return self._last_words or "no message"

    def clone(self, request: dict[str, object], ends: list[int], on_cloned: Callable[[int], None]) -> None:
        """Ask for a forker with these descriptors, which are the zygote's from here on.

        ``on_cloned`` is called with a descriptor of the new process, unless the zygote ends before.
        """
        self._clones += 1
        self._cloning[self._clones] = on_cloned
        message = wire.pack_numbered(wire.CLONE, self._clones) + json.dumps(request).encode()
        self._waiting.append((message, ends))
        self._pass_on()

    def _pass_on(self) -> None:
        """Send what waits, as far as the zygote takes it; it goes on at its next answer."""
        while self._ready and self._waiting:
            message, ends = self._waiting[0]
            try:
                descriptors.send(self._channel, message, ends)
            except BlockingIOError:
                return
            except OSError:
                # It has just died; its end is about to be noticed and ends every sandbox that waits.
                return
            self._waiting.popleft()
            for descriptor in ends:
                os.close(descriptor)

    def _on_message(self) -> None:
        try:
            message, received = descriptors.receive(self._channel, 4)
        except BlockingIOError:
            return
        except OSError:
            message, received = b"", []
        if not message:
            for descriptor in received:
                os.close(descriptor)
            self._reactor.forget(self._channel.fileno())
            self.kill()
            return
        if not self._ready and message == wire.READY and not received:
            self._ready = True
        else:
            self._on_reply(message, received)
        self._pass_on()

    def _on_reply(self, message: bytes, received: list[int]) -> None:
        try:
            kind, number = wire.parse_numbered(message)
        except wire.WireError:
            kind, number = b"", 0
        on_cloned = self._cloning.pop(number, None)
        if kind == wire.CLONED and len(received) == 1 and on_cloned is not None and processes.is_pidfd(received[0]):
            on_cloned(received[0])
            return
        for descriptor in received:
            os.close(descriptor)
        self._note("broke the protocol")
        self.kill()

    def _on_log(self) -> None:
        try:
            data = os.read(self._log, 4096)
        except BlockingIOError:
            return
        if not data:
            self._reactor.forget(self._log)
            return
        self._logged += len(data)
        if self._logged <= _LOG_LIMIT:
            for line in filter(str.strip, data.decode("utf-8", "replace").splitlines()):
                self._note(line)

    def _note(self, line: str) -> None:
        """Keep and log a line of its output, which is as untrusted as the packages that it imports."""
        self._last_words = printable(line)
        sys.stderr.write(f"launcher: zygote {self.template.name}: {self._last_words}\n")

    def _check_started(self) -> None:
        if not self._ready and self.pid > 0:
            self._note(f"was not ready within {self._config.start_limit_s:g} seconds")
            self.kill()

    def kill(self) -> None:
        """End it and, with its process namespace, everything that it has cloned."""
        if self.pid > 0:
            processes.kill(self._pidfd)

    def _on_exit(self) -> None:
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._on_log()
        for descriptor in (self._log, self._channel.fileno(), self._pidfd):
            self._reactor.forget(descriptor)
        os.close(self._log)
        os.close(self._pidfd)
        self._channel.close()
        for _message, ends in self._waiting:
            for descriptor in ends:
                os.close(descriptor)
        self._waiting.clear()
        self._cloning.clear()
        self.pid = -1
        self._on_end(self)
