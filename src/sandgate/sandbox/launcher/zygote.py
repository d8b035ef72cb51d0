"""One template's zygote, as the launcher sees it."""

import json
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace

from sandgate.core.limits import MIB
from sandgate.sandbox import descriptors
from sandgate.sandbox.launcher import jail, processes
from sandgate.sandbox.launcher.cgroup import Group, GroupLimits
from sandgate.sandbox.launcher.config import LauncherConfig, TemplateConfig
from sandgate.sandbox.launcher.inside_log import InsideLog
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate_agent import wire

# What it clones is in its group until the launcher has moved it. It has one thread, which a whole core does not hold
# back; what its packages start beside that shares the core with it.
_LIMITS = GroupLimits(memory_bytes=2 * 1024**3, cpu_millis=1000, processes=4096)
# Of one that was built: what a user's packages start, and the environments that are made at once.
_PROCESSES_OF_BUILT = 512
# Its channel, its log and the process.
_DESCRIPTORS = 3


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
        self._killed = False
        self._waiting: deque[tuple[bytes, list[int]]] = deque()
        self._cloning: dict[int, Callable[[int | None], None]] = {}
        self._clones = 0
        self._group: Group | None = None
        self._memory_kills = 0

    def start(self, host_id: int, group: Group | None, filter_program: bytes | None) -> None:
        """Start the process. Raises ``OSError`` with nothing left behind."""
        if group is not None:
            group.make(self._limits())
            # A group that is left from another one has the count of that.
            self._group, self._memory_kills = group, group.usage().out_of_memory_kills
        self._reactor.allowance.take(_DESCRIPTORS)
        try:
            inside = self._start(host_id, group)
        except OSError:
            self._reactor.allowance.give_back(_DESCRIPTORS)
            raise
        self._log = InsideLog(self._reactor, inside, f"zygote {self.template.name}")
        self._reactor.watch(self._channel.fileno(), self._on_message, self._fail)
        self._reactor.watch(self._pidfd, self._on_exit, self._fail)
        self._reactor.call_later(self._config.start_limit_s, self._check_started, self._fail)
        try:
            self._send_setup(filter_program)
        except (BrokenPipeError, ConnectionResetError):
            # One that has ended already is noticed by its descriptor, with its last words.
            pass
        except OSError as error:
            self._fail(f"it could not be told what to do: {error}")
        self._channel.setblocking(False)

    def _limits(self) -> GroupLimits:
        """The server's own templates are the administrator's affair, others are many, and any user's."""
        if not self.template.is_built:
            return _LIMITS
        return replace(_LIMITS, memory_bytes=self._config.built_memory_bytes, processes=_PROCESSES_OF_BUILT)

    def _start(self, host_id: int, group: Group | None) -> int:
        """Start the process; answers the reading end of what it says. Raises ``OSError`` with nothing left behind."""
        with ExitStack() as passing, ExitStack() as failed:
            self._channel, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            failed.callback(self._channel.close)
            passing.callback(channel.close)
            inside, log = os.pipe()
            failed.callback(os.close, inside)
            passing.callback(os.close, log)
            ready, go = os.pipe()
            passing.callback(os.close, ready)
            passing.callback(os.close, go)
            self.pid = jail.start_zygote(
                self._config, self.template, host_id=host_id, channel=channel.fileno(), log=log, ready=ready
            )
            failed.callback(self._abandon)
            if group is not None:
                group.attach(self.pid)
            self._pidfd = os.pidfd_open(self.pid)
            os.write(go, wire.GO)
            failed.pop_all()
        return inside

    def _abandon(self) -> None:
        processes.abandon(self.pid)
        self.pid = -1

    def _fail(self, reason: str) -> None:
        """Something about it went wrong out here: nothing of it can be relied upon."""
        self._log.note(reason)
        self.kill()

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
    def is_of_use(self) -> bool:
        """False when it is dying: it lets go of the channel before its sandboxes are killed and its end is seen."""
        poll = select.poll()
        poll.register(self._channel, 0)
        return not self._killed and not poll.poll(0)

    @property
    def patience_s(self) -> float:
        """How long a slot that is asked for now may take; it waits for the zygote when that has not started yet."""
        return self._config.build_limit_s + (0.0 if self._ready else self._config.start_limit_s)

    @property
    def last_words(self) -> str:
        """The last line that it wrote, for the reason of its end."""
        return self._log.last_words or "no message"

    def clone(self, request: dict[str, object], ends: list[int], on_cloned: Callable[[int | None], None]) -> None:
        """Ask for a forker with these descriptors, which are the zygote's from here on.

        ``on_cloned`` is called with a descriptor of the new process, unless the zygote ends before; with None when
        it came without one.
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
            message, received = descriptors.receive(self._channel, 1)
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
        on_cloned = self._cloning.pop(number, None) if kind == wire.CLONED else None
        if on_cloned is not None and (not received or (len(received) == 1 and processes.is_pidfd(received[0]))):
            # One without a descriptor need not be the zygote's fault: the kernel drops what this process may not have.
            on_cloned(received[0] if received else None)
            return
        for descriptor in received:
            os.close(descriptor)
        self._log.note("broke the protocol")
        self.kill()

    def _check_started(self) -> None:
        if not self._ready and self.pid > 0:
            self._log.note(f"was not ready within {self._config.start_limit_s:g} seconds")
            self.kill()

    def kill(self) -> None:
        """End it and, with its process namespace, everything that it has cloned."""
        self._killed = True
        if self.pid > 0:
            processes.kill(self._pidfd)

    def _on_exit(self) -> None:
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._log.close()
        if self._group is not None and self._group.usage().out_of_memory_kills > self._memory_kills:
            self._log.note(f"took more memory than the {(self._limits().memory_bytes or 0) // MIB} MiB it may have")
        for descriptor in (self._channel.fileno(), self._pidfd):
            self._reactor.forget(descriptor)
        os.close(self._pidfd)
        self._channel.close()
        for _message, ends in self._waiting:
            for descriptor in ends:
                os.close(descriptor)
        self._waiting.clear()
        self._cloning.clear()
        self.pid = -1
        self._reactor.allowance.give_back(_DESCRIPTORS)
        self._on_end(self)
