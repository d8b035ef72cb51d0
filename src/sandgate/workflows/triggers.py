"""What starts runs by itself, as others see it: what schedules and webhooks need, and their use cases."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from sandgate.core.idempotency import Keep
from sandgate.core.ids import RunId, ScheduleId, WebhookId, WorkflowId
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal
from sandgate.core.run import Run
from sandgate.core.trigger import (
    Delivery,
    DeliveryStatus,
    Policy,
    Schedule,
    Signature,
    Timing,
    Trigger,
    Webhook,
)
from sandgate.core.workflow import Json
from sandgate.workflows.base import RunInsert


class TriggeredRuns(Protocol):
    """Starts runs that nobody asked for just now, as the owner of their workflow."""

    async def start_triggered(
        self,
        workflow_id: WorkflowId,
        inputs: Mapping[str, Json],
        trigger: Trigger,
        insert: RunInsert,
    ) -> Run | None:
        """A run of the newest version, written by ``insert``; None when that answers False, or the workflow is gone.

        Raises ``Forbidden`` when the owner may start nothing any more, ``InvalidRequest`` for inputs that do not fit,
        ``InvalidDefinition``, ``TooManyRuns``, ``ServiceDraining``, ``StoreUnavailable``.
        """
        ...

    async def cancel_quietly(self, run_ids: Sequence[RunId], who: str) -> None:
        """Ask for the cancellation of those that live and of which it was not asked yet, wherever they are worked on.

        Nothing waits for their end. Raises ``StoreUnavailable``.
        """
        ...


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """What a schedule is made of."""

    workflow_id: WorkflowId
    timing: Timing
    policy: Policy = field(default_factory=Policy)
    name: str = ""
    inputs: Mapping[str, Json] = field(default_factory=dict)
    paused: bool = False


@dataclass(frozen=True, slots=True)
class ScheduleChange:
    """What is to be changed: fields of the row, of its timing and of its policy, by name."""

    row: Mapping[str, object] = field(default_factory=dict)
    timing: Mapping[str, object] = field(default_factory=dict)
    policy: Mapping[str, object] = field(default_factory=dict)


class Schedules(Protocol):
    """Every method raises ``ScheduleNotFound`` for an unknown or foreign id (an admin sees all), ``Forbidden`` when a
    viewer would change something, and ``StoreUnavailable``.
    """

    async def create(self, caller: Principal, wanted: NewSchedule, keep: Keep[Schedule] | None = None) -> Schedule:
        """The row, durable, with what ``keep`` makes.

        Raises ``WorkflowNotFound``, ``InvalidRequest``, ``TooManyTriggers``.
        """
        ...

    async def get(self, caller: Principal, schedule_id: ScheduleId) -> Schedule:
        """One schedule."""
        ...

    async def list(
        self, caller: Principal, page: PageRequest, *, workflow_id: WorkflowId | None = None
    ) -> Page[Schedule]:
        """A page."""
        ...

    async def update(self, caller: Principal, schedule_id: ScheduleId, change: ScheduleChange) -> Schedule:
        """Change it. Raises ``InvalidRequest``, ``Conflict`` when others changed it all the time."""
        ...

    async def delete(self, caller: Principal, schedule_id: ScheduleId) -> None:
        """Delete it; its runs go on."""
        ...

    async def trigger(self, caller: Principal, schedule_id: ScheduleId, keep: Keep[Run] | None = None) -> Run:
        """Start a run now, paused or not, whatever else runs; what ``keep`` makes is on disk with it.

        Raises what ``TriggeredRuns`` raises.
        """
        ...

    def next_times(self, schedule: Schedule, count: int) -> Sequence[datetime]:
        """The next times at which it starts runs, as if it were not paused."""
        ...


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """What a webhook is made of."""

    workflow_id: WorkflowId
    name: str = ""
    inputs: Mapping[str, Json] = field(default_factory=dict)
    signature: Signature = Signature.NONE
    filter: str | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class IssuedWebhook:
    """A webhook with what is shown once: its token, its signing secret. None: it stays as it was, or there is none."""

    webhook: Webhook
    token: str | None
    signing_secret: str | None


@dataclass(frozen=True, slots=True)
class IncomingDelivery:
    """A request to a webhook as it arrived. Names of headers are in lower case.

    ``parse`` reads what is in it, once it is known to be welcome: the body as JSON or text, and the query. It raises
    ``InvalidRequest``.
    """

    token: str
    body: bytes
    content_type: str
    headers: Mapping[str, str]
    parse: Callable[[], tuple[Json, Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """What became of it."""

    status: DeliveryStatus
    run_id: RunId | None


class Webhooks(Protocol):
    """Every method but ``deliver`` raises ``WebhookNotFound`` for an unknown or foreign id (an admin sees all),
    ``Forbidden`` when a viewer would change something, and ``StoreUnavailable``.
    """

    async def create(
        self, caller: Principal, wanted: NewWebhook, keep: Keep[IssuedWebhook] | None = None
    ) -> IssuedWebhook:
        """The row, durable, with what ``keep`` makes.

        Raises ``WorkflowNotFound``, ``InvalidRequest``, ``TooManyTriggers``.
        """
        ...

    async def get(self, caller: Principal, webhook_id: WebhookId) -> Webhook:
        """One webhook."""
        ...

    async def list(
        self, caller: Principal, page: PageRequest, *, workflow_id: WorkflowId | None = None
    ) -> Page[Webhook]:
        """A page."""
        ...

    async def update(self, caller: Principal, webhook_id: WebhookId, changes: Mapping[str, object]) -> IssuedWebhook:
        """Change fields of the row by name. Raises ``InvalidRequest``, ``Conflict``."""
        ...

    async def rotate(
        self, caller: Principal, webhook_id: WebhookId, *, token: bool, signing_secret: bool
    ) -> IssuedWebhook:
        """Make a new token, a new signing secret or both; the old ones end at once. Raises ``InvalidRequest``."""
        ...

    async def delete(self, caller: Principal, webhook_id: WebhookId) -> None:
        """Delete it; its runs go on."""
        ...

    async def list_deliveries(self, caller: Principal, webhook_id: WebhookId) -> Sequence[Delivery]:
        """The last requests that came, newest first."""
        ...

    async def deliver(self, incoming: IncomingDelivery) -> DeliveryOutcome:
        """Take a request: start a run, or say why not.

        Raises ``HookNotFound`` for an unknown token, a disabled webhook and a wrong signature alike,
        ``TooManyDeliveries``, ``InvalidRequest``, and what ``TriggeredRuns`` raises.
        """
        ...
