"""What the use cases need from a runtime. Nothing in here knows users, HTTP or SQL."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from sandgate.core.byte_stream import ByteStream
from sandgate.core.execution import ExecutionRequest, Termination
from sandgate.core.ids import EnvironmentId, VolumeId
from sandgate.core.limits import Limits, fields_of
from sandgate.core.network import NetworkReport, NetworkRules
from sandgate.core.session import BackgroundOutput, SessionRequest, SessionStatus
from sandgate.core.states import Isolation
from sandgate.core.template import Layer
from sandgate.core.volume import MountedVolume
from sandgate.sandbox.file_copier import FileCopier


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What to make: an environment's sandbox from a template, within limits, for ``lifetime_s`` seconds from now.

    The runtime ends it by itself when the lifetime is over, even if the gateway is gone by then. ``isolation`` None is
    the runtime's own class. ``layer`` says what ``template`` is when it was built, or is being built.
    """

    environment_id: EnvironmentId
    template: str
    limits: Limits
    lifetime_s: float
    isolation: Isolation | None = None
    layer: Layer | None = None

    def to_request(self, isolation: Isolation) -> dict[str, Any]:
        """As the launcher is asked for it, of this class."""
        asked = {"environment_id": self.environment_id, "isolation": isolation.value, "template": self.template}
        held = {"limits": fields_of(self.limits), "lifetime_s": self.lifetime_s}
        return {**asked, **held, "layer": None if self.layer is None else asdict(self.layer)}


@dataclass(frozen=True, slots=True)
class SandboxUsage:
    """What a sandbox uses and has used, as the kernel counts it; None is what nothing counts.

    ``memory_bytes`` holds the files, too. What the most of is not counted by the kernel is the most that was seen.
    """

    memory_bytes: int | None
    peak_memory_bytes: int | None
    cpu_us: int | None
    processes: int | None
    peak_processes: int | None
    disk_bytes: int | None
    peak_disk_bytes: int | None
    inodes: int | None
    out_of_memory_kills: int | None


class RunningExecution(Protocol):
    """An execution that was handed to a sandbox."""

    async def wait(self) -> Termination:
        """How it ended; it always does: by itself, at its time limit, by ``cancel``, or ``lost`` with its sandbox.

        May be awaited by several tasks and again after the end. Cancelling a waiter does not cancel the execution.
        """
        ...

    def cancel(self) -> None:
        """Kill it and everything that it started; ``wait`` then answers ``cancelled`` unless it had ended before."""
        ...


class RunningSession(Protocol):
    """An interpreter that stays in a sandbox, for executions one after the other."""

    @property
    def status(self) -> SessionStatus:
        """Where it is in its life."""
        ...

    @property
    def reason(self) -> str | None:
        """Why it has ended, for a person; None while it has not."""
        ...

    @property
    def executions(self) -> int:
        """How many have begun in it."""
        ...

    @property
    def queued(self) -> int:
        """How many wait for the one that runs."""
        ...

    @property
    def background(self) -> BackgroundOutput:
        """What it wrote between executions."""
        ...

    async def wait_until_ready(self) -> None:
        """Wait until it has begun. Raises ``SessionEnded``."""
        ...

    async def wait(self) -> str:
        """Wait until it has ended, and answer why. It always does, with its sandbox at the latest."""
        ...

    def execute(self, request: ExecutionRequest) -> RunningExecution:
        """Run code in it, after what waits already. Raises ``SessionBusy``, ``SessionEnded``.

        At its time limit, or when it is cancelled, it is interrupted; code that goes on takes the session with it.
        """
        ...

    def interrupt(self) -> bool:
        """Interrupt what runs, as by Ctrl-C; False when nothing does."""
        ...

    def end(self, reason: str) -> None:
        """Kill it with all that it has started; ``wait`` then answers the reason, unless it had ended before."""
        ...


Execute = Callable[[ExecutionRequest], RunningExecution]
"""Runs more code where an execution has ended."""

Collect = Callable[[Execute, Termination], Awaitable[None]]
"""Takes what an execution has left out of its sandbox, by running more code there."""

Mask = Callable[[Termination], Termination]
"""What may be recorded and shown of an execution."""


class SandboxNetwork(Protocol):
    """The network of a sandbox: none, until hosts are allowed."""

    async def allow(self, rules: NetworkRules, owner: str) -> None:
        """Let code reach these hosts and no others from now on; what is open to others is cut off.

        Code that begins from then on finds in its variables how. ``owner`` is whose share of all connections it takes.
        Raises ``LauncherUnavailable``, ``NetworkUnavailable``, ``SandboxFailed``.
        """
        ...

    async def close(self) -> None:
        """Let code reach nothing from now on."""
        ...

    async def report(self) -> NetworkReport:
        """What it has reached. Raises ``NetworkUnavailable``."""
        ...

    async def dial(self, port: int) -> ByteStream:
        """A connection to what listens at a port of its loopback, which is the caller's to close.

        Raises ``ConnectionRefusedError`` when nothing does, ``LauncherUnavailable``, ``SandboxFailed``.
        """
        ...


class SandboxApart(Protocol):
    """A place in a sandbox where something is done while the rest stands still."""

    def execute(self, request: ExecutionRequest) -> RunningExecution:
        """Do it, once; beside everything else, and beyond the limit for that."""
        ...

    def close(self) -> None:
        """End it with what is done in it; the rest still stands still."""
        ...


class SandboxStandstill(Protocol):
    """A sandbox whose processes may stand still: with their memory and files, without the processor."""

    async def begin(self) -> bool:
        """Let everything stand still, the time of what runs along; again for one that does is no error.

        False when a process still sleeps in the kernel: it stands still before it runs any code of its own again. What
        is executed meanwhile waits. Cancelled, or when it fails, all goes on.
        Raises ``LauncherUnavailable``, ``SandboxFailed``, also where it cannot be done.
        """
        ...

    async def begin_but(self) -> SandboxApart:
        """Let everything stand still but what is done in the place that this answers, which is the caller's to close.

        Not while something stands still. Cancelled, or when it fails, all goes on.
        Raises ``LauncherUnavailable``, ``SandboxFailed``, also where it cannot be done.
        """
        ...

    async def end(self) -> None:
        """Let everything go on. Raises ``LauncherUnavailable``, ``SandboxFailed``; then it does not."""
        ...


class Sandbox(Protocol):
    """The live incarnation of an environment on this host."""

    @property
    def environment_id(self) -> EnvironmentId:
        """Whose incarnation it is."""
        ...

    @property
    def failure(self) -> str | None:
        """None while it lives, otherwise why it ended."""
        ...

    @property
    def network(self) -> SandboxNetwork:
        """What it reaches of the world."""
        ...

    @property
    def standstill(self) -> SandboxStandstill:
        """Its processes, which may stand still."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs in it, and nothing waits to."""
        ...

    def execute(self, request: ExecutionRequest) -> RunningExecution:
        """Start an execution; side by side with others up to the limit of the environment, then queued.

        With ``request.files`` it is an operation on files in the place of code: given bytes by a source, answering to a
        sink, killed and limited as code is.

        Raises ``TooManyExecutions`` when the queue is full, ``SandboxFailed`` when the sandbox has ended.
        """
        ...

    def open_session(self, request: SessionRequest) -> RunningSession:
        """Start a session, beside executions and beyond the limit for those. Raises ``SandboxFailed``."""
        ...

    async def extend(self, lifetime_s: float) -> None:
        """Count the lifetime anew from now. Raises ``LauncherUnavailable``, ``SandboxFailed``."""
        ...

    async def usage(self) -> SandboxUsage:
        """What it uses now, and has used. Raises ``LauncherUnavailable``, ``SandboxFailed``."""
        ...


@dataclass(frozen=True, slots=True)
class Resumed:
    """An execution of an earlier gateway that was taken up, its sandbox, and how long ago it began."""

    sandbox: Sandbox
    execution: RunningExecution
    age_s: float = 0.0


class VolumeKeeper(Protocol):
    """Volumes on the machine of a runtime. Each method raises ``LauncherUnavailable``, ``SandboxFailed``."""

    def find_lack(self, isolation: Isolation) -> str | None:
        """Why sandboxes of a class can have none here; None when they can. Known once the runtime was started."""
        ...

    async def make(self, volume_id: VolumeId, size_bytes: int) -> None:
        """See to it that there is one of this size, and that it can be mounted."""
        ...

    async def mount(self, environment_id: EnvironmentId, volumes: Sequence[MountedVolume]) -> None:
        """Give them to a sandbox in which no code has run yet; a volume that is not there is made."""
        ...

    async def measure(self, volume_ids: Sequence[VolumeId]) -> Mapping[VolumeId, int]:
        """How many bytes files take in each; 0 where there is none."""
        ...

    async def remove(self, volume_id: VolumeId) -> None:
        """Take it away with all that is in it; one that is not there is no error."""
        ...


class Runtime(Protocol):
    """What makes and ends sandboxes."""

    @property
    def copies(self) -> FileCopier:
        """What copies files between sandboxes of it."""
        ...

    @property
    def volumes(self) -> VolumeKeeper:
        """The volumes that sandboxes of it can be given."""
        ...

    @property
    def isolation(self) -> Isolation:
        """The class of sandboxes for which none was asked."""
        ...

    @property
    def isolations(self) -> Collection[Isolation]:
        """Every class that it makes, known once it was started."""
        ...

    def can_pause(self, isolation: Isolation) -> bool:
        """Whether sandboxes of a class may stand still on this machine, known once it was started."""
        ...

    async def start(self, on_end: Callable[[EnvironmentId, str], None]) -> None:
        """Connect to the launcher. ``on_end(environment_id, reason)`` is called for each sandbox that ends unasked.

        The reason is ``expired`` when its lifetime was over, otherwise a sentence for a person.
        """
        ...

    async def adopt(self, expected: Mapping[EnvironmentId, Limits]) -> Sequence[Sandbox]:
        """Take over the sandboxes that an earlier gateway left running.

        What an earlier gateway was running in them is killed, because its answer has nobody to go to; but an
        execution with a tag goes on in its sandbox, expected or not, until :meth:`resume` or :meth:`discard` decides.
        All other sandboxes that are not expected are ended.
        """
        ...

    def kept(self) -> Collection[str]:
        """The tags of executions that an earlier gateway began and that can be taken up now."""
        ...

    def read_note(self, environment_id: EnvironmentId, tag: str) -> bytes | None:
        """What an earlier gateway left with the tag of a command; None when there is nothing."""
        ...

    async def resume(self, request: ExecutionRequest, limits: Limits) -> Resumed | None:
        """Take up the execution with the request's tag, as if this gateway had begun it; None when there is none.

        Its time limit counts from its true beginning. A sandbox that was not expected is the caller's from then on, as
        after :meth:`create`.
        """
        ...

    def resume_session(self, request: SessionRequest) -> RunningSession | None:
        """Take up the session with the request's tag, in a sandbox that was expected; None when there is none.

        What an earlier gateway ran in it is interrupted; one that does not get ready ends.
        """
        ...

    async def discard(self, but: Collection[str] = ()) -> None:
        """End every tagged execution that was not taken up, but those with these tags.

        With it goes its sandbox, if that was not expected when it was adopted.
        """
        ...

    def let_go(self, tag: str) -> None:
        """What the execution with this tag came to is known: no later gateway is to take it up.

        Needed only where more is to run in its sandbox. One that is not known is no error.
        """
        ...

    def hold(self) -> None:
        """Say that this gateway lives: executions with a tag end when nobody says so for a while."""
        ...

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Make a sandbox. Raises ``SandboxFailed`` or ``LauncherUnavailable``, with nothing left behind."""
        ...

    async def destroy(self, environment_id: EnvironmentId) -> None:
        """End a sandbox; returns once nothing of it runs any more. Unknown ones are no error."""
        ...

    async def check(self) -> None:
        """Prove that the launcher answers; raises ``LauncherUnavailable``."""
        ...

    async def stop(self, *, keep_sandboxes: bool) -> None:
        """Disconnect; unless they are kept, end every sandbox first and leave nothing on the machine."""
        ...
