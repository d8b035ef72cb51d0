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
from sandgate.core.quota import EnvironmentsHeld, UserQuota
from sandgate.core.states import EnvironmentStatus


@dataclass(frozen=True, slots=True)
class EnvironmentFilter:
    """Which environments a list holds; None means any, and ``metadata`` is what all have of it.

    Deleted ones are never listed.
    """

    owner_id: UserId | None = None
    statuses: frozenset[EnvironmentStatus] | None = None
    template: str | None = None
    name: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()


class EnvironmentStore(Protocol):
    """Rows of environments."""

    async def insert(
        self, environment: Environment, answer: KeptAnswer | None = None, allowed: UserQuota | None = None
    ) -> EnvironmentsHeld | None:
        """Add a row, and what is answered about it.

        With ``allowed``, nothing is written for an owner who would then have more of live environments, on all servers,
        than that: answers what the owner has. Raises ``VolumeNotFound`` when one of its volumes is gone.
        """
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

    async def held_elsewhere(self, owner_id: UserId, server_id: str) -> EnvironmentsHeld:
        """What the owner has of live environments on other servers than this one."""
        ...

    async def update_details(self, environment: Environment) -> bool:
        """Write what a PATCH may change of it; False when the row is no longer live."""
        ...

    async def write_pause(self, environment: Environment) -> bool:
        """Write whether it stands still, since when, and until when it lives; False when it is no longer live."""
        ...

    async def note_running(self, environment_ids: Collection[EnvironmentId]) -> None:
        """Set those that are ``creating`` to ``running``, and leave the others as they are."""
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

    async def find_over(self, most_bytes: int) -> Sequence[tuple[UserId, int]]:
        """Owners whose executions have more than so many bytes of output, and by how many; empty, too, while little was
        written since it was asked last.
        """
        ...

    async def prune_oldest(self, owner_id: UserId, excess_bytes: int, most: int) -> int:
        """Delete the oldest ended executions of an owner: as many as have ``excess_bytes`` of output together, but at
        most ``most``, and no more output than one write should remove. Answers how many bytes went, which is 0 when
        there is nothing left to delete.
        """
        ...
