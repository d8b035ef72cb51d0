"""What a request to a webhook is worth: is it signed, is it known, and what a run is given of it. Pure functions."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import datetime

from sandgate.core.clock import show_time
from sandgate.core.errors import InvalidDefinition, InvalidRequest
from sandgate.core.trigger import Signature
from sandgate.core.workflow import Json
from sandgate.store.base import DeliveryKeys
from sandgate.workflows.expressions import (
    ExpressionError,
    evaluate,
    find_references,
    kind,
    parse,
    strip_braces,
    uses_status,
)
from sandgate.workflows.extent import check_extent
from sandgate.workflows.problems import Problems, TooManyProblems

TIMESTAMP_HEADER = "x-sandgate-timestamp"
SIGNATURE_HEADER = "x-sandgate-signature"
GITHUB_HEADER = "x-hub-signature-256"
REPLAY_WINDOW_S = 300
"""How far the timestamp of a signed request may be from now, in either direction."""

LONGEST_FILTER = 2000
_LONGEST_HEADER = 1024
_TIMESTAMP = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
# What tells one delivery from the next, by the senders that say it; the first that is there counts.
_DELIVERY_IDS = ("idempotency-key", "x-github-delivery", "x-gitea-delivery", "x-request-uuid", "webhook-id")
# Whatever else comes may be a credential.
_SHOWN_HEADERS = frozenset(
    {
        "content-type", "user-agent", "idempotency-key", "webhook-id", "traceparent",
        "x-github-event", "x-github-delivery", "x-github-hook-id", "x-gitea-event", "x-gitea-delivery",
        "x-gitlab-event", "x-event-key", "x-request-uuid", "x-shopify-topic",
        "ce-id", "ce-source", "ce-specversion", "ce-subject", "ce-time", "ce-type",
    }
)  # fmt: skip


def sign(secret: bytes, body: bytes, timestamp: str) -> str:
    """What ``X-Sandgate-Signature`` has to be for a body that is sent at ``timestamp``, seconds since 1970."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def sign_as_github(secret: bytes, body: bytes) -> str:
    """What ``X-Hub-Signature-256`` has to be.

    Source: https://docs.github.com/webhooks, "Validating webhook deliveries".
    """
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def is_signed(form: Signature, secret: bytes, headers: Mapping[str, str], body: bytes, now: datetime) -> bool:
    """Whether the request is signed as it has to be.

    Does the same work for every form and every request, so that time tells nothing.
    """
    timestamp = headers.get(TIMESTAMP_HEADER, "")
    in_time = _TIMESTAMP.fullmatch(timestamp) is not None
    in_time = in_time and abs(float(timestamp or 0) - now.timestamp()) <= REPLAY_WINDOW_S
    own = _is_same(sign(secret, body, timestamp), headers.get(SIGNATURE_HEADER, ""))
    github = _is_same(sign_as_github(secret, body), headers.get(GITHUB_HEADER, ""))
    return {Signature.NONE: True, Signature.SANDGATE: own and in_time, Signature.GITHUB: github}[form]


def _is_same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))


def delivery_keys(form: Signature, headers: Mapping[str, str]) -> DeliveryKeys:
    """What the delivery is known by, should it come again: the sender's id for it, and its signature over its time."""
    name = next((name for name in _DELIVERY_IDS if headers.get(name)), None)
    sender = None if name is None else _digest("id", name, headers[name])
    if form is not Signature.SANDGATE:
        # The other form signs no time: the same signature comes with every request that has the same body.
        return DeliveryKeys(sender)
    return DeliveryKeys(sender, _digest("signature", headers[TIMESTAMP_HEADER], headers[SIGNATURE_HEADER]))


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).digest()


def make_event(
    body: Json, headers: Mapping[str, str], query: Mapping[str, str], received_at: datetime
) -> dict[str, Json]:
    """The input ``event``. Raises ``InvalidRequest`` for a body that is nested too deeply or holds odd numbers."""
    problems = Problems()
    try:
        check_extent(body, problems)
        problems.check()
    except TooManyProblems:
        raise InvalidRequest.for_fields([("body", "holds many numbers that cannot be kept")]) from None
    except InvalidDefinition as error:
        raise InvalidRequest.for_fields([(f"body{at}", problem) for at, problem in error.problems[:20]]) from None
    return {
        "body": body,
        "headers": {name: value[:_LONGEST_HEADER] for name, value in sorted(headers.items()) if name in _SHOWN_HEADERS},
        "query": dict(query),
        "method": "POST",
        "received_at": show_time(received_at),
    }


def check_filter(text: str) -> None:
    """Raises ``InvalidRequest`` unless the text is an expression over ``inputs``."""
    problem = None
    try:
        expression = parse(strip_braces(text))
        strange = [found for found in find_references(expression) if found.path[0] != "inputs"]
        if strange:
            problem = f"may look at inputs only, as in inputs.event.body, not at {strange[0].path[0]}"
        elif uses_status(expression):
            problem = "cannot ask for the status of steps; nothing has run yet"
    except ExpressionError as error:
        problem = error.message
    if problem:
        raise InvalidRequest.for_fields([("filter", problem)])


def passes(text: str, inputs: Mapping[str, Json]) -> bool:
    """Whether the filter lets the inputs of a run through. Raises ``ExpressionError``."""
    value = evaluate(parse(strip_braces(text)), {"inputs": dict(inputs)})
    if not isinstance(value, bool):
        raise ExpressionError(f"A filter has to be a boolean, not {kind(value)}; compare it with something", 0)
    return value
