"""The launcher itself: listens for one gateway at a time, and outlives it.

When the launcher dies, everything that it started dies with it: zygotes ask the kernel for that, and each holds its
sandboxes in its process namespace.
"""

import os
import secrets
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sandgate.core.errors import MechanismFault
from sandgate.core.limits import Limits
from sandgate.sandbox import descriptors
from sandgate.sandbox.launcher import protocol, reclaim
from sandgate.sandbox.launcher.address import at_short_path
from sandgate.sandbox.launcher.cgroup import Tree, find_hierarchies
from sandgate.sandbox.launcher.config import LauncherConfig
from sandgate.sandbox.launcher.ids import HostIds
from sandgate.sandbox.launcher.kept import MOST_ENDS, Patience
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.sandbox import Sandbox
from sandgate.sandbox.launcher.slot import Slot
from sandgate.sandbox.launcher.spares import Demand, Spares
from sandgate.sandbox.launcher.zygote import Zygote
from sandgate.sandbox.seccomp import build_filter
from sandgate_agent import system


def log(text: str) -> None:
    """One line for the server's log."""
    sys.stderr.write(f"launcher: {text}\n")


class Launcher:
    """Keeps zygotes and sandboxes, and does what the gateway asks."""

    def __init__(self, config: LauncherConfig) -> None:
        self._config = config
        self._instance = secrets.token_hex(8)
        self._reactor = Reactor()
        self._templates = {template.name: template for template in config.templates}
        self._zygotes: dict[str, Zygote] = {}
        self._all: set[Sandbox] = set()
        self._sandboxes: dict[str, Sandbox] = {}
        self._spares: dict[str, Spares] = {}
        self._creating: dict[str, int] = {}
        self._destroying: dict[str, list[int]] = {}
        self._ids = HostIds(config.host_id_base, config.most_sandboxes)
        self._made = 0
        self._connection: socket.socket | None = None
        self._shutdown: int | None = None
        self._tree: Tree | None = None
        self._filter: bytes | None = None
        self._patience = Patience(self._reactor, self._end_kept)

    def open(self) -> None:
        """Take the place of a launcher that died: clean up after it, then listen. Raises ``MechanismFault``."""
        if self._config.standard:
            with open("/proc/self/mountinfo") as mounts:
                self._tree = Tree(find_hierarchies(mounts.read()), self._config.tree_name)
            self._tree.make()
            reclaim.remove_groups(self._tree)
            self._filter = build_filter()
        else:
            system.prctl(system.PR_SET_CHILD_SUBREAPER, 1)
        reclaim.prepare_folder(self._config)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._config.socket_path.unlink(missing_ok=True)
        at_short_path(self._config.socket_path, self._listener.bind)
        os.chmod(self._config.socket_path, 0o600)
        if os.geteuid() == 0:
            os.chown(self._config.socket_path, self._config.gateway_uid, -1)
        self._listener.listen(4)
        self._reactor.watch(self._listener.fileno(), self._accept)

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
            reclaim.kill_strays({zygote.pid for zygote in self._zygotes.values()})

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
        if self._zygotes:
            for zygote in list(self._zygotes.values()):
                zygote.kill()
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
        try:
            said = connection.recv(1, socket.MSG_PEEK)
        except OSError:
            said = b""
        if not said:
            connection.close()
            return
        self._disconnect()
        self._connection = connection
        self._creating.clear()
        self._destroying.clear()
        self._reactor.watch(connection.fileno(), self._on_request)
        self._on_request()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._reactor.forget(self._connection.fileno())
            self._connection.close()
            self._connection = None

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
                self._answer(number, {"version": protocol.PROTOCOL_VERSION, "instance": self._instance})
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

    def _create(self, number: int, request: protocol.Create) -> None:
        if self._shutdown is not None:
            return self._refuse(number, "the launcher is shutting down")
        if request.environment_id in self._sandboxes:
            return self._refuse(number, "there is a sandbox with this id")
        spares = self._find_spares(request.template)
        spare = spares.take(request.limits)
        if spare is not None:
            spare.environment_id = request.environment_id
            self._sandboxes[request.environment_id] = spare
            spare.extend(request.lifetime_s)
            return self._answer(number, {}, [spare.control])
        try:
            sandbox = self._make(request.template, request.limits, request.environment_id)
        except (OSError, MechanismFault) as error:
            return self._refuse(number, f"it could not be started: {error}")
        self._sandboxes[request.environment_id] = sandbox
        self._creating[request.environment_id] = number
        return sandbox.extend(request.lifetime_s)

    def _make(self, template: str, limits: Limits, environment_id: str | None) -> Sandbox:
        """Start a sandbox, a spare one when it belongs to nobody. Raises ``OSError``, ``MechanismFault``."""
        host_id = self._ids.take()
        if host_id is None:
            raise MechanismFault(f"there are {self._config.most_sandboxes} sandboxes, and no room for more")
        self._made += 1
        name = f"s{self._made}"
        try:
            sandbox = Sandbox(
                self._find_zygote(template), self._reactor, limits,
                environment_id=environment_id, group=self._tree.group(name) if self._tree else None, host_id=host_id,
                folder=None if self._config.standard else self._config.run_folder / "sandboxes" / name,
                on_ready=self._on_ready, on_gone=self._on_gone,
            )  # fmt: skip
            sandbox.start()
        except (OSError, MechanismFault):
            self._ids.discard(host_id)
            raise
        self._all.add(sandbox)
        return sandbox

    def _find_spares(self, template: str) -> Spares:
        if template not in self._spares:
            self._spares[template] = Spares(
                Demand(self._config.spares, self._config.most_spares),
                self._reactor,
                lambda limits: self._make_spare(template, limits),
                lambda: bool(self._creating),
            )
        return self._spares[template]

    def _make_spare(self, template: str, limits: Limits) -> Sandbox | None:
        try:
            return self._make(template, limits, None)
        except (OSError, MechanismFault) as error:
            log(f"no spare sandbox of {template} can be made: {error}")
            return None

    def _find_zygote(self, name: str) -> Zygote:
        """The template's zygote, started when there is none."""
        if name in self._zygotes and not self._zygotes[name].has_hung_up:
            return self._zygotes[name]
        template = self._templates.get(name)
        if template is None:
            raise MechanismFault(f"the launcher knows no template {name}")
        place = list(self._templates).index(name)
        zygote = Zygote(self._config, template, self._reactor, on_end=self._on_zygote_end)
        group = self._tree.group(f"zygote-{name}") if self._tree else None
        zygote.start(self._config.host_id_base + place, group, self._filter)
        self._zygotes[name] = zygote
        return zygote

    def _adopt(self, number: int, environment_id: str) -> None:
        sandbox = self._sandboxes.get(environment_id)
        if sandbox is None or sandbox.ending or not sandbox.ready:
            return self._refuse(number, "there is no such sandbox")
        for values, ends in sandbox.kept.answers(sandbox.control):
            self._answer(number, values, ends)
        return None

    def _add_slot(self, number: int, environment_id: str) -> None:
        sandbox = self._sandboxes.get(environment_id)
        if sandbox is None or sandbox.ending or not sandbox.ready:
            return self._refuse(number, "there is no such sandbox")

        def then(slot: Slot | None) -> None:
            if slot is None:
                self._refuse(number, "no slot can be made now")
                return
            self._answer(number, {}, [slot.control.fileno()])
            # From here on only the gateway holds it: when it lets go, the slot ends.
            slot.release_control()

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
            return self._refuse(number, "there is no such sandbox")
        sandbox.extend(request.lifetime_s)
        return self._answer(number, {})

    def _usage(self, number: int, environment_id: str) -> None:
        sandbox = self._sandboxes.get(environment_id)
        if sandbox is None or sandbox.group is None:
            return self._refuse(number, "there is no such sandbox, or nothing is counted for it")
        return self._answer(number, asdict(sandbox.group.usage()))

    def _answer_list(self, number: int, names: list[str]) -> None:
        # A datagram holds some hundreds of ids: the answer comes in parts, the last one without "more".
        parts = [names[start : start + 500] for start in range(0, len(names), 500)] or [[]]
        for place, part in enumerate(parts):
            self._answer(number, {"environment_ids": part, "more": place + 1 < len(parts)})

    def _on_ready(self, sandbox: Sandbox) -> None:
        if sandbox.environment_id is None:
            self._find_spares(sandbox.zygote.template.name).on_ready(sandbox)
            return
        number = self._creating.pop(sandbox.environment_id, None)
        if number is None:
            # The gateway that asked is gone, and no later one knows of it.
            sandbox.kill("nobody waits for it")
            return
        self._answer(number, {}, [sandbox.control])

    def _on_gone(self, sandbox: Sandbox) -> None:
        self._all.discard(sandbox)
        if sandbox.host_id is not None:
            self._ids.discard(sandbox.host_id)
        if sandbox.environment_id is None:
            self._find_spares(sandbox.zygote.template.name).on_gone(sandbox)
        else:
            self._tell_end(sandbox.environment_id, sandbox.reason)
        self._go_on_with_shutdown()

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
        if self._zygotes.get(zygote.template.name) is zygote:
            del self._zygotes[zygote.template.name]
        for sandbox in list(self._all):
            if sandbox.zygote is zygote:
                sandbox.on_zygote_end()
        self._go_on_with_shutdown()
