"""The launcher itself: listens for one gateway at a time, and outlives it.

When the launcher dies, everything that it started dies with it: zygotes ask the kernel for that, and each holds its
sandboxes in its process namespace.
"""

import operator
import os
import secrets
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any

from sandgate.core.errors import MechanismFault
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox import descriptors
from sandgate.sandbox.launcher import protocol, reclaim
from sandgate.sandbox.launcher.address import at_short_path
from sandgate.sandbox.launcher.cgroup import Tree, find_hierarchies
from sandgate.sandbox.launcher.config import LauncherConfig
from sandgate.sandbox.launcher.kept import MOST_ENDS, Patience
from sandgate.sandbox.launcher.last_words import has_spoken, last_words
from sandgate.sandbox.launcher.life import Life
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.sandbox import can_become
from sandgate.sandbox.launcher.spares import Demand, Spares
from sandgate.sandbox.launcher.workshop import Workshop
from sandgate.sandbox.launcher.zygote import Zygote
from sandgate.sandbox.seccomp import build_filter, find_filter
from sandgate_agent import system

_NO_SANDBOX = "there is no such sandbox"


def log(text: str) -> None:
    """One line for the server's log."""
    sys.stderr.write(f"launcher: {text}\n")


class Launcher:
    """Keeps zygotes and sandboxes, and does what the gateway asks."""

    def __init__(self, config: LauncherConfig) -> None:
        self._config = config
        self._instance = secrets.token_hex(8)
        self._reactor = Reactor()
        self._all: set[Life] = set()
        self._sandboxes: dict[str, Life] = {}
        self._spares: dict[tuple[Isolation, str], Spares] = {}
        self._creating: dict[str, int] = {}
        self._destroying: dict[str, list[int]] = {}
        self._connection: socket.socket | None = None
        self._shutdown: int | None = None
        self._tree: Tree | None = None
        self._patience = Patience(self._reactor, self._end_kept)

    def open(self) -> None:
        """Take the place of a launcher that died: clean up after it, then listen. Raises ``MechanismFault``."""
        if self._config.standard:
            with open("/proc/self/mountinfo") as mounts:
                self._tree = Tree(find_hierarchies(mounts.read()), self._config.tree_name)
            self._tree.make()
            reclaim.remove_groups(self._tree)
            filter_program: bytes | None = build_filter()
        else:
            filter_program = find_filter()
            system.prctl(system.PR_SET_CHILD_SUBREAPER, 1)
        self._workshop = Workshop(
            self._config, self._reactor, self._tree, filter_program,
            on_ready=self._on_ready, on_gone=self._on_gone, on_memory=self._on_memory,
            on_zygote_end=self._on_zygote_end,
        )  # fmt: skip
        reclaim.prepare_folder(self._config)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._config.socket_path.unlink(missing_ok=True)
        at_short_path(self._config.socket_path, self._listener.bind)
        self._let_gateway_connect()
        self._listener.listen(4)
        self._reactor.watch(self._listener.fileno(), self._accept)

    def _let_gateway_connect(self) -> None:
        """Only root can give the socket to another user; otherwise who connects is seen when he does."""
        own = os.geteuid()
        os.chmod(self._config.socket_path, 0o600 if own in (0, self._config.gateway_uid) else 0o666)
        if own == 0:
            os.chown(self._config.socket_path, self._config.gateway_uid, -1)

    def run(self) -> None:
        """Serve until told to shut down."""
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            # What a terminal sends to everything in its foreground is for the server to answer.
            signal.signal(number, signal.SIG_IGN)
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._reactor.watch(wake, lambda: self._on_signal(wake))
        self._reactor.run()
        self._config.socket_path.unlink(missing_ok=True)
        if self._tree is not None:
            self._tree.remove()

    def _on_signal(self, wake: int) -> None:
        numbers = os.read(wake, 4096)
        if signal.SIGTERM in numbers:
            self._begin_shutdown(None)
        if not self._config.standard:
            reclaim.kill_strays(self._workshop.zygote_pids)

    def _begin_shutdown(self, number: int | None) -> None:
        self._shutdown = -1 if number is None else number
        for spares in self._spares.values():
            spares.stop()
        for sandbox in list(self._all):
            sandbox.kill("the service was stopped")
        self._go_on_with_shutdown()

    def _go_on_with_shutdown(self) -> None:
        if self._shutdown is None or self._all:
            return
        if self._workshop.kill_zygotes():
            return
        if self._tree is not None:
            reclaim.remove_groups(self._tree)
        if self._shutdown >= 0:
            self._answer(self._shutdown, {})
        self._reactor.stop()

    def _accept(self) -> None:
        connection, _address = self._listener.accept()
        _pid, uid, _gid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, self._config.gateway_uid):
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        # It takes the gateway's place with its first word only: some connect to see whether anybody listens.
        self._reactor.watch(connection.fileno(), lambda: self._on_first_word(connection))

    def _on_first_word(self, connection: socket.socket) -> None:
        self._reactor.forget(connection.fileno())
        if not has_spoken(connection):
            connection.close()
            return
        self._disconnect()
        self._connection = connection
        self._creating.clear()
        self._destroying.clear()
        self._reactor.watch(connection.fileno(), self._on_request)
        self._on_request()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._reactor.forget(connection.fileno())
            for number, request, received in last_words(connection):
                self._act(number, request, received)
            connection.close()

    def _send(self, message: Mapping[str, Any], ends: list[int]) -> None:
        if self._connection is None:
            return
        try:
            descriptors.send(self._connection, protocol.pack(message), ends)
        except OSError as error:
            # It is gone, or has not read for a megabyte; it finds out what it missed when it comes back.
            log(f"the gateway does not listen: {error}")
            self._disconnect()

    def _answer(self, number: int, values: Mapping[str, Any], ends: list[int] | None = None) -> None:
        self._send({"number": number, "ok": True, **values}, ends or [])

    def _refuse(self, number: int, error: str) -> None:
        self._send({"number": number, "ok": False, "error": error[:1000]}, [])

    def _on_request(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            data, received = descriptors.receive(connection, MOST_ENDS + 1)
        except BlockingIOError:
            return
        except OSError:
            data, received = b"", []
        if not data:
            self._disconnect()
            return
        try:
            number, request = protocol.parse_request(data)
        except protocol.ProtocolError as error:
            log(f"refused a request: {error}")
            self._disconnect()
            return
        self._act(number, request, received)

    def _act(self, number: int, request: protocol.Request, received: list[int]) -> None:
        if isinstance(request, protocol.Keep) and self._keep(request, received):
            return
        self._do(number, request)
        for surplus in received:
            os.close(surplus)

    def _keep(self, request: protocol.Keep, received: list[int]) -> bool:
        """Keep an execution's descriptors for the next gateway; whether they are wanted."""
        self._patience.extend(request.lifetime_s)
        sandbox = self._sandboxes.get(request.environment_id)
        return sandbox is not None and not sandbox.ending and sandbox.kept.add(request, received)

    def _end_kept(self) -> None:
        """No gateway has held what is kept: it may be running elsewhere by now."""
        for name, sandbox in self._sandboxes.items():
            for tag in sandbox.kept.kill(sandbox.control):
                self._send({"event": "ended", "environment_id": name, "tag": tag, "reason": "nobody held it"}, [])

    def _do(self, number: int, request: protocol.Request) -> None:
        match request:
            case protocol.Hello():
                self._answer(number, self._describe())
            case protocol.Create():
                self._create(number, request)
            case protocol.Adopt():
                self._adopt(number, request.environment_id)
            case protocol.AddSlot():
                self._add_slot(number, request.environment_id)
            case protocol.Destroy():
                self._destroy(number, request.environment_id)
            case protocol.Extend():
                self._extend(number, request)
            case protocol.Usage():
                self._usage(number, request.environment_id)
            case protocol.LetGo():
                if request.environment_id in self._sandboxes:
                    self._sandboxes[request.environment_id].kept.let_go(request.tag)
            case protocol.Hold():
                self._patience.extend(request.lifetime_s)
            case protocol.ListSandboxes():
                ready = [name for name, sandbox in self._sandboxes.items() if sandbox.ready and not sandbox.ending]
                self._answer_list(number, ready)
            case protocol.Shutdown():
                self._begin_shutdown(number)

    def _describe(self) -> Mapping[str, Any]:
        isolations = [isolation.value for isolation in self._config.isolations]
        return {"version": protocol.PROTOCOL_VERSION, "instance": self._instance, "isolations": isolations}

    def _create(self, number: int, request: protocol.Create) -> None:
        if self._shutdown is not None:
            return self._refuse(number, "the launcher is shutting down")
        if request.environment_id in self._sandboxes:
            return self._refuse(number, "there is a sandbox with this id")
        spares = self._find_spares(request.isolation, request.template)
        spare = spares.take(request.limits)
        if spare is not None:
            spare.environment_id = request.environment_id
            self._sandboxes[request.environment_id] = spare
            spare.extend(request.lifetime_s)
            return self._hand_over(number, spare)
        try:
            sandbox = self._make(request.isolation, request.template, request.limits, request.environment_id)
        except (OSError, MechanismFault) as error:
            return self._refuse(number, f"it could not be started: {error}")
        self._sandboxes[request.environment_id] = sandbox
        self._creating[request.environment_id] = number
        return sandbox.extend(request.lifetime_s)

    def _make(self, isolation: Isolation, template: str, limits: Limits, environment_id: str | None) -> Life:
        """See :class:`Workshop`."""
        sandbox = self._workshop.make(isolation, template, limits, environment_id)
        self._all.add(sandbox)
        return sandbox

    def _find_spares(self, isolation: Isolation, template: str) -> Spares:
        key = isolation, template
        if key not in self._spares:
            gvisor = isolation is Isolation.GVISOR
            least, most = (self._config.gvisor_spares, 0) if gvisor else (self._config.spares, self._config.most_spares)
            self._spares[key] = Spares(
                Demand(least, most),
                self._reactor,
                lambda limits: self._make_spare(isolation, template, limits),
                lambda: bool(self._creating),
                can_become if self._config.standard and not gvisor else operator.eq,
            )
        return self._spares[key]

    def _make_spare(self, isolation: Isolation, template: str, limits: Limits) -> Life | None:
        try:
            return self._make(isolation, template, limits, None)
        except (OSError, MechanismFault) as error:
            log(f"no spare sandbox of {template} can be made: {error}")
            return None

    def _find_ready(self, environment_id: str) -> Life | None:
        sandbox = self._sandboxes.get(environment_id)
        return None if sandbox is None or sandbox.ending or not sandbox.ready else sandbox

    def _adopt(self, number: int, environment_id: str) -> None:
        sandbox = self._find_ready(environment_id)
        if sandbox is None:
            return self._refuse(number, _NO_SANDBOX)
        for values, ends in sandbox.kept.answers(sandbox.control):
            self._answer(number, {"isolation": sandbox.isolation.value, **values}, ends)
        return None

    def _add_slot(self, number: int, environment_id: str) -> None:
        sandbox = self._find_ready(environment_id)
        if sandbox is None:
            return self._refuse(number, _NO_SANDBOX)

        def then(control: socket.socket | None) -> None:
            if control is None:
                self._refuse(number, "no slot can be made now")
                return
            self._answer(number, {}, [control.fileno()])
            # From here on only the gateway holds it: when it lets go, the slot ends.
            control.close()

        return sandbox.add_slot(then)

    def _destroy(self, number: int, environment_id: str) -> None:
        sandbox = self._sandboxes.get(environment_id)
        if sandbox is None:
            return self._answer(number, {})
        self._destroying.setdefault(environment_id, []).append(number)
        return sandbox.kill("it was deleted")

    def _extend(self, number: int, request: protocol.Extend) -> None:
        sandbox = self._sandboxes.get(request.environment_id)
        if sandbox is None or sandbox.ending:
            return self._refuse(number, _NO_SANDBOX)
        sandbox.extend(request.lifetime_s)
        return self._answer(number, {})

    def _usage(self, number: int, environment_id: str) -> None:
        sandbox = self._find_ready(environment_id)
        if sandbox is None:
            return self._refuse(number, _NO_SANDBOX)
        try:
            used = sandbox.usage()
        except OSError as error:
            return self._refuse(number, error.strerror or str(error))
        return self._answer(number, used)

    def _answer_list(self, number: int, names: list[str]) -> None:
        for part in protocol.list_in_parts(names):
            self._answer(number, part)

    def _on_ready(self, sandbox: Life) -> None:
        if sandbox.environment_id is None:
            self._find_spares(sandbox.isolation, sandbox.template).on_ready(sandbox)
            return
        number = self._creating.pop(sandbox.environment_id, None)
        if number is None:
            # The gateway that asked is gone, and no later one knows of it.
            sandbox.kill("nobody waits for it")
            return
        self._hand_over(number, sandbox)

    def _hand_over(self, number: int, sandbox: Life) -> None:
        """Answer who asked for a new sandbox."""
        offered = sandbox.take_offer()
        self._answer(number, {}, [sandbox.control, *offered])
        for descriptor in offered:
            os.close(descriptor)

    def _on_gone(self, sandbox: Life) -> None:
        self._all.discard(sandbox)
        self._workshop.discard(sandbox)
        if sandbox.environment_id is None:
            self._find_spares(sandbox.isolation, sandbox.template).on_gone(sandbox)
        else:
            self._tell_end(sandbox.environment_id, sandbox.reason)
        self._go_on_with_shutdown()

    def _on_memory(self, sandbox: Life) -> None:
        if sandbox.environment_id is not None:
            self._send({"event": "memory", "environment_id": sandbox.environment_id}, [])

    def _tell_end(self, name: str, reason: str) -> None:
        del self._sandboxes[name]
        creating = self._creating.pop(name, None)
        if creating is not None:
            self._refuse(creating, reason)
        waiting = self._destroying.pop(name, [])
        for number in waiting:
            self._answer(number, {})
        if creating is None and not waiting:
            self._send({"event": "ended", "environment_id": name, "reason": reason}, [])

    def _on_zygote_end(self, zygote: Zygote) -> None:
        log(f"zygote {zygote.template.name} ended: {zygote.last_words}")
        for sandbox in list(self._all):
            sandbox.on_zygote_end(zygote)
        self._go_on_with_shutdown()
