"""One ``runsc run``, from the clone of its first process to the end of its last.

It runs in namespaces of its own, user and process namespace among them: what the launcher kills is their process 1, and
with it go runsc, its file server and gVisor's kernel, with every mount and file that they had. None of them has a
privilege outside.
"""

import fcntl
import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from sandgate.core.limits import Limits
from sandgate.sandbox import descriptors
from sandgate.sandbox.launcher import processes
from sandgate.sandbox.launcher.attaching import Namespaces
from sandgate.sandbox.launcher.cgroup import Group
from sandgate.sandbox.launcher.config import TemplateConfig
from sandgate.sandbox.launcher.gvisor import bundle
from sandgate.sandbox.launcher.gvisor.runsc import arguments
from sandgate.sandbox.launcher.inside_log import InsideLog
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate_agent import system, wire

_NAMESPACES = system.CLONE_NEWNS | system.CLONE_NEWPID | system.CLONE_NEWNET | system.CLONE_NEWIPC | system.CLONE_NEWUTS
# runsc gives gVisor's kernel the id of nobody. Nothing outside runs as the user, whose files on volumes are.
_NOBODY = 65_534
_USER = 1000
# Descriptors of the process that becomes runsc.
_CHANNEL, _LOG, _TOLD, _GO = 0, 1, 3, 4
# Of the launcher: the ends of these, and the process.
_DESCRIPTORS = 5


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """Everything that a container is made from. ``host_id`` and the two after it are its ids."""

    runsc: str
    platform: str
    template: TemplateConfig
    limits: Limits
    filter_program: bytes
    host_id: int
    place: Path
    layers_folder: Path | None = None


def _become_runsc(plan: ContainerPlan) -> None:
    """In the clone, with its descriptors settled: shut this process in, give up everything, execute."""
    os.umask(0o022)
    bundle.build(
        plan.place, plan.template, plan.limits, plan.runsc, plan.filter_program, plan.host_id,
        plan.layers_folder,
    )  # fmt: skip
    os.setgroups([])
    os.setresgid(plan.host_id, plan.host_id, plan.host_id)
    os.setresuid(plan.host_id, plan.host_id, plan.host_id)
    system.unshare(system.CLONE_NEWUSER | _NAMESPACES & ~system.CLONE_NEWPID)
    os.write(_TOLD, wire.READY)
    if os.read(_GO, 1) != wire.GO:
        os._exit(1)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    bundle.share_volumes()
    # After the change of identity, which would undo it. The launcher lived when it said go.
    system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.closerange(_TOLD, _GO + 1)
    os.execve(bundle.RUNSC, arguments(plan.platform, bundle.BUNDLE, bundle.STATE), {})  # noqa: S606 - there is no shell


def _settle(wanted: list[int]) -> None:
    """Have these descriptors as 0, 1, …, and no other: some of the launcher's keep other sandboxes alive."""
    # At numbers that are free: one that is taken may be wanted, too.
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, len(wanted)) for descriptor in wanted]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, place, inheritable=True)
    os.closerange(len(wanted), os.sysconf("SC_OPEN_MAX"))


class Container:
    """``on_ready()`` when its process 1 serves, ``on_exit(last_words)`` once, when every process of it is dead.

    ``on_said(message)`` for whatever process 1 says besides; False when that breaks the protocol.
    """

    def __init__(
        self,
        reactor: Reactor,
        on_ready: Callable[[], None],
        on_said: Callable[[bytes], bool],
        on_exit: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._on_ready = on_ready
        self._on_said = on_said
        self._on_exit = on_exit
        self._fault = ""
        self._dead = False
        # Until its process 1 hangs up, or says what it must not.
        self._listens = False
        self.pid = -1

    def start(self, plan: ContainerPlan, group: Group) -> None:
        """Start the process. Raises ``OSError``, with nothing left behind."""
        plan.place.mkdir(exist_ok=True)
        self._reactor.allowance.take(_DESCRIPTORS)
        try:
            inside = self._start(plan)
        except OSError:
            self._reactor.allowance.give_back(_DESCRIPTORS)
            raise
        self._host_id = plan.host_id
        self._log = InsideLog(self._reactor, inside, f"container {self.pid}")
        self._watch()
        try:
            # Before it is told to go on it has nothing that would have to be charged.
            group.attach(self.pid)
        except OSError as error:
            self._fault = f"it could not be confined: {error}"
            self.kill()

    def _start(self, plan: ContainerPlan) -> int:
        """Start the process; answers the reading end of what it says. Raises ``OSError`` with nothing left behind."""
        with ExitStack() as passing, ExitStack() as failed:
            self._channel, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            failed.callback(self._channel.close)
            passing.callback(channel.close)
            inside, log = os.pipe()
            failed.callback(os.close, inside)
            passing.callback(os.close, log)
            self._told, told = os.pipe()
            failed.callback(os.close, self._told)
            passing.callback(os.close, told)
            go, self._go = os.pipe()
            failed.callback(os.close, self._go)
            passing.callback(os.close, go)
            self.pid = system.clone(_NAMESPACES)
            if self.pid == 0:
                self._run(plan, [channel.fileno(), log, log, told, go])
            failed.callback(self._abandon)
            self._pidfd = os.pidfd_open(self.pid)
            failed.pop_all()
        return inside

    def _abandon(self) -> None:
        processes.abandon(self.pid)
        self.pid = -1

    def _fail(self, reason: str) -> None:
        self._fault = reason
        self.kill()

    def _watch(self) -> None:
        self._listens = True
        self._channel.setblocking(False)
        self._reactor.watch(self._channel.fileno(), self._on_message, self._fail)
        self._reactor.watch(self._told, self._on_told, self._fail)
        self._reactor.watch(self._pidfd, self._on_pidfd, self._fail)

    def _run(self, plan: ContainerPlan, wanted: list[int]) -> None:
        """In the clone; never returns."""
        try:
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
                # An ignored signal stays ignored in every program that is started from here.
                signal.signal(number, signal.SIG_DFL)
            _settle(wanted)
            _become_runsc(plan)
        except BaseException as error:
            os.write(2, f"cannot be started: {error}\n".encode())
        finally:
            os._exit(1)

    def _on_told(self) -> None:
        """It is in a user namespace of its own: give it ids there, and let it go on."""
        said = os.read(self._told, 1)
        self._reactor.forget(self._told)
        if said != wire.READY:
            return
        try:
            ids = {0: self._host_id, _USER: self._host_id + 2, _NOBODY: self._host_id + 1}
            processes.map_ids(self.pid, ids)
            os.write(self._go, wire.GO)
        except OSError as error:
            self._fault = f"it could not be given its ids: {error}"
            self.kill()

    def open_namespaces(self) -> Namespaces:
        """Those that ``runsc`` and its file server see files in. Raises ``OSError``."""
        return Namespaces.of(self.pid, self._pidfd)

    def send(self, message: bytes, ends: list[int]) -> None:
        """Tell process 1 something, with copies of descriptors. Raises ``OSError``."""
        descriptors.send(self._channel, message, ends)

    def hear(self) -> None:
        """Take what its process 1 has said and nobody has listened to yet."""
        while self._listens and self._hear_one():
            pass

    def _on_message(self) -> None:
        self._hear_one()

    def _hear_one(self) -> bool:
        """Take one message; whether there may be more."""
        try:
            message, received = descriptors.receive(self._channel, 1)
        except BlockingIOError:
            return False
        except OSError:
            message, received = b"", []
        for descriptor in received:
            os.close(descriptor)
        if message == wire.READY:
            self._on_ready()
            return True
        if message and self._on_said(message):
            return True
        self._listens = False
        self._reactor.forget(self._channel.fileno())
        if message:
            self._fault = "it broke the protocol"
            self.kill()
        return False

    def kill(self) -> None:
        """End it with everything in it."""
        if not self._dead and self.pid > 0:
            processes.kill(self._pidfd)

    def _on_pidfd(self) -> None:
        self._dead, self._listens = True, False
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._log.close()
        for descriptor in (self._told, self._channel.fileno(), self._pidfd):
            self._reactor.forget(descriptor)
        for descriptor in (self._told, self._go, self._pidfd):
            os.close(descriptor)
        self._channel.close()
        self._reactor.allowance.give_back(_DESCRIPTORS)
        self._on_exit(self._fault or self._log.last_words)
