"""One forker, as the launcher sees it: cloned, confined, told to go on, and dead in the end."""

import os
import socket
from collections.abc import Callable

from sandgate.sandbox.launcher import disk, inner_sockets, processes
from sandgate.sandbox.launcher.attaching import Namespaces, Wanted, attach
from sandgate.sandbox.launcher.cgroup import Group
from sandgate.sandbox.launcher.inside_log import printable
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.zygote import Zygote
from sandgate_agent import wire

_USER_INSIDE = 1000
_CLONE_GRACE_S = 0.1
_ROOT_LIMIT_S = 20.0
# Both ends of two channels, until the zygote has the inner ones, and the process.
_STARTING, _BUILDING, _READY = 5, 3, 2


class Slot:
    """Each of ``on_ready`` and ``on_dead(reason)`` is called once at most, the second in any case in the end.

    ``group`` and ``host_id`` are None in the process class; ``maps_ids`` is False for a slot that joins a user
    namespace whose ids are mapped already. ``part`` is the part of the group that it is counted in. ``root`` is what
    it is given to build its environment in, None where it makes that itself.
    """

    def __init__(
        self,
        zygote: Zygote,
        reactor: Reactor,
        *,
        group: Group | None,
        host_id: int | None,
        maps_ids: bool,
        part: str,
        root: Wanted | None,
        on_ready: Callable[["Slot"], None],
        on_dead: Callable[["Slot"], None],
    ) -> None:
        self.zygote = zygote
        self.ready = False
        self.reason = "its process 1 ended by itself"
        self.pid = -1
        self._reactor = reactor
        self.part = part
        self._group = group
        self._host_id = host_id
        self._maps_ids = maps_ids
        self._root = root
        self._on_ready = on_ready
        self._on_dead = on_dead
        self._pidfd = -1
        # Whether it puts itself into its group, and whether it says that it has.
        self._enters = self._has_tried = False
        self._killed = False
        self._dead = False
        self._held = 0

    def _hold(self, count: int) -> None:
        """Count what it holds from now on. Raises ``OSError`` when it is more than the launcher has left."""
        if count > self._held:
            self._reactor.allowance.take(count - self._held)
        else:
            self._reactor.allowance.give_back(self._held - count)
        self._held = count

    def start(self, request: dict[str, object], namespaces: list[int]) -> None:
        """Ask the zygote for the forker; ``control`` is the gateway's end of its socket. Raises ``OSError``."""
        entries = self._open_entries()
        try:
            self._hold(_STARTING + len(namespaces) + len(entries))
            self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._sync, sync = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._reactor.watch(self._sync.fileno(), self._on_sync, self.kill)
        except OSError:
            for descriptor in entries:
                os.close(descriptor)
            self._hold(0)
            raise
        patience_s = self.zygote.patience_s
        self._building = self._reactor.call_later(patience_s, lambda: self._check_built(patience_s), self.kill)
        ends = [control.detach(), sync.detach(), *namespaces, *entries]
        counts = {"namespaces": len(namespaces), "entries": len(entries)}
        self.zygote.clone({**request, **counts}, ends, self._on_cloned)

    def _open_entries(self) -> list[int]:
        """For the forker to put itself into its group. Raises ``OSError``.

        A zygote that has imported what a user has chosen could keep them, and is not handed any.
        """
        if self._group is None or self.zygote.template.is_built:
            return []
        entries = self._group.open_entries(self.part)
        self._enters = bool(entries)
        return entries

    def _on_cloned(self, pidfd: int | None) -> None:
        """The forker exists and waits: confine it, give it its ids, let it go on.

        Without a descriptor of it there is no holding it; it ends when nobody lets it go on.
        """
        if pidfd is None:
            self.kill("its process 1 was cloned and could not be taken hold of")
            return
        if self._dead:
            # Nobody waits for it any more, and it has not been let go on.
            processes.kill(pidfd)
            os.close(pidfd)
            return
        try:
            self._reactor.watch(pidfd, self._on_exit, self.kill)
        except OSError as error:
            processes.kill(pidfd)
            os.close(pidfd)
            self.kill(f"its process 1 cannot be watched: {error}")
            return
        self._pidfd = pidfd
        self._hold(_BUILDING)
        try:
            self.pid = processes.pid_of(pidfd)
            if self._maps_ids and processes.parent_of(self.pid) != self.zygote.pid:
                self.kill("its zygote handed over a process that is not its child")
                return
            self._map_ids()
            self._confine()
        except OSError as error:
            self.kill(f"it could not be confined: {error}")

    def _give_root(self, root: Wanted) -> None:
        """Raises ``OSError``. It is let go on when it has it."""
        namespaces = self.open_namespaces()
        try:
            attach(self._reactor, namespaces, [root], _ROOT_LIMIT_S, self._on_root)
        finally:
            namespaces.close()

    def _on_root(self, reason: str | None) -> None:
        if self._dead or self._killed:
            return
        if reason is not None:
            self.kill(f"it could not be given its disk: {reason}")
            return
        try:
            self._sync.send(wire.GO)
        except OSError as error:
            self.kill(f"it could not be let go on: {error}")

    def _map_ids(self) -> None:
        """Raises ``OSError``."""
        if self._group is not None and self._host_id is not None and self._maps_ids:
            processes.map_ids(self.pid, {0: self._host_id, _USER_INSIDE: self._host_id + 1})

    def _confine(self) -> None:
        """See to it that it is in its group, and let it go on, once it is known and has tried. Raises ``OSError``."""
        if self.pid < 0 or (self._enters and not self._has_tried):
            return
        if self._group is not None and not (self._enters and self._group.has_entered(self.pid, self.part)):
            # It still lives, so that its number is not another's by now.
            processes.check_lives(self._pidfd)
            self._group.attach(self.pid, self.part)
        if self._root is None:
            self._sync.send(wire.GO)
        else:
            self._give_root(self._root)

    def _on_entered(self) -> None:
        self._has_tried = True
        try:
            self._confine()
        except OSError as error:
            self.kill(f"it could not be confined: {error}")

    def _on_sync(self) -> None:
        try:
            message = self._sync.recv(wire.MESSAGE_LIMIT, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if message == wire.ENTERED and self._enters and not self._has_tried and not self._killed:
            self._on_entered()
            return
        self._reactor.forget(self._sync.fileno())
        if message == wire.READY and not self._killed:
            self.ready = True
            self._reactor.cancel(self._building)
            self._sync.close()
            self._hold(_READY)
            self._on_ready(self)
        elif self._pidfd >= 0:
            text = printable(message.decode("utf-8", "replace")) if message else "its process 1 ended while it was made"
            self.kill(f"it could not be built: {text}")
        else:
            # Its clone, or the zygote's end and the reason for it, is about to be noticed if there is one.
            self._reactor.call_later(_CLONE_GRACE_S, self._check_cloned, self.kill)

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

    def let_go(self) -> None:
        """From here on only the gateway has its control socket: when it lets go, the slot ends."""
        if not self._dead:
            self.control.close()
            self._hold(_READY - 1)

    def open_root(self) -> int:
        """A descriptor of the root folder of process 1. Raises ``OSError``, also when it has ended."""
        return disk.open_root(self.pid, self._pidfd)

    def open_namespaces(self) -> Namespaces:
        """Where mounts are attached; the caller's to close. Raises ``OSError``, also when process 1 has ended."""
        return Namespaces.of(self.pid, self._pidfd)

    def open_network(self) -> int:
        """A descriptor of its network namespace. Raises ``OSError``, also when process 1 has ended."""
        namespace = inner_sockets.open_namespace(self.pid)
        try:
            # It still lives, so that the number was not another's.
            processes.check_lives(self._pidfd)
        except OSError:
            os.close(namespace)
            raise
        return namespace

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
        if self._sync.fileno() >= 0:
            self._reactor.forget(self._sync.fileno())
            self._sync.close()
        self.control.close()
        self._hold(0)
        self._on_dead(self)
