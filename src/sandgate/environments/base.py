"""The use cases of environments, as the HTTP layer sees them."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from sandgate.core.byte_stream import ByteStream
from sandgate.core.environment import Environment, EnvironmentChange
from sandgate.core.execution import Execution, Surroundings
from sandgate.core.idempotency import Keep
from sandgate.core.ids import EnvironmentId, ExecutionId, SessionId, SnapshotId, UserId
from sandgate.core.limits import AskedLimits
from sandgate.core.network import NetworkReport, NetworkRules
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal
from sandgate.core.quota import QuotaReport, UserQuota
from sandgate.core.states import EnvironmentStatus, Isolation, OnTimeout
from sandgate.core.template import Template
from sandgate.core.variables import Variables
from sandgate.core.volume import VolumeWish
from sandgate.environments.following import Events
from sandgate.environments.journal import Offsets
from sandgate.environments.life import Life
from sandgate.sandbox.base import SandboxUsage


@dataclass(frozen=True, slots=True)
class NewEnvironment:
    """What a caller asks for; ``timeout_s`` and ``idle_timeout_s`` None take the defaults, the latter 0 is never.

    With ``snapshot_id`` the template is that of the snapshot.
    """

    name: str
    template: str | None
    timeout_s: int | None = None
    metadata: dict[str, str] | None = None
    isolation: Isolation | None = None
    limits: AskedLimits | None = None
    network: NetworkRules | None = None
    variables: Variables = field(default_factory=Variables)
    on_timeout: OnTimeout = OnTimeout.DELETE
    idle_timeout_s: int | None = None
    snapshot_id: SnapshotId | None = None
    volumes: tuple[VolumeWish, ...] = ()

    @property
    def wants_pause(self) -> bool:
        """Whether it asks for something that takes pausing."""
        return self.on_timeout is OnTimeout.PAUSE or bool(self.idle_timeout_s)


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a live environment uses at a moment. ``memory_limit_bytes`` holds its files, too, where they are memory."""

    row: Environment
    at: datetime
    usage: SandboxUsage
    executions_running: int
    memory_limit_bytes: int


class Environments(Life, Protocol):
    """Every method raises ``EnvironmentNotFound`` for an unknown, deleted or foreign id (an admin sees all),
    ``Forbidden`` when a viewer would change something, and ``StoreUnavailable``.
    """

    async def create(
        self, caller: Principal, wanted: NewEnvironment, keep: Keep[Environment] | None = None
    ) -> Environment:
        """The row, durable, in status ``creating``; its sandbox is being made. What ``keep`` makes is on disk with it.

        Raises ``UnknownTemplate``, ``TemplateUnavailable``, ``IsolationUnavailable``, ``LimitTooHigh``,
        ``TooManyEnvironments``, ``TooManyLiveTemplates``, ``NetworkNotOffered``, ``TooManyNetworkRules``,
        ``EnvironmentVariablesTooLarge``, ``PauseUnavailable``, ``InvalidRequest`` for secrets and volumes that are not
        there, ``SecretUnreadable``, ``VolumesUnavailable``, ``VolumeElsewhere``, ``VolumeNotFound`` for one that is
        deleted meanwhile, ``ServiceDraining``; with a snapshot ``SnapshotNotFound``, ``SnapshotUnfit``,
        ``SnapshotElsewhere``, ``SnapshotUnreadable``.
        """
        ...

    async def get(self, caller: Principal, environment_id: EnvironmentId) -> Environment:
        """One environment."""
        ...

    async def metrics(self, caller: Principal, environment_id: EnvironmentId) -> Metrics:
        """What it uses now, and has used at most; waits for one that is being made.

        Raises ``EnvironmentNotRunning``, ``LauncherUnavailable``.
        """
        ...

    async def list(
        self,
        caller: Principal,
        page: PageRequest,
        *,
        statuses: frozenset[EnvironmentStatus] | None = None,
        template: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Page[Environment]:
        """A page; by default of live ones. ``metadata`` is what each has of it, at least."""
        ...

    async def update(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        change: EnvironmentChange,
    ) -> Environment:
        """Change it; a lifetime and the time without use are counted anew from now.

        Raises ``EnvironmentNotRunning``, ``NetworkNotOffered``, ``TooManyNetworkRules``, ``NetworkUnavailable``,
        ``PauseUnavailable``.
        """
        ...

    async def delete(self, caller: Principal, environment_id: EnvironmentId) -> Environment:
        """End it; answers once nothing of it runs any more."""
        ...

    async def execute(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        code: str,
        timeout_s: float | None,
        around: Surroundings | None = None,
        language: str | None = None,
        session_id: SessionId | None = None,
    ) -> Execution:
        """Run code to its end and answer the durable record; waits for an environment that is being made.

        Cancelling the coroutine (a client that went away) cancels the execution. Raises ``CodeTooLarge``,
        ``ExecutionInputTooLarge``, ``TooManyExecutionFiles``, ``UnknownLanguage``, ``EnvironmentNotRunning``,
        ``TooManyExecutions``, ``ServiceDraining``, in a session ``SessionNotFound``, ``SessionEnded``, ``SessionBusy``.
        """
        ...

    async def begin_execution(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        code: str,
        timeout_s: float | None,
        around: Surroundings | None,
        language: str | None = None,
        session_id: SessionId | None = None,
    ) -> Execution:
        """Let code run whoever waits; answers its durable record, ``running``. Raises what :meth:`execute` does."""
        ...

    async def stream_execution(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        code: str,
        timeout_s: float | None,
        around: Surroundings | None,
        language: str | None = None,
        session_id: SessionId | None = None,
        *,
        detach: bool,
    ) -> Events:
        """Run code and tell its events as they happen, as fast as they are asked for: the code waits for who reads.

        Closing the events before the last one cancels the execution, or lets it go on with ``detach``. Raises what
        :meth:`execute` does.
        """
        ...

    async def follow_execution(
        self, caller: Principal, environment_id: EnvironmentId, execution_id: ExecutionId, offsets: Offsets | None
    ) -> Events:
        """The events of an execution after what was read of its output, or all; those that there will be, too.

        What a step of a workflow writes is told when it has ended. Raises ``ExecutionNotFound``.
        """
        ...

    async def get_execution(
        self, caller: Principal, environment_id: EnvironmentId, execution_id: ExecutionId
    ) -> Execution:
        """One execution of the environment, running or ended. Raises ``ExecutionNotFound``."""
        ...

    async def list_executions(
        self, caller: Principal, environment_id: EnvironmentId, page: PageRequest
    ) -> Page[Execution]:
        """A page of the environment's executions."""
        ...

    async def cancel_execution(
        self, caller: Principal, environment_id: EnvironmentId, execution_id: ExecutionId
    ) -> Execution:
        """Kill a running execution and answer its record. Raises ``ExecutionNotFound``, ``ExecutionNotRunning``."""
        ...


class Networks(Protocol):
    """What environments reach of the network. Every method raises what :class:`Environments` does."""

    async def report(self, caller: Principal, environment_id: EnvironmentId) -> NetworkReport:
        """What a live one may reach, and has reached. Raises ``EnvironmentNotRunning``, ``NetworkUnavailable``."""
        ...


class Ports(Protocol):
    """What listens in environments. Every method raises what :class:`Environments` does, and ``NetworkNotOffered``."""

    async def check(self, caller: Principal, environment_id: EnvironmentId) -> None:
        """Whether the caller may talk to what listens in a live environment. Raises ``EnvironmentNotRunning``."""
        ...

    def connect(
        self, caller: Principal, environment_id: EnvironmentId, port: int
    ) -> AbstractAsyncContextManager[ByteStream]:
        """A connection to what listens at a port, closed with the block.

        Raises ``EnvironmentNotRunning``, ``LauncherUnavailable``, ``PortNotServed``, ``TooManyPortConnections``.
        """
        ...


class Templates(Protocol):
    """What environments can be made from."""

    def list(self, user_id: UserId | None = None) -> Sequence[Template]:
        """All that a user may use, by name, the unavailable ones with their reason; None: those of everybody."""
        ...

    def get(self, name: str, user_id: UserId | None = None) -> Template:
        """One, for a path. Raises ``TemplateNotFound``."""
        ...

    def check(self, name: str, user_id: UserId | None = None) -> Template:
        """One that environments can be made from. Raises ``UnknownTemplate``, ``TemplateUnavailable``."""
        ...


class Quotas(Protocol):
    """What users may use and do use. Every method raises ``StoreUnavailable``."""

    async def report(self, caller: Principal) -> QuotaReport:
        """The caller's own."""
        ...

    async def get(self, caller: Principal, user_id: UserId) -> QuotaReport:
        """A user's. Raises ``Forbidden`` unless the caller is an admin, ``UserNotFound``."""
        ...

    async def put(self, caller: Principal, user_id: UserId, quota: UserQuota) -> QuotaReport:
        """Set what a user may use; what is None is as the settings say. Raises ``Forbidden``, ``UserNotFound``."""
        ...

    async def delete(self, caller: Principal, user_id: UserId) -> QuotaReport:
        """Leave everything to the settings again. Raises ``Forbidden``, ``UserNotFound``."""
        ...
