"""What the use cases need from a database.

Every write is durable when its coroutine returns (group commit: writes that arrive together share one
transaction and one flush). Every method may raise ``StoreUnavailable``; with ``details["outcome"] == "unknown"`` the
write may have been done. A cancelled caller may find its write done all the same.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sandgate.core.environment import Environment
from sandgate.core.execution import Execution
from sandgate.core.ids import ApiKeyId, EnvironmentId, ExecutionId, RunId, UserId, WorkflowId
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import ApiKey, Role, User
from sandgate.core.run import HistoryEvent, Run, RunStatus, StepRun
from sandgate.core.states import EnvironmentStatus
from sandgate.core.workflow import Json, Workflow


@dataclass(frozen=True, slots=True)
class EnvironmentFilter:
    """Which environments a list holds; None means any. Deleted ones are never listed."""

    owner_id: UserId | None = None
    statuses: frozenset[EnvironmentStatus] | None = None
    template: str | None = None
    name: str | None = None


class EnvironmentStore(Protocol):
    """Rows of environments."""

    async def insert(self, environment: Environment) -> None:
        """Add a row."""
        ...

    async def find(self, environment_id: EnvironmentId) -> Environment | None:
        """The row, deleted or not."""
        ...

    async def list(self, wanted: EnvironmentFilter, page: PageRequest) -> Page[Environment]:
        """A page, newest first."""
        ...

    async def list_live(self) -> Sequence[Environment]:
        """All rows whose status is live, for adoption at the start."""
        ...

    async def count_live(self, owner_id: UserId | None = None) -> int:
        """How many live environments the owner (None: everybody) has."""
        ...

    async def update_details(
        self,
        environment_id: EnvironmentId,
        *,
        name: str,
        metadata: dict[str, str],
        timeout_s: int,
        expires_at: datetime,
    ) -> bool:
        """Write what a PATCH may change; False when the row is no longer live."""
        ...

    async def transition(
        self,
        environment_id: EnvironmentId,
        target: EnvironmentStatus,
        *,
        expected: Collection[EnvironmentStatus],
        at: datetime,
        reason: str | None = None,
        deleted: bool = False,
    ) -> bool:
        """Compare and set: False, and nothing written, unless the status is one of ``expected``.

        An ending status also sets ``ended_at``; ``deleted`` also sets ``deleted_at``.
        """
        ...


class ExecutionStore(Protocol):
    """Rows of executions."""

    async def insert_running(self, execution: Execution) -> None:
        """Add the row of an execution that has run for long enough to be worth one. No-op if it exists."""
        ...

    async def finish(self, execution: Execution) -> None:
        """Write how it ended, whether or not there is a row yet. A row that has ended already is kept."""
        ...

    async def find(self, execution_id: ExecutionId) -> Execution | None:
        """The row."""
        ...

    async def list(self, environment_id: EnvironmentId, page: PageRequest) -> Page[Execution]:
        """A page of one environment's executions, newest first.

        It may hold fewer than asked for, with an id to go on from, when their output is large.
        """
        ...

    async def mark_lost(self, at: datetime, keep: Collection[ExecutionId] = ()) -> Sequence[ExecutionId]:
        """End every running row but those in ``keep`` as ``lost``; answers which."""
        ...

    async def prune(self, finished_before: datetime, most: int) -> int:
        """Delete at most ``most`` rows that ended before; answers how many went."""
        ...


class UserStore(Protocol):
    """Rows of users."""

    async def insert(self, user: User) -> None:
        """Add a row; raises ``UserNameTaken``."""
        ...

    async def find(self, user_id: UserId) -> User | None:
        """The row with this id."""
        ...

    async def find_by_name(self, name: str) -> User | None:
        """The row with this name (compared exactly)."""
        ...

    async def list(self, page: PageRequest) -> Page[User]:
        """A page, newest first."""
        ...

    async def count(self) -> int:
        """How many users there are."""
        ...

    async def update(
        self,
        user_id: UserId,
        *,
        role: Role | None = None,
        password_hash: str | None = None,
        disabled: bool | None = None,
        tokens_valid_from: datetime | None = None,
    ) -> User | None:
        """Change what is not None in one transaction and answer the new row; None when there is none.

        Raises ``LastAdmin``, with nothing written, when no enabled admin would be left.
        """
        ...

    async def delete(self, user_id: UserId) -> bool:
        """Remove the row and the user's API keys; False when there was none. Raises ``LastAdmin``."""
        ...


class CredentialStore(Protocol):
    """API keys, and tokens that were ended before their time."""

    async def insert_api_key(self, key: ApiKey) -> None:
        """Add a row; raises ``UserNotFound`` when its user was deleted meanwhile."""
        ...

    async def find_api_key(self, api_key_id: ApiKeyId) -> ApiKey | None:
        """The row."""
        ...

    async def list_api_keys(self, user_id: UserId, page: PageRequest) -> Page[ApiKey]:
        """A page of a user's keys, newest first."""
        ...

    async def touch_api_key(self, api_key_id: ApiKeyId, at: datetime) -> None:
        """Note when the key was last used."""
        ...

    async def delete_api_key(self, api_key_id: ApiKeyId) -> bool:
        """Remove the row; False when there was none."""
        ...

    async def revoke_token(self, token_id: str, expires_at: datetime) -> None:
        """Remember that the token is ended, until it would have expired anyway."""
        ...

    async def is_revoked(self, token_id: str) -> bool:
        """Whether the token was ended."""
        ...

    async def prune_revoked(self, before: datetime) -> int:
        """Forget tokens that expired before; answers how many."""
        ...


@dataclass(frozen=True, slots=True)
class SavedAnswer:
    """The first answer to a request with an idempotency key. ``status`` is None while it is being made."""

    request_sha256: bytes
    status: int | None
    body: bytes
    created_at: datetime


class IdempotencyStore(Protocol):
    """First answers by (user, key)."""

    async def claim(
        self, user_id: UserId, key: str, request_sha256: bytes, *, at: datetime, fresh_after: datetime
    ) -> SavedAnswer | None:
        """Take the key for a new request (None), or answer what it holds.

        A row older than ``fresh_after`` is replaced, as if the key had never been used.
        """
        ...

    async def save(self, user_id: UserId, key: str, status: int, body: bytes) -> None:
        """Keep the answer for a claimed key."""
        ...

    async def release(self, user_id: UserId, key: str) -> None:
        """Give back a claimed key whose request was not carried out."""
        ...

    async def release_unanswered(self) -> int:
        """Give back every claimed key without an answer: at the start, their requests died with the last process."""
        ...

    async def prune(self, before: datetime) -> int:
        """Forget answers from before; answers how many."""
        ...


class WorkflowStore(Protocol):
    """Rows of workflows and of their versions."""

    async def insert(self, workflow: Workflow) -> None:
        """Add a row, and its first version."""
        ...

    async def find(self, workflow_id: WorkflowId) -> Workflow | None:
        """The row with its newest version, unless it was deleted."""
        ...

    async def find_definition(self, workflow_id: WorkflowId, version: int) -> Mapping[str, Json] | None:
        """One version as the user wrote it, also of a workflow that was deleted."""
        ...

    async def list(self, owner_id: UserId | None, name: str | None, page: PageRequest) -> Page[Workflow]:
        """A page of the workflows of an owner (None: everybody's), newest first."""
        ...

    async def replace(self, workflow: Workflow) -> bool:
        """Write the next version; False, and nothing written, unless the row has the one before."""
        ...

    async def delete(self, workflow_id: WorkflowId, at: datetime, *, even_if_live: bool) -> bool | None:
        """Delete it. None when it is not there; False, and nothing written, when a run of it lives."""
        ...


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs a list holds; None means any."""

    owner_id: UserId | None = None
    workflow_id: WorkflowId | None = None
    status: RunStatus | None = None


@dataclass(frozen=True, slots=True)
class RunChange:
    """What one transaction writes: the run's new row, the steps that changed, and what to add to its history."""

    run: Run
    steps: Sequence[StepRun] = ()
    history: Sequence[HistoryEvent] = ()


class RunStore(Protocol):
    """Rows of runs, their steps and their history."""

    async def insert(self, change: RunChange) -> bool:
        """Add a run; False, and nothing written, when its workflow has been deleted."""
        ...

    async def apply(self, change: RunChange) -> bool:
        """Write a change if the row still has the fencing number and the lease's owner of ``change.run``.

        False, and nothing written, when another process has taken the run over, or when it has ended.
        """
        ...

    async def claim(self, owner: str, now: datetime, until: datetime, most: int, *, own: bool = False) -> Sequence[Run]:
        """Take live runs whose lease has run out, and with ``own`` also those that ``owner`` had before.

        Each gets the next fencing number.
        """
        ...

    async def renew(self, owner: str, until: datetime) -> frozenset[RunId]:
        """Hold what ``owner`` has until then; answers what that is."""
        ...

    async def find(self, run_id: RunId) -> Run | None:
        """The row."""
        ...

    async def find_newest(self, workflow_id: WorkflowId) -> Run | None:
        """The newest run of a workflow."""
        ...

    async def list(self, wanted: RunFilter, page: PageRequest) -> Page[Run]:
        """A page, newest first."""
        ...

    async def list_live(self, workflow_id: WorkflowId) -> Sequence[RunId]:
        """The runs of a workflow that have not ended."""
        ...

    async def list_steps(self, run_id: RunId, *, with_output: bool = True) -> Sequence[StepRun]:
        """All rows of steps; without output their ``stdout`` and ``stderr`` are empty."""
        ...

    async def list_history(self, run_id: RunId) -> Sequence[HistoryEvent]:
        """What happened, in order."""
        ...


class Store(Protocol):
    """The whole database."""

    environments: EnvironmentStore
    executions: ExecutionStore
    users: UserStore
    credentials: CredentialStore
    idempotency: IdempotencyStore
    workflows: WorkflowStore
    runs: RunStore

    async def open(self) -> None:
        """Connect, and bring the schema to the newest version unless the settings forbid it."""
        ...

    async def check(self) -> None:
        """Prove that the database answers and accepts writes; raises ``StoreUnavailable``."""
        ...

    async def close(self) -> None:
        """Finish the writes that were accepted and disconnect."""
        ...
