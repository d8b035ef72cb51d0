"""Rows of schedules and webhooks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import RunId, ScheduleId, UserId, WebhookId, WorkflowId
from sandgate.core.page import Page, PageRequest
from sandgate.core.trigger import Delivery, Schedule, Webhook
from sandgate.store.base.workflows import RunChange


@dataclass(frozen=True, slots=True)
class DeliveryKeys:
    """What a delivery is known by, should it come again: SHA-256 of the sender's id for it, and of its signature.

    The sender's id may not be signed: one that comes with a known signature is not believed, and not kept.
    """

    sender: bytes | None = None
    signature: bytes | None = None


class ScheduleStore(Protocol):
    """Rows of schedules. Deleting a workflow deletes its schedules."""

    async def insert(self, schedule: Schedule, most: int, answer: KeptAnswer | None = None) -> bool | None:
        """Add a row, and what is answered about it.

        None when its workflow has been deleted; False when its owner has ``most`` or more; nothing is written then.
        """
        ...

    async def find(self, schedule_id: ScheduleId) -> Schedule | None:
        """The row."""
        ...

    async def list(self, owner_id: UserId | None, workflow_id: WorkflowId | None, page: PageRequest) -> Page[Schedule]:
        """A page, newest first; None means any."""
        ...

    async def list_due(self, now: datetime, most: int) -> Sequence[Schedule]:
        """Schedules that are due, the longest due first, and then those with ticks that wait."""
        ...

    async def find_next_due(self, now: datetime) -> datetime | None:
        """When the next one is due that is not due yet."""
        ...

    async def replace(self, before: Schedule, after: Schedule) -> Schedule | None:
        """Write ``after`` with the next revision, and answer that; None, and nothing written, unless the row still has
        the revision of ``before``.
        """
        ...

    async def fire(
        self,
        before: Schedule,
        after: Schedule,
        change: RunChange,
        lease_s: float | None = None,
        answer: KeptAnswer | None = None,
    ) -> bool:
        """Write ``after`` as ``replace`` does, and add a run as ``RunStore.insert`` does, both or neither.

        False when one of them cannot be. Raises ``VersionGone``.
        """
        ...

    async def list_live_runs(self, schedule_id: ScheduleId) -> Sequence[RunId]:
        """The runs that it started and that have not ended."""
        ...

    async def delete(self, schedule_id: ScheduleId) -> bool:
        """Remove the row; False when there was none."""
        ...


class WebhookStore(Protocol):
    """Rows of webhooks. Deleting a workflow deletes its webhooks, deleting a webhook all that is known of it."""

    async def insert(self, webhook: Webhook, most: int, answer: KeptAnswer | None = None) -> bool | None:
        """Add a row, and what is answered about it.

        None when its workflow has been deleted; False when its owner has ``most`` or more; nothing is written then.
        """
        ...

    async def find(self, webhook_id: WebhookId) -> Webhook | None:
        """The row."""
        ...

    async def find_by_token(self, token_sha256: bytes) -> Webhook | None:
        """The row with this token."""
        ...

    async def list(self, owner_id: UserId | None, workflow_id: WorkflowId | None, page: PageRequest) -> Page[Webhook]:
        """A page, newest first; None means any."""
        ...

    async def replace(self, before: Webhook, after: Webhook) -> bool:
        """Write what may change; False, and nothing written, unless the row is as old as ``before``."""
        ...

    async def delete(self, webhook_id: WebhookId) -> bool:
        """Remove the row; False when there was none."""
        ...

    async def accept(
        self,
        delivery: Delivery,
        keys: DeliveryKeys,
        change: RunChange,
        lease_s: float | None = None,
        *,
        fresh_after: datetime,
    ) -> RunId | None:
        """Add a run, the delivery that started it and the keys that it is known by, all or nothing; answers the run.

        When one of the keys came before, after ``fresh_after``, the answer is the run that it started; the delivery is
        kept as a duplicate, and its signature is known from now on. None, and nothing written, when the workflow or
        the webhook has been deleted. Raises ``VersionGone``.
        """
        ...

    async def note(self, delivery: Delivery) -> None:
        """Keep a delivery that started nothing."""
        ...

    async def list_deliveries(self, webhook_id: WebhookId) -> Sequence[Delivery]:
        """The last deliveries that are kept, newest first."""
        ...
