"""What the use cases need from a runtime. Nothing in here knows users, HTTP or SQL."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sandgate.core.execution import ExecutionRequest, Termination
from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What to make: an environment's sandbox from a template, within limits, for ``lifetime_s`` seconds from now.

    The runtime ends it by itself when the lifetime is over, even if the gateway is gone by then. ``isolation`` None is
    the runtime's own class.
    """

    environment_id: EnvironmentId
    template: str
    limits: Limits
    lifetime_s: float
    isolation: Isolation | None = None


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


Execute = Callable[[ExecutionRequest], RunningExecution]
"""Runs more code where an execution has ended."""

Collect = Callable[[Execute, Termination], Awaitable[None]]
"""Takes what an execution has left out of its sandbox, by running more code there."""

Mask = Callable[[Termination], Termination]
"""What may be recorded and shown of an execution."""


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

    def execute(self, request: ExecutionRequest) -> RunningExecution:
        """Start an execution; side by side with others up to the limit of the environment, then queued.

        With ``request.files`` it is an operation on files in the place of code: given bytes by a source, answering to a
        sink, killed and limited as code is.

        Raises ``TooManyExecutions`` when the queue is full, ``SandboxFailed`` when the sandbox has ended.
        """
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


class Runtime(Protocol):
    """What makes and ends sandboxes."""

    @property
    def isolation(self) -> Isolation:
        """The class of sandboxes for which none was asked."""
        ...

    @property
    def isolations(self) -> Collection[Isolation]:
        """Every class that it makes, known once it was started."""
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

    async def resume(self, request: ExecutionRequest, limits: Limits) -> Resumed | None:
        """Take up the execution with the request's tag, as if this gateway had begun it; None when there is none.

        Its time limit counts from its true beginning. A sandbox that was not expected is the caller's from then on, as
        after :meth:`create`.
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
