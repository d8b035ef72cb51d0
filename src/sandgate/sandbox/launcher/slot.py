"""One forker, as the launcher sees it: cloned, confined, told to go on, and dead in the end."""

import os
import socket
from collections.abc import Callable

from sandgate.sandbox.launcher import disk, processes
from sandgate.sandbox.launcher.cgroup import Group
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.zygote import Zygote, printable
from sandgate_agent import wire

_USER_INSIDE = 1000
_CLONE_GRACE_S = 0.1


class Slot:
    """Each of ``on_ready`` and ``on_dead(reason)`` is called once at most, the second in any case in the end.

    ``group`` and ``host_id`` are None in the process class; ``maps_ids`` is False for a slot that joins a user
    namespace whose ids are mapped already.
    """

    def __init__(
        self,
        zygote: Zygote,
        reactor: Reactor,
        *,
        group: Group | None,
        host_id: int | None,
        maps_ids: bool,
        on_ready: Callable[["Slot"], None],
        on_dead: Callable[["Slot"], None],
    ) -> None:
        self.zygote = zygote
        self.ready = False
        self.reason = "its process 1 ended by itself"
        self.pid = -1
        self._reactor = reactor
        self._group = group
        self._host_id = host_id
        self._maps_ids = maps_ids
        self._on_ready = on_ready
        self._on_dead = on_dead
        self._pidfd = -1
        self._killed = False
        self._dead = False

    def start(self, request: dict[str, object], namespaces: list[int]) -> None:
        """Ask the zygote for the forker; ``control`` is the gateway's end of its socket. Raises ``OSError``."""
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sync, sync = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.zygote.clone(request, [control.detach(), sync.detach(), *namespaces], self._on_cloned)
        self._reactor.watch(self._sync.fileno(), self._on_sync)
        patience_s = self.zygote.patience_s
        self._building = self._reactor.call_later(patience_s, lambda: self._check_built(patience_s))

    def _on_cloned(self, pidfd: int) -> None:
        """The forker exists and waits: confine it, give it its ids, let it go on."""
        if self._dead:
            # Nobody waits for it any more, and it has not been let go on.
            processes.kill(pidfd)
            os.close(pidfd)
            return
        self._pidfd = pidfd
        self._reactor.watch(pidfd, self._on_exit)
        try:
            self.pid = processes.pid_of(pidfd)
            if self._maps_ids and processes.parent_of(self.pid) != self.zygote.pid:
                self.kill("its zygote handed over a process that is not its child")
                return
            self._confine()
            self._sync.send(wire.GO)
        except OSError as error:
            self.kill(f"it could not be confined: {error}")

    def _confine(self) -> None:
        if self._group is None or self._host_id is None:
            return
        self._group.attach(self.pid)
        if not self._maps_ids:
            return
        mapping = f"0 {self._host_id} 1\n{_USER_INSIDE} {self._host_id + 1} 1\n".encode()
        for name in ("uid_map", "gid_map"):
            descriptor = os.open(f"/proc/{self.pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
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
        if message == wire.READY and not self._killed:
            self.ready = True
            self._reactor.cancel(self._building)
            self._on_ready(self)
        elif self._pidfd >= 0:
            text = printable(message.decode("utf-8", "replace")) if message else "its process 1 ended while it was made"
            self.kill(f"it could not be built: {text}")
        else:
            # Its clone, or the zygote's end and the reason for it, is about to be noticed if there is one.
            self._reactor.call_later(_CLONE_GRACE_S, self._check_cloned)

    def _check_cloned(self) -> None:
        if self._pidfd < 0:
            self.kill("it could not be built: its zygote cloned nothing")

    def _check_built(self, patience_s: float) -> None:
        if not self.ready:
            self.kill(f"it was not built within {patience_s:g} seconds")

    def kill(self, reason: str) -> None:
        """End it with everything in it. The first reason stands."""
        if self._killed or self._dead:
            return
        self._killed = True
        self.reason = reason
        if self._pidfd < 0:
            # If it is cloned after all, it is killed before it has begun.
            self._bury()
            return
        if self._group is None and self.pid > 0:
            processes.kill_tree(self.pid)
        processes.kill(self._pidfd)

    def open_root(self) -> int:
        """A descriptor of the root folder of process 1. Raises ``OSError``, also when it has ended."""
        return disk.open_root(self.pid, self._pidfd)

    def on_zygote_end(self) -> None:
        """The zygote is gone, and the forker with it, if there ever was one."""
        if not self._killed:
            self.reason = f"its zygote ended: {self.zygote.last_words}"
        if self._pidfd < 0:
            self._bury()

    def _on_exit(self) -> None:
        """Process 1 is dead, and with its namespace everything that ran in it."""
        self._reactor.forget(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._bury()

    def _bury(self) -> None:
        if self._dead:
            return
        self._dead = True
        self._reactor.cancel(self._building)
        self._reactor.forget(self._sync.fileno())
        self._sync.close()
        self.control.close()
        self._on_dead(self)
