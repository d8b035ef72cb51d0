"""What clients send and get to read about webhooks."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from sandgate.core.trigger import Delivery, DeliveryStatus, Signature, Webhook
from sandgate.http.models.base import Model
from sandgate.http.models.parts import Cursor, with_example
from sandgate.http.models.requests import Change
from sandgate.http.models.schedules import Label, request_config
from sandgate.http.pagination import PageQuery
from sandgate.http.paths import parse_workflow_id
from sandgate.workflows.deliveries import LONGEST_FILTER
from sandgate.workflows.triggers import DeliveryOutcome, IssuedWebhook, NewWebhook

_WEBHOOK_ID = "webhook-06evrhxq8g000wmabyzsqnd3wf"
_WORKFLOW_ID = "workflow-06evrhxq8g000wmabyzsqnd3wf"
_RUN_ID = "run-06evrhxr2g000r2s7n0cymq3kd"
_TIME = "2026-01-01T00:00:00Z"
_WEBHOOK = {
    "webhook_id": _WEBHOOK_ID,
    "workflow_id": _WORKFLOW_ID,
    "name": "pushes",
    "enabled": True,
    "signature": "github",
    "filter": "inputs.event.headers['x-github-event'] == 'push'",
    "inputs": {},
    "creation_time": _TIME,
    "updated_at": _TIME,
    "owner_id": "user-06evrhwp4g000e8v0zrc4v1m6h",
}
_DELIVERY = {
    "delivery_id": "delivery-06evrhxq8g000wmabyzsqnd3wf",
    "received_at": _TIME,
    "status": "accepted",
    "reason": None,
    "run_id": _RUN_ID,
    "size_bytes": 1024,
    "content_type": "application/json",
}

SignatureWord = Annotated[
    Literal["none", "sandgate", "github"],
    Field(description="How requests have to be signed: `X-Sandgate-Signature`, or as GitHub does it."),
]
Filter = Annotated[
    str,
    Field(max_length=LONGEST_FILTER, description="An expression over `inputs`; a run is started when it is true."),
]


class CreateWebhook(Model):
    """A new webhook for a workflow that has an input `event` of type `object`."""

    model_config = request_config({"workflow_id": _WORKFLOW_ID, "signature": "sandgate"})

    workflow_id: Annotated[str, Field(max_length=80)]
    name: Label = ""
    inputs: Annotated[dict[str, Any], Field(description="Inputs beside `event`.")] = Field(default_factory=dict)
    signature: SignatureWord = "none"
    filter: Filter | None = None
    enabled: bool = True

    def wanted(self) -> NewWebhook:
        """For the use case. Raises ``WorkflowNotFound``."""
        workflow_id = parse_workflow_id(self.workflow_id)
        signature = Signature(self.signature)
        return NewWebhook(workflow_id, self.name, self.inputs, signature, self.filter, self.enabled)


class UpdateWebhook(Change):
    """What is to be changed. An empty `filter` lets everything through."""

    model_config = request_config({"enabled": False}, minProperties=1)

    name: Label | None = None
    inputs: dict[str, Any] | None = None
    signature: SignatureWord | None = None
    filter: Filter | None = None
    enabled: bool | None = None

    def changes(self) -> dict[str, object]:
        """For the use case."""
        given: dict[str, object] = self.model_dump(exclude_none=True)
        return given if self.signature is None else {**given, "signature": Signature(self.signature)}


class RotateWebhook(Model):
    """What is to be made anew. The old ones end at once."""

    model_config = request_config({"token": True, "secret": False})

    token: bool = True
    secret: bool = False


class ListWebhooks(PageQuery):
    """Which webhooks are wanted."""

    workflow_id: Annotated[str | None, Field(max_length=80)] = None


class WebhookAnswer(Model):
    """A webhook, without its token and its secret."""

    model_config = with_example(_WEBHOOK)

    webhook_id: str
    workflow_id: str
    name: str
    enabled: bool
    signature: Signature
    filter: str | None
    inputs: dict[str, Any]
    creation_time: datetime
    updated_at: datetime
    owner_id: str

    @classmethod
    def of(cls, row: Webhook) -> "WebhookAnswer":
        """From the record."""
        return cls(**_facts(row))


class IssuedWebhookAnswer(WebhookAnswer):
    """A webhook with what has just been made of its address and its signing secret: shown this once, null otherwise."""

    model_config = with_example({**_WEBHOOK, "hook_path": "/api/v1/hooks/whk_…", "signing_secret": "whs_…"})

    hook_path: str | None
    signing_secret: str | None

    @classmethod
    def made(cls, issued: IssuedWebhook) -> "IssuedWebhookAnswer":
        """From the record and what was made."""
        path = None if issued.token is None else f"/api/v1/hooks/{issued.token}"
        return cls(**_facts(issued.webhook), hook_path=path, signing_secret=issued.signing_secret)


class WebhooksAnswer(Model):
    """A page of webhooks, newest first."""

    model_config = with_example({"webhooks": [_WEBHOOK], "next_cursor": None})

    webhooks: list[WebhookAnswer]
    next_cursor: Cursor


class WebhookDeletedAnswer(Model):
    """The webhook takes nothing any more; its runs go on."""

    model_config = with_example({"webhook_id": _WEBHOOK_ID, "status": "deleted"})

    webhook_id: str
    status: Literal["deleted"] = "deleted"


class DeliveryAnswer(Model):
    """A request that came, without what was in it. `reason` says why it was refused."""

    model_config = with_example(_DELIVERY)

    delivery_id: str
    received_at: datetime
    status: DeliveryStatus
    reason: str | None
    run_id: str | None
    size_bytes: int
    content_type: str

    @classmethod
    def of(cls, row: Delivery) -> "DeliveryAnswer":
        """From the record."""
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


class DeliveriesAnswer(Model):
    """The last requests that came, newest first."""

    model_config = with_example({"deliveries": [_DELIVERY]})

    deliveries: list[DeliveryAnswer]


class HookAnswer(Model):
    """What became of a request: `accepted` with its run, `duplicate` with the first one's, `ignored` by the filter."""

    model_config = with_example({"status": "accepted", "run_id": _RUN_ID})

    status: DeliveryStatus
    run_id: str | None

    @classmethod
    def of(cls, outcome: DeliveryOutcome) -> "HookAnswer":
        """From what the use case answers."""
        return cls(status=outcome.status, run_id=outcome.run_id)


def _facts(row: Webhook) -> dict[str, Any]:
    return {
        "webhook_id": row.webhook_id,
        "workflow_id": row.workflow_id,
        "name": row.name,
        "enabled": row.enabled,
        "signature": row.signature,
        "filter": row.filter,
        "inputs": dict(row.inputs),
        "creation_time": row.created_at,
        "updated_at": row.updated_at,
        "owner_id": row.owner_id,
    }
