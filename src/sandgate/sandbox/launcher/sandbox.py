"""One sandbox, as the launcher sees it: from the clone to the last trace of it."""

import os
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sandgate.core.limits import Limits
from sandgate.sandbox.launcher import jail, processes
from sandgate.sandbox.launcher.cgroup import Group, GroupLimits
from sandgate.sandbox.launcher.protocol import EXPIRED
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.zygote import Zygote
from sandgate_agent import wire

BUILD_LIMIT_S = 20.0
_REMOVE_AGAIN_S = 0.002
_USER_INSIDE = 1000


class Sandbox:
    """A keeper and what belongs to it. ``on_ready`` and ``on_gone`` are each called once at most."""

    def __init__(
        self,
        environment_id: str,
        zygote: Zygote,
        reactor: Reactor,
        *,
        group: Group | None,
        host_id: int | None,
        folder: Path | None,
        on_ready: Callable[["Sandbox"], None],
        on_gone: Callable[["Sandbox"], None],
    ) -> None:
        self.environment_id = environment_id
        self.zygote = zygote
        self.group = group
        self.host_id = host_id
        self.ready = False
        self.ending = False
        self.reason = "it ended by itself"
        self._reactor = reactor
        self._folder = folder
        self._on_ready = on_ready
        self._on_gone = on_gone
        self._pidfd = -1
        self._pid = -1
        self._deadline = 0.0
        self._gone = False

    def start(self, number: int, limits: Limits, lifetime_s: float) -> None:
        """Make the control group and ask the zygote for a keeper. Raises ``OSError`` with nothing left behind."""
        if self.group is not None:
            # One process for the keeper and one forker for each slot come on top of the user's own.
            own = 1 + limits.concurrent_executions
            memory = limits.memory_bytes + limits.disk_bytes
            self.group.make(GroupLimits(memory, limits.cpu_millis, limits.processes + own))
        if self._folder is not None:
            for part in ("workspace", "home", "tmp"):
                (self._folder / part).mkdir(parents=True)
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sync, sync = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.zygote.clone(self._request(number, limits), [control.detach(), sync.detach()])
        self._reactor.watch(self._sync.fileno(), self._on_sync)
        self._reactor.call_later(BUILD_LIMIT_S, self._check_built)
        self.extend(lifetime_s)

    def _request(self, number: int, limits: Limits) -> dict[str, Any]:
        """What the agents need to know."""
        rlimits = {"CORE": 0, "FSIZE": limits.file_size_bytes, "NOFILE": limits.open_files, "MEMLOCK": 65_536}
        return {
            "number": number,
            "standard": self.group is not None,
            "hostname": self.environment_id[:63],
            "disk_bytes": limits.disk_bytes,
            "inodes": limits.inodes,
            "lowers": jail.lowers(self.zygote.template),
            "links": jail.top_level()[0],
            "rlimits": rlimits if self.group is not None else {**rlimits, "AS": 16 * limits.memory_bytes},
            "folder": str(self._folder) if self._folder else None,
        }

    def on_cloned(self, pidfd: int) -> None:
        """The keeper exists and waits: confine it, give it its ids, let it go on."""
        self._pidfd = pidfd
        self._reactor.watch(pidfd, self._on_exit)
        if self.ending:
            processes.kill(pidfd)
            return
        try:
            self._pid = processes.pid_of(pidfd)
            if processes.parent_of(self._pid) != self.zygote.pid:
                self.kill("its zygote handed over a process that is not its child")
                return
            self._confine()
            self._sync.send(wire.GO)
        except OSError as error:
            self.kill(f"it could not be confined: {error}")

    def _confine(self) -> None:
        if self.group is None or self.host_id is None:
            return
        self.group.attach(self._pid)
        mapping = f"0 {self.host_id} 1\n{_USER_INSIDE} {self.host_id + 1} 1\n".encode()
        for name in ("uid_map", "gid_map"):
            descriptor = os.open(f"/proc/{self._pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, mapping)
            finally:
                os.close(descriptor)

    def _on_sync(self) -> None:
        try:
            message = self._sync.recv(wire.MESSAGE_LIMIT, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        self._reactor.forget(self._sync.fileno())
        if message == wire.READY and not self.ending:
            self.ready = True
            self._on_ready(self)
        elif self._pidfd >= 0:
            text = message.decode("utf-8", "replace") if message else "its keeper ended while it was made"
            self.kill(f"it could not be built: {text}")

    def _check_built(self) -> None:
        if not self.ready:
            self.kill(f"it was not built within {BUILD_LIMIT_S:.0f} seconds")

    def extend(self, lifetime_s: float) -> None:
        """End it so many seconds from now, unless this is called again."""
        deadline = self._deadline = time.monotonic() + lifetime_s
        self._reactor.call_at(deadline, lambda: self._expire(deadline))

    def _expire(self, deadline: float) -> None:
        if deadline == self._deadline:
            self.kill(EXPIRED)

    def kill(self, reason: str) -> None:
        """End it. The first reason stands."""
        if self.ending or self._gone:
            return
        self.ending = True
        self.reason = reason
        if self._pidfd < 0:
            # Not cloned yet: it is killed as soon as it is, or has ended together with its zygote.
            return
        if self.group is None and self._pid > 0:
            processes.kill_tree(self._pid)
        processes.kill(self._pidfd)

    def on_zygote_end(self) -> None:
        """The zygote is gone, and the keeper with it, if there ever was one."""
        if self._pidfd < 0:
            self.kill(f"its zygote ended: {self.zygote.last_words}")
            self._remove()
        elif not self.ending:
            self.reason = f"its zygote ended: {self.zygote.last_words}"

    def _on_exit(self) -> None:
        """Process 1 is dead, and with its namespace everything that ran in it."""
        self._reactor.forget(self._pidfd)
        os.close(self._pidfd)
        self._remove()

    def _remove(self) -> None:
        """Take away the last traces; again and again until the kernel lets go of them."""
        if not self._gone:
            self._gone = True
            self._reactor.forget(self._sync.fileno())
            self._sync.close()
            self.control.close()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
        gone = True
        if self.group is not None:
            with suppress(OSError):
                gone = self.group.remove()
        if gone:
            self._on_gone(self)
        else:
            self._reactor.call_later(_REMOVE_AGAIN_S, self._remove)
