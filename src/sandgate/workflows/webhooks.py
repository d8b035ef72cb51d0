"""The use cases of webhooks: making them, and taking what comes to them."""

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sandgate.auth.derived_secrets import DerivedSecrets
from sandgate.config.settings import Settings
from sandgate.core.clock import Clock
from sandgate.core.errors import (
    Conflict,
    Forbidden,
    HookNotFound,
    InvalidRequest,
    MechanismFault,
    RequestRefused,
    StoreUnavailable,
    TooManyDeliveries,
    TooManyTriggers,
    WebhookNotFound,
    WorkflowNotFound,
)
from sandgate.core.idempotency import Keep
from sandgate.core.ids import RunId, UserId, WebhookId, WorkflowId, make_delivery_id, make_webhook_id
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal
from sandgate.core.trigger import Delivery, DeliveryStatus, Signature, Trigger, TriggerType, Webhook
from sandgate.core.workflow import InputType, Json, WorkflowDefinition
from sandgate.store.base import RunChange, Store
from sandgate.telemetry.log import get_logger
from sandgate.workflows.base import Workflows
from sandgate.workflows.deliveries import check_filter, delivery_keys, is_signed, make_event, passes
from sandgate.workflows.inputs import check_inputs
from sandgate.workflows.rates import Rates
from sandgate.workflows.triggers import (
    DeliveryOutcome,
    IncomingDelivery,
    IssuedWebhook,
    NewWebhook,
    TriggeredRuns,
)

TOKEN_PREFIX, SECRET_PREFIX = "whk_", "whs_"
EVENT = "event"

_PURPOSE = "webhook signature"
_KEYS_KEPT = timedelta(hours=24)
_MINUTE_S = 60.0
_MOST_NOTES = 100

_log = get_logger(__name__)


class WebhookService:
    """``Webhooks`` on a store. ``stop`` comes last."""

    def __init__(
        self,
        store: Store,
        workflows: Workflows,
        runs: TriggeredRuns,
        derived: DerivedSecrets,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._store = store
        self._workflows = workflows
        self._runs = runs
        self._derived = derived
        self._clock = clock
        self._most = settings.max_triggers_per_user
        self._rate = settings.webhook_rate_per_minute
        self._taken = Rates(clock, self._rate, _MINUTE_S)
        self._refused = Rates(clock, self._rate, _MINUTE_S)
        self._notes: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Let what is being noted be noted."""
        if self._notes:
            await asyncio.wait(self._notes)

    async def create(
        self, caller: Principal, wanted: NewWebhook, keep: Keep[IssuedWebhook] | None = None
    ) -> IssuedWebhook:
        """See ``Webhooks``."""
        workflow = await self._workflows.get(caller, wanted.workflow_id)
        _check_can_write(caller)
        _check_fits(await self._workflows.definition_of(workflow), wanted.inputs, wanted.filter)
        now = self._clock.now()
        token = _make_token()
        webhook = Webhook(
            webhook_id=make_webhook_id(),
            workflow_id=workflow.workflow_id,
            owner_id=workflow.owner_id,
            name=wanted.name,
            token_sha256=_hash(token),
            created_at=now,
            updated_at=now,
            enabled=wanted.enabled,
            signature=wanted.signature,
            salt=_make_salt(wanted.signature),
            filter=wanted.filter or None,
            inputs=wanted.inputs,
        )
        issued = IssuedWebhook(webhook, token, self._shown_secret(webhook))
        inserted = await self._store.webhooks.insert(webhook, self._most, keep and keep(issued))
        if inserted is None:
            raise WorkflowNotFound(f"Workflow {workflow.workflow_id} was deleted just now")
        if not inserted:
            raise TooManyTriggers(
                f"The owner of the workflow has {self._most} webhooks, which is the most allowed; delete one",
                {"limit": self._most},
                retry_after_s=_MINUTE_S,
            )
        return issued

    async def get(self, caller: Principal, webhook_id: WebhookId) -> Webhook:
        """See ``Webhooks``."""
        webhook = await self._store.webhooks.find(webhook_id)
        if webhook is None or not (caller.is_admin or webhook.owner_id == caller.user_id):
            raise webhook_not_found(webhook_id)
        return webhook

    async def list(
        self, caller: Principal, page: PageRequest, *, workflow_id: WorkflowId | None = None
    ) -> Page[Webhook]:
        """See ``Webhooks``."""
        return await self._store.webhooks.list(None if caller.is_admin else caller.user_id, workflow_id, page)

    async def update(self, caller: Principal, webhook_id: WebhookId, changes: Mapping[str, object]) -> IssuedWebhook:
        """See ``Webhooks``."""
        webhook = await self._get_to_change(caller, webhook_id)
        changed = replace(webhook, **_as_any(changes))
        if not changed.filter:
            changed = replace(changed, filter=None)
        if {"inputs", "filter"} & changes.keys():
            workflow = await self._workflows.get(caller, webhook.workflow_id)
            _check_fits(await self._workflows.definition_of(workflow), changed.inputs, changed.filter)
        if changed.signature is Signature.NONE:
            changed = replace(changed, salt=None)
        elif webhook.salt is None:
            changed = replace(changed, salt=_make_salt(changed.signature))
        changed = await self._write(webhook, changed)
        return IssuedWebhook(changed, None, None if changed.salt == webhook.salt else self._shown_secret(changed))

    async def rotate(
        self, caller: Principal, webhook_id: WebhookId, *, token: bool, signing_secret: bool
    ) -> IssuedWebhook:
        """See ``Webhooks``."""
        webhook = await self._get_to_change(caller, webhook_id)
        if signing_secret and webhook.signature is Signature.NONE:
            raise InvalidRequest.for_fields([("secret", "there is none: this webhook takes unsigned requests")])
        changed, made = webhook, _make_token() if token else None
        if made is not None:
            changed = replace(changed, token_sha256=_hash(made))
        if signing_secret:
            changed = replace(changed, salt=_make_salt(changed.signature))
        changed = await self._write(webhook, changed)
        return IssuedWebhook(changed, made, self._shown_secret(changed) if signing_secret else None)

    async def delete(self, caller: Principal, webhook_id: WebhookId) -> None:
        """See ``Webhooks``."""
        await self._get_to_change(caller, webhook_id)
        if not await self._store.webhooks.delete(webhook_id):
            raise webhook_not_found(webhook_id)

    async def list_deliveries(self, caller: Principal, webhook_id: WebhookId) -> Sequence[Delivery]:
        """See ``Webhooks``."""
        await self.get(caller, webhook_id)
        return await self._store.webhooks.list_deliveries(webhook_id)

    # Taking requests

    async def deliver(self, incoming: IncomingDelivery) -> DeliveryOutcome:
        """See ``Webhooks``."""
        now = self._clock.now()
        webhook = await self._find_for(incoming, now)
        delivery = _delivery_of(webhook, incoming, now)
        wait_s = self._taken.take(webhook.webhook_id)
        if wait_s:
            raise TooManyDeliveries(
                f"This webhook takes {self._rate} requests in a minute; send this one again later",
                {"limit": self._rate},
                retry_after_s=wait_s,
            )
        try:
            return await self._take(webhook, incoming, delivery)
        except (RequestRefused, MechanismFault) as refusal:
            if not isinstance(refusal, StoreUnavailable):
                self._note(replace(delivery, status=DeliveryStatus.REFUSED, reason=refusal.code))
            raise

    async def _find_for(self, incoming: IncomingDelivery, now: datetime) -> Webhook:
        """The webhook that may take the request. All that is wrong looks the same, and takes as long."""
        wanted = _hash(incoming.token)
        webhook = await self._store.webhooks.find_by_token(wanted)
        found = webhook or _NOBODY
        is_known = hmac.compare_digest(found.token_sha256, wanted)
        is_right = is_signed(found.signature, self._secret(found), incoming.headers, incoming.body, now)
        if webhook is not None and is_known and is_right and webhook.enabled:
            return webhook
        if webhook is not None:
            reason = "WRONG_SIGNATURE" if webhook.enabled else "DISABLED"
            refused = replace(_delivery_of(webhook, incoming, now), status=DeliveryStatus.REFUSED, reason=reason)
            # Not waited for: it would tell that there is a webhook.
            self._note(refused)
        raise hook_not_found()

    async def _take(self, webhook: Webhook, incoming: IncomingDelivery, delivery: Delivery) -> DeliveryOutcome:
        body, query = incoming.parse()
        event = make_event(body, incoming.headers, query, delivery.received_at)
        inputs = {**webhook.inputs, EVENT: event}
        if webhook.filter is not None and not passes(webhook.filter, inputs):
            await self._store.webhooks.note(replace(delivery, status=DeliveryStatus.IGNORED))
            return DeliveryOutcome(DeliveryStatus.IGNORED, None)
        keys = delivery_keys(webhook.signature, incoming.headers)
        answered: RunId | None = None

        async def insert(change: RunChange, lease_s: float) -> bool:
            nonlocal answered
            fresh_after = delivery.received_at - _KEYS_KEPT
            answered = await self._store.webhooks.accept(delivery, keys, change, lease_s, fresh_after=fresh_after)
            return answered == change.run.run_id

        trigger = Trigger(TriggerType.WEBHOOK, webhook.webhook_id)
        run = await self._runs.start_triggered(webhook.workflow_id, inputs, trigger, insert)
        if run is not None:
            return DeliveryOutcome(DeliveryStatus.ACCEPTED, run.run_id)
        if answered is None:
            raise hook_not_found()
        return DeliveryOutcome(DeliveryStatus.DUPLICATE, answered)

    def _note(self, delivery: Delivery) -> None:
        """Keep a refused delivery in the background, unless there are too many."""
        if len(self._notes) >= _MOST_NOTES or self._refused.take(delivery.webhook_id):
            return
        task = asyncio.get_running_loop().create_task(self._keep(delivery), name="note delivery")
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _keep(self, delivery: Delivery) -> None:
        try:
            await self._store.webhooks.note(delivery)
        except StoreUnavailable as fault:
            _log.warning("delivery not noted", webhook_id=delivery.webhook_id, reason=fault.message)

    def _secret(self, webhook: Webhook) -> bytes:
        """The key of signatures: the characters of the secret as it is shown."""
        derived = self._derived.derive(_PURPOSE, webhook.webhook_id.encode(), webhook.salt or b"")
        return (SECRET_PREFIX + base64.urlsafe_b64encode(derived).decode().rstrip("=")).encode()

    def _shown_secret(self, webhook: Webhook) -> str | None:
        return None if webhook.salt is None else self._secret(webhook).decode()

    async def _write(self, before: Webhook, after: Webhook) -> Webhook:
        # Never the same instant twice: it decides between two writers.
        after = replace(after, updated_at=max(self._clock.now(), before.updated_at + timedelta(microseconds=1)))
        if await self._store.webhooks.replace(before, after):
            return after
        raise Conflict(f"Webhook {before.webhook_id} was changed by somebody else just now; look, and try again")

    async def _get_to_change(self, caller: Principal, webhook_id: WebhookId) -> Webhook:
        webhook = await self.get(caller, webhook_id)
        _check_can_write(caller)
        return webhook


def webhook_not_found(webhook_id: str) -> WebhookNotFound:
    """The refusal for a webhook that is not there, or somebody else's."""
    return WebhookNotFound(f"You have no webhook {webhook_id}; GET /api/v1/orchestrator/webhooks lists yours")


def hook_not_found() -> HookNotFound:
    """The one refusal for all requests that no webhook takes."""
    return HookNotFound("No webhook takes this: its address is not known, it is disabled, or the signature is wrong")


def _delivery_of(webhook: Webhook, incoming: IncomingDelivery, now: datetime) -> Delivery:
    size, kind = len(incoming.body), incoming.content_type[:100]
    return Delivery(make_delivery_id(), webhook.webhook_id, now, DeliveryStatus.ACCEPTED, size, kind)


def _check_fits(definition: WorkflowDefinition, inputs: Mapping[str, Json], filter_: str | None) -> None:
    """Raises ``InvalidRequest`` unless the workflow can be started with an event and these inputs."""
    if EVENT in inputs:
        raise InvalidRequest.for_fields([("inputs.event", "is what arrives; it cannot be given")])
    declared = definition.inputs.get(EVENT)
    if declared is None or declared.type is not InputType.OBJECT:
        raise InvalidRequest.for_fields(
            [("workflow_id", "names a workflow without an input `event` of type object, which a webhook needs")]
        )
    check_inputs(definition, {**inputs, EVENT: {}})
    if filter_:
        check_filter(filter_)


def _check_can_write(caller: Principal) -> None:
    if not caller.can_write:
        raise Forbidden(f"The role {caller.role} only reads; ask an admin for the role user")


def _as_any(changes: Mapping[str, object]) -> Mapping[str, Any]:
    return changes


def _make_token() -> str:
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def _make_salt(signature: Signature) -> bytes | None:
    return None if signature is Signature.NONE else secrets.token_bytes(16)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


# Stands in for the webhook of an unknown token, so that the same work is done.
_NOBODY = Webhook(
    webhook_id=WebhookId(""),
    workflow_id=WorkflowId(""),
    owner_id=UserId(""),
    name="",
    token_sha256=secrets.token_bytes(32),
    created_at=datetime.min.replace(tzinfo=UTC),
    updated_at=datetime.min.replace(tzinfo=UTC),
    signature=Signature.SANDGATE,
)
