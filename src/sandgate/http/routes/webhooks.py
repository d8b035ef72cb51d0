"""Webhooks: making, reading and changing them, and the addresses that take what comes."""

from collections.abc import Mapping
from typing import Annotated, Any

from starlette.requests import Request

from sandgate.core import errors
from sandgate.core.audit import Credential
from sandgate.core.workflow import Json
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.bodies import JSON_TYPE, media_type, parse_form, parse_json, read_body, refuse_field
from sandgate.http.exchange import exchange_of
from sandgate.http.idempotency import keeper
from sandgate.http.marks import Query
from sandgate.http.models.webhooks import (
    CreateWebhook,
    DeliveriesAnswer,
    DeliveryAnswer,
    HookAnswer,
    IssuedWebhookAnswer,
    ListWebhooks,
    RotateWebhook,
    UpdateWebhook,
    WebhookAnswer,
    WebhookDeletedAnswer,
    WebhooksAnswer,
)
from sandgate.http.pagination import next_cursor
from sandgate.http.paths import HookToken, WebhookPath, parse_workflow_id
from sandgate.workflows.triggers import IncomingDelivery, Webhooks

_WEBHOOKS = "/api/v1/orchestrator/webhooks"
_WEBHOOK = f"{_WEBHOOKS}/{{webhook_id}}"
_TAG = "webhooks"

_HOOK_BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "description": "JSON becomes `event.body`; anything else is kept there as text.",
        "content": {JSON_TYPE: {"schema": {"examples": [{"order": 7}]}}, "*/*": {"schema": {"type": "string"}}},
    }
}


def add_webhook_routes(api: Api, webhooks: Webhooks) -> None:
    """Declare the operations of those who own webhooks."""
    _add_collection_routes(api, webhooks)
    _add_item_routes(api, webhooks)
    _add_secret_routes(api, webhooks)


def _add_collection_routes(api: Api, webhooks: Webhooks) -> None:
    @api.operation(
        "POST",
        _WEBHOOKS,
        tag=_TAG,
        status=201,
        idempotent=True,
        errors=(errors.Forbidden, errors.WorkflowNotFound, errors.TooManyTriggers),
    )
    async def create_webhook(caller: Caller, body: CreateWebhook, request: Request) -> IssuedWebhookAnswer:
        """Have a workflow started by requests of others. Its address and secret are shown in this answer only."""
        keep = keeper(request, IssuedWebhookAnswer.made)
        return IssuedWebhookAnswer.made(await webhooks.create(caller, body.wanted(), keep))

    @api.operation("GET", _WEBHOOKS, tag=_TAG, errors=(errors.WorkflowNotFound,))
    async def list_webhooks(caller: Caller, query: Annotated[ListWebhooks, Query()]) -> WebhooksAnswer:
        """List your webhooks, newest first; an admin's list holds everybody's."""
        workflow_id = None if query.workflow_id is None else parse_workflow_id(query.workflow_id)
        page = await webhooks.list(caller, query.page_request("webhook"), workflow_id=workflow_id)
        rows = [WebhookAnswer.of(row) for row in page.items]
        return WebhooksAnswer(webhooks=rows, next_cursor=next_cursor(page))


def _add_item_routes(api: Api, webhooks: Webhooks) -> None:
    @api.operation("GET", _WEBHOOK, tag=_TAG, errors=(errors.WebhookNotFound,))
    async def get_webhook(caller: Caller, webhook_id: WebhookPath) -> WebhookAnswer:
        """Get one webhook."""
        return WebhookAnswer.of(await webhooks.get(caller, webhook_id))

    @api.operation("PATCH", _WEBHOOK, tag=_TAG, errors=(errors.WebhookNotFound, errors.Forbidden, errors.Conflict))
    async def update_webhook(caller: Caller, webhook_id: WebhookPath, body: UpdateWebhook) -> IssuedWebhookAnswer:
        """Change a webhook. One that has to be signed from now on gets a secret, which is shown in this answer only."""
        return IssuedWebhookAnswer.made(await webhooks.update(caller, webhook_id, body.changes()))

    @api.operation("DELETE", _WEBHOOK, tag=_TAG, errors=(errors.WebhookNotFound, errors.Forbidden))
    async def delete_webhook(caller: Caller, webhook_id: WebhookPath) -> WebhookDeletedAnswer:
        """Delete a webhook; the runs that it started go on."""
        await webhooks.delete(caller, webhook_id)
        return WebhookDeletedAnswer(webhook_id=webhook_id)


def _add_secret_routes(api: Api, webhooks: Webhooks) -> None:
    @api.operation(
        "POST",
        f"{_WEBHOOK}/rotate",
        tag=_TAG,
        errors=(errors.WebhookNotFound, errors.Forbidden, errors.Conflict, errors.InvalidRequest),
    )
    async def rotate_webhook(
        caller: Caller, webhook_id: WebhookPath, body: RotateWebhook | None = None
    ) -> IssuedWebhookAnswer:
        """Make a new address, a new signing secret, or both; the old ones end at once."""
        wanted = body or RotateWebhook()
        issued = await webhooks.rotate(caller, webhook_id, token=wanted.token, signing_secret=wanted.secret)
        return IssuedWebhookAnswer.made(issued)

    @api.operation("GET", f"{_WEBHOOK}/deliveries", tag=_TAG, errors=(errors.WebhookNotFound,))
    async def list_deliveries(caller: Caller, webhook_id: WebhookPath) -> DeliveriesAnswer:
        """The last requests that came to a webhook and what became of each, without what was in them."""
        rows = await webhooks.list_deliveries(caller, webhook_id)
        return DeliveriesAnswer(deliveries=[DeliveryAnswer.of(row) for row in rows])


def add_hook_routes(api: Api, webhooks: Webhooks, most_bytes: int) -> None:
    """Declare the operation of those who call webhooks: they hold its address and no other credential."""

    @api.operation(
        "POST",
        "/api/v1/hooks/{token}",
        tag=_TAG,
        errors=(
            errors.HookNotFound,
            errors.InvalidRequest,
            errors.ExpressionError,
            errors.PayloadTooLarge,
            errors.UnsupportedMediaType,
            errors.Forbidden,
            errors.TooManyDeliveries,
            errors.TooManyRuns,
            errors.ServiceDraining,
            errors.StoreUnavailable,
        ),
        extra=_HOOK_BODY,
    )
    async def call_webhook(token: HookToken, request: Request) -> HookAnswer:
        """Start a run with this request as its input `event`. The address is the credential; keep it secret."""
        return HookAnswer.of(await webhooks.deliver(await _read(token, request, most_bytes)))


async def _read(token: str, request: Request, most_bytes: int) -> IncomingDelivery:
    exchange = exchange_of(request.scope)
    exchange.credential = Credential.WEBHOOK
    # All of it, whoever sends it: what is answered before it is read tells a stranger that the address is wrong.
    raw = await read_body(request.scope, request.receive, most_bytes)
    kind = media_type(exchange)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.headers.items()}
    query: bytes = request.scope["query_string"]

    def parse() -> tuple[Json, Mapping[str, str]]:
        return _parse_body(kind, raw), parse_form(query) if query else {}

    return IncomingDelivery(token, raw, kind, headers, parse)


def _parse_body(kind: str, raw: bytes) -> Json:
    """JSON as what it is, anything else as text, nothing as null. Raises ``InvalidRequest``."""
    if not raw:
        return None
    if kind == JSON_TYPE or kind.endswith("+json"):
        return parse_json(raw)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        refuse_field("body", f"is not UTF-8 at byte {error.start}")
    if "\x00" in text:
        refuse_field("body", "has a NUL character")
    return text
