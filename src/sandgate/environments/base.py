"""The use cases of environments, as the HTTP layer sees them."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sandgate.core.environment import Environment
from sandgate.core.execution import Execution, Surroundings
from sandgate.core.files import FileEntry
from sandgate.core.idempotency import Keep
from sandgate.core.ids import EnvironmentId, ExecutionId, UserId
from sandgate.core.limits import AskedLimits
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal
from sandgate.core.quota import QuotaReport, UserQuota
from sandgate.core.states import EnvironmentStatus, Isolation
from sandgate.core.template import Template
from sandgate.environments.files import Folder, OpenFile
from sandgate.environments.following import Events
from sandgate.environments.journal import Offsets
from sandgate.sandbox.base import SandboxUsage


@dataclass(frozen=True, slots=True)
class NewEnvironment:
    """What a caller asks for; ``timeout_s`` None takes the default."""

    name: str
    template: str
    timeout_s: int | None = None
    metadata: dict[str, str] | None = None
    isolation: Isolation | None = None
    limits: AskedLimits | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a live environment uses at a moment."""

    row: Environment
    at: datetime
    usage: SandboxUsage
    executions_running: int


class Environments(Protocol):
    """Every method raises ``EnvironmentNotFound`` for an unknown, deleted or foreign id (an admin sees all),
    ``Forbidden`` when a viewer would change something, and ``StoreUnavailable``.
    """

    async def create(
        self, caller: Principal, wanted: NewEnvironment, keep: Keep[Environment] | None = None
    ) -> Environment:
        """The row, durable, in status ``creating``; its sandbox is being made. What ``keep`` makes is on disk with it.

        Raises ``UnknownTemplate``, ``TemplateUnavailable``, ``IsolationUnavailable``, ``LimitTooHigh``,
        ``TooManyEnvironments``,
        ``ServiceDraining``.
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
    ) -> Page[Environment]:
        """A page; by default of live ones."""
        ...

    async def update(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        *,
        name: str | None = None,
        metadata: dict[str, str] | None = None,
        timeout_s: int | None = None,
    ) -> Environment:
        """Change what is not None; ``timeout_s`` is counted anew from now. Raises ``EnvironmentNotRunning``."""
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
    ) -> Execution:
        """Run code to its end and answer the durable record; waits for an environment that is being made.

        Cancelling the coroutine (a client that went away) cancels the execution. Raises ``CodeTooLarge``,
        ``ExecutionInputTooLarge``, ``TooManyExecutionFiles``, ``EnvironmentNotRunning``, ``TooManyExecutions``,
        ``ServiceDraining``.
        """
        ...

    async def begin_execution(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        code: str,
        timeout_s: float | None,
        around: Surroundings | None,
    ) -> Execution:
        """Let code run whether or not anybody waits; answers its record, durable, in status ``running``.

        Raises what :meth:`execute` does.
        """
        ...

    async def stream_execution(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        code: str,
        timeout_s: float | None,
        around: Surroundings | None,
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


class Files(Protocol):
    """Files of environments, by their paths inside. Every method raises what :class:`Environments` does, and
    ``EnvironmentNotRunning``, ``FileMissing``, ``FileForbidden``, ``PathInvalid``, ``FilesUnavailable``,
    ``TooManyExecutions``.
    """

    async def look(self, caller: Principal, environment_id: EnvironmentId, path: str) -> FileEntry:
        """One file, a link itself."""
        ...

    async def list(
        self, caller: Principal, environment_id: EnvironmentId, path: str, *, after: str, limit: int
    ) -> Folder:
        """A part of a folder by name, behind the name ``after``. Raises ``FileConflict``."""
        ...

    async def make_folder(self, caller: Principal, environment_id: EnvironmentId, path: str) -> FileEntry:
        """Make a folder and those on the way to it. Raises ``FileConflict``, ``DiskFull``."""
        ...

    async def delete(self, caller: Principal, environment_id: EnvironmentId, path: str, *, recursive: bool) -> int:
        """Remove a file, a link, an empty folder, or a tree; how many. Raises ``FileConflict``."""
        ...

    async def transfer(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        operation: str,
        source: str,
        target: str,
        *,
        overwrite: bool,
    ) -> FileEntry:
        """``move`` or ``copy`` a file or a tree; the new one. Raises ``FileConflict``, ``DiskFull``."""
        ...

    async def open(self, caller: Principal, environment_id: EnvironmentId, path: str) -> OpenFile:
        """A regular file, to be read; the caller closes it. Raises ``FileConflict``, ``FileTooLarge``."""
        ...

    async def write(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        path: str,
        body: AsyncIterator[bytes],
        *,
        overwrite: bool,
        mode: int | None,
        size_bytes: int = 0,
    ) -> FileEntry:
        """Write a file in one step: until all of it is there, what was there stays.

        ``size_bytes`` is how long it will be, if that is known: what cannot fit is refused before it is sent.

        Raises ``FileConflict``, ``FileTooLarge``, ``DiskFull``.
        """
        ...


class Templates(Protocol):
    """What environments can be made from."""

    def list(self) -> Sequence[Template]:
        """All, by name, the unavailable ones with their reason."""
        ...

    def get(self, name: str) -> Template:
        """One, for a path. Raises ``TemplateNotFound``."""
        ...

    def check(self, name: str) -> Template:
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
