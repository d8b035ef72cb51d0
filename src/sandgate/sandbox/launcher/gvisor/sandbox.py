"""One sandbox of the ``gvisor`` class, as the launcher sees it: a container, and slots that its process 1 clones."""

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from sandgate.core.limits import MIB, Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.launcher.attaching import Wanted
from sandgate.sandbox.launcher.cgroup import Group, GroupLimits
from sandgate.sandbox.launcher.gvisor.carrier import Carrier
from sandgate.sandbox.launcher.gvisor.container import Container, ContainerPlan
from sandgate.sandbox.launcher.gvisor.insight import Insight
from sandgate.sandbox.launcher.gvisor.memory import MemoryGuard
from sandgate.sandbox.launcher.gvisor.showing import Showing
from sandgate.sandbox.launcher.inside_log import printable
from sandgate.sandbox.launcher.life import Life, OnListening, OnRefusal, OnSlot
from sandgate.sandbox.launcher.protocol import OUT_OF_MEMORY
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.offer import Offer, make_offer
from sandgate_agent import wire

# What gVisor's kernel and file server need for themselves, beyond what the sandbox may use.
_OWN_MEMORY_BYTES = 64 * MIB
# gVisor's kernel is charged for the memory of all that runs in it: where the host's has to kill, the sandbox is what
# it kills. So there is some room between the limit, at which processes are ended, and the host's.
_SLACK_BYTES = 256 * MIB
# Spares are started while others are at work.
_SPARE_CPU_MILLIS = 500
# Threads of the host: of gVisor's kernel and its file server, and those that stand for a process inside.
_OWN_THREADS = 256
_THREADS_OF_PROCESS = 32
# Of the launcher, beside the container's: the first slot's socket, a child's ends, what tells of memory. And while a
# slot is coming: its socket, and the one that says when it is ready.
_DESCRIPTORS, _COMING_DESCRIPTORS = 5, 2

Settled = Callable[[socket.socket | None], None]


def _make_channels() -> tuple[socket.socket, socket.socket, socket.socket, socket.socket]:
    """A slot's control channel and the one that says when it is ready. Raises ``OSError``, and then there is none."""
    control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sync, inner_sync = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:
        control.close()
        inner.close()
        raise
    return control, inner, sync, inner_sync


class GvisorSandbox(Life):
    """Process 1 of the container ends with its first slot, and with it the sandbox."""

    isolation = Isolation.GVISOR
    is_carried = True

    def __init__(
        self,
        plan: ContainerPlan,
        reactor: Reactor,
        limits: Limits,
        *,
        environment_id: str | None,
        group: Group,
        patience_s: float,
        on_ready: Callable[[Life], None],
        on_gone: Callable[[Life], None],
        on_memory: Callable[[Life], None],
    ) -> None:
        """``on_memory`` is called when more is used than the limits grant and all that runs has to be ended."""
        super().__init__(
            plan.template.name, reactor, limits,
            environment_id=environment_id, group=group, host_id=plan.host_id, folder=None,
            on_ready=on_ready, on_gone=on_gone,
        )  # fmt: skip
        self._plan = plan
        self._patience_s = patience_s
        self._memory_bytes = limits.machine_bytes + _OWN_MEMORY_BYTES
        self._control: socket.socket | None = None
        self._offer: Offer | None = None
        self._said = "its process 1 cloned nothing"
        # By the launcher's end of the channel that says when a slot is ready.
        self._coming: dict[socket.socket, Settled] = {}
        self._guard = MemoryGuard(
            reactor, group, self._memory_bytes, _SLACK_BYTES,
            end_one=self._ask_to_free, end_all=lambda: on_memory(self), blame=self.kill,
        )  # fmt: skip
        self._container = Container(reactor, self._on_container, self._on_said, self._on_exit)
        self._insight = Insight(reactor, limits, lambda: self._container.send(wire.LOOK, []))
        self._showing = Showing(
            reactor, self._container.open_namespaces, lambda message: self._container.send(message, [])
        )
        self._carrier = Carrier(reactor, lambda end: self._container.send(wire.RELAY, [end]), self.kill)

    @property
    def control(self) -> int:
        """See :class:`Life`."""
        assert self._control is not None  # noqa: S101 - asked of ready ones only
        return self._control.fileno()

    def take_offer(self) -> list[int]:
        """See :class:`Life`."""
        offer, self._offer = self._offer, None
        if offer is None:
            return []
        numbers = offer.numbers()
        offer.channel.detach()
        return numbers

    def _group_limits(self, cpu_millis: int) -> GroupLimits:
        inside = self.limits.processes + 2 * self.limits.concurrent_executions
        threads = _OWN_THREADS + _THREADS_OF_PROCESS * inside
        return GroupLimits(self._memory_bytes + _SLACK_BYTES, cpu_millis, threads)

    def become(self, limits: Limits) -> None:
        """See :class:`Life`. While it was a spare it had a small share of the processor."""
        super().become(limits)
        self._insight.limits = limits
        if self.group is not None:
            self.group.change(self._group_limits(limits.cpu_millis))

    def start(self) -> None:
        """See :class:`Life`."""
        assert self.group is not None  # noqa: S101 - given to the constructor
        cpu_millis = self.limits.cpu_millis
        if self.environment_id is None:
            cpu_millis = min(cpu_millis, _SPARE_CPU_MILLIS)
        self._reactor.allowance.take(_DESCRIPTORS)
        try:
            self.group.make(self._group_limits(cpu_millis))
            self._container.start(self._plan, self.group)
        except OSError:
            self._reactor.allowance.give_back(_DESCRIPTORS)
            self._take_away()
            raise
        self._building = self._reactor.call_later(self._patience_s, self._check_built, self.kill)

    def _check_built(self) -> None:
        if not self.ready:
            self.kill(f"it was not built within {self._patience_s:g} seconds")

    def _on_container(self) -> None:
        """Its process 1 serves: the first slot is asked for."""
        if not self.ending and self._control is None:
            self.add_slot(self._take_first)

    def _take_first(self, control: socket.socket | None, _time: int | None) -> None:
        if control is None:
            self.kill(f"it could not be built: {self._said}")
            return
        self._control = control
        with suppress(OSError):
            self._offer = make_offer(control, 1)
        self._guard.start()
        self._reactor.cancel(self._building)
        self._become_ready()

    def _on_said(self, message: bytes) -> bool:
        """Process 1 has answered; whether it was asked."""
        try:
            if message[:1] == wire.LOOK:
                return self._insight.on_told(wire.parse_held(message))
            kind, what = wire.parse_numbered(message)
        except wire.WireError:
            return False
        if kind == wire.SHOW:
            return self._showing.on_told(what)
        if kind == wire.FREE:
            self._guard.on_freed(what)
        return kind == wire.FREE

    def _ask_to_free(self) -> None:
        # One that cannot be told has ended, or does not listen; then all of it is ended soon.
        with suppress(OSError):
            self._container.send(wire.FREE, [])

    def look_inside(self, then: Callable[[Mapping[str, int | None]], None]) -> None:
        """See :class:`Life`. What stands still answers nothing."""
        if self.freezing.is_on:
            then(self._insight.most())
        else:
            self._insight.ask(then)

    def usage(self) -> dict[str, int | None]:
        """See :class:`Life`. What runs inside are no processes of this machine's, and its disk is out of sight."""
        # Whoever asks may know of an end that this has not heard of yet.
        self._container.hear()
        used = super().usage()
        kills = (used.get("out_of_memory_kills") or 0) + self._guard.kills
        return {**used, "processes": None, "peak_processes": None, "out_of_memory_kills": kills}

    def attach(self, wanted: Sequence[Wanted], limit_s: float, then: Callable[[str | None], None]) -> None:
        """See :class:`Life`."""
        self._showing.begin(wanted, limit_s, then)

    def listen(self, then: OnListening, refuse: OnRefusal) -> None:
        """See :class:`Life`."""
        self._carrier.listen(then, refuse)

    def unlisten(self) -> None:
        """See :class:`Life`."""
        self._carrier.unlisten()

    def dial(self, port: int, *, is_new: bool) -> socket.socket:
        """See :class:`Life`."""
        return self._carrier.dial(port, is_new=is_new)

    def add_slot(self, then: OnSlot) -> None:
        """See :class:`Life`."""
        try:
            control, sync = self._ask_for_slot()
        except OSError:
            # Where there are no descriptors to be had a sandbox lacks a slot; the launcher goes on for all others.
            then(None, None)
            return
        self._coming[sync] = partial(self._hand_on, control, then)

    def _ask_for_slot(self) -> tuple[socket.socket, socket.socket]:
        """Its control channel and the one that says when it is ready. Raises ``OSError``, and then there is none."""
        self._reactor.allowance.take(_COMING_DESCRIPTORS)
        try:
            control, inner, sync, inner_sync = _make_channels()
        except OSError:
            self._reactor.allowance.give_back(_COMING_DESCRIPTORS)
            raise
        with inner, inner_sync:
            try:
                self._container.send(wire.CLONE, [inner.fileno(), inner_sync.fileno()])
                sync.send(wire.GO)
                self._reactor.watch(sync.fileno(), partial(self._on_sync, sync), self.kill)
            except OSError:
                self._reactor.allowance.give_back(_COMING_DESCRIPTORS)
                control.close()
                sync.close()
                raise
        return control, sync

    def _hand_on(self, control: socket.socket, then: OnSlot, said: socket.socket | None) -> None:
        if said is None:
            control.close()
            then(None, None)
        else:
            # What runs inside cannot be told apart from out here.
            then(control, None)

    def _on_sync(self, sync: socket.socket) -> None:
        try:
            message = sync.recv(wire.MESSAGE_LIMIT, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if message and message != wire.READY:
            self._said = printable(message.decode("utf-8", "replace"))
        self._settle(sync, ready=message == wire.READY)

    def _settle(self, sync: socket.socket, *, ready: bool) -> None:
        then = self._coming.pop(sync)
        self._reactor.forget(sync.fileno())
        sync.close()
        self._reactor.allowance.give_back(_COMING_DESCRIPTORS)
        then(sync if ready else None)

    def _end(self, reason: str) -> None:  # noqa: ARG002 - it has nobody to tell
        self._carrier.close()
        self._insight.close()
        self._showing.close()
        self._container.kill()

    def _on_exit(self, last_words: str) -> None:
        """Every process of the container is dead."""
        self._reactor.cancel(self._building)
        self._guard.stop()
        if not self.ending:
            self.kill(self._find_reason(last_words))
        for sync in list(self._coming):
            self._settle(sync, ready=False)
        if self._control is not None:
            self._control.close()
        if self._offer is not None:
            self._offer.close()
        self._reactor.allowance.give_back(_DESCRIPTORS)
        self._remove()

    def _find_reason(self, last_words: str) -> str:
        if self.group is not None and self.group.usage().out_of_memory_kills:
            return OUT_OF_MEMORY
        said = f": {printable(last_words)}" if last_words else " by itself"
        return f"its container ended{said}" if self.ready else f"it could not be built{said}"
