"""What the OpenAPI document says beyond what FastAPI reads from signatures."""

import inspect
from collections.abc import Iterable
from typing import Any

from pydantic import ConfigDict

from sandgate.core import errors
from sandgate.core.errors import SandgateError
from sandgate.http.models.base import Model
from sandgate.http.problems import status_of

# What can happen to any request: on the wire, in a bug, in a crowd.
ALWAYS: tuple[type[SandgateError], ...] = (
    errors.MalformedRequest,
    errors.RequestTimeout,
    errors.HeadTooLarge,
    errors.SandgateError,
    errors.TooManyConnections,
)
WITH_CALLER: tuple[type[SandgateError], ...] = (
    errors.NotAuthenticated,
    errors.TooManyRequests,
    errors.TooManyRequestsAtOnce,
    errors.StoreUnavailable,
)
WITH_FIELDS: tuple[type[SandgateError], ...] = (errors.InvalidRequest,)
WITH_BODY: tuple[type[SandgateError], ...] = (
    errors.InvalidRequest,
    errors.PayloadTooLarge,
    errors.UnsupportedMediaType,
)
WITH_KEY: tuple[type[SandgateError], ...] = (
    errors.InvalidRequest,
    errors.IdempotencyKeyReused,
    errors.IdempotencyInProgress,
)

_TITLES = {
    400: "The request is not valid.",
    401: "No credential, or not a valid one.",
    403: "The caller may not do this.",
    404: "There is no such thing, or it is somebody else's.",
    405: "Not with this method.",
    408: "The request came too slowly.",
    409: "The state of things does not allow it.",
    413: "The body is too large.",
    415: "The body is of a type that is not read here.",
    416: "The wanted part begins after the end; `Content-Range` says where that is.",
    429: "Too many; `Retry-After` says when to ask again.",
    426: "Another protocol has to be asked for.",
    431: "The head of the request is too large.",
    500: "A bug; the log has the cause under the request id.",
    502: "What was asked inside an environment gives no answer that can be passed on.",
    503: "Something below is away; `Retry-After` says when to ask again.",
    504: "What was asked inside an environment does not answer in time.",
}

IDEMPOTENCY_PARAMETER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes it safe to send the request again: the same key and body give the first answer again for "
    "24 hours, and the same key with another body is 409. Secrets in a body do not count, and are null in an answer "
    "that is given again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]{1,255}$"},
}


REQUEST_ID_HEADER: dict[str, Any] = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}


class ErrorBody(Model):
    """What went wrong."""

    code: str
    message: str
    details: dict[str, Any]


class ErrorAnswer(Model):
    """The answer to every request that failed."""

    model_config = ConfigDict(title="Error")

    error: ErrorBody


def shared_components() -> dict[str, dict[str, Any]]:
    """What the answers of all operations refer to."""
    schema = ErrorAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = schema.pop("$defs")
    request_id = {
        "description": "The id that came with the request, or one that was made; it is in every log line.",
        "schema": {"type": "string"},
    }
    return {"schemas": {"Error": schema, **parts}, "headers": {"RequestId": request_id}}


def document_errors(kinds: Iterable[type[SandgateError]]) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of an operation that can fail in these ways: one entry a status, one example a code."""
    by_status: dict[int, dict[str, type[SandgateError]]] = {}
    for kind in kinds:
        by_status.setdefault(status_of(kind), {})[kind.code] = kind
    return {status: _document_status(status, by_code) for status, by_code in sorted(by_status.items())}


def _document_status(status: int, by_code: dict[str, type[SandgateError]]) -> dict[str, Any]:
    examples = {code: _document_code(kind) for code, kind in sorted(by_code.items())}
    answer: dict[str, Any] = {
        "description": _TITLES[status],
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}, "examples": examples}},
        "headers": dict(REQUEST_ID_HEADER),
    }
    if status in (429, 503):
        answer["headers"]["Retry-After"] = {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
    if status == 401:
        answer["headers"]["WWW-Authenticate"] = {"schema": {"type": "string"}}
    return answer


def _document_code(kind: type[SandgateError]) -> dict[str, Any]:
    first_paragraph = (inspect.getdoc(kind) or "").split("\n\n")[0]
    meaning = " ".join(first_paragraph.replace("``", "").split())
    return {"summary": meaning, "value": {"error": {"code": kind.code, "message": meaning, "details": {}}}}
