"""Rows of environments and of what ran in them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sandgate.core.environment import Environment
from sandgate.core.execution import Execution
from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import EnvironmentId, ExecutionId, UserId
from sandgate.core.page import Page, PageRequest
from sandgate.core.states import EnvironmentStatus


@dataclass(frozen=True, slots=True)
class EnvironmentFilter:
    """Which environments a list holds; None means any. Deleted ones are never listed."""

    owner_id: UserId | None = None
    statuses: frozenset[EnvironmentStatus] | None = None
    template: str | None = None
    name: str | None = None


class EnvironmentStore(Protocol):
    """Rows of environments."""

    async def insert(self, environment: Environment, answer: KeptAnswer | None = None) -> None:
        """Add a row, and what is answered about it."""
        ...

    async def find(self, environment_id: EnvironmentId) -> Environment | None:
        """The row, deleted or not."""
        ...

    async def list(self, wanted: EnvironmentFilter, page: PageRequest) -> Page[Environment]:
        """A page, newest first."""
        ...

    async def list_live(self, server_id: str | None = None) -> Sequence[Environment]:
        """All rows whose status is live, or those of one server, oldest first.

        Rows that name no server are every server's.
        """
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

    async def mark_lost(
        self, at: datetime, keep: Collection[ExecutionId] = (), *, server_id: str | None = None
    ) -> Sequence[ExecutionId]:
        """End every running row but those in ``keep`` as ``lost``, or those of one server; answers which."""
        ...

    async def prune(self, finished_before: datetime, most: int) -> int:
        """Delete at most ``most`` rows that ended before; answers how many went."""
        ...
