"""What can go wrong, as HTTP: one table from error classes to statuses, and one form of answer."""

import math
from collections.abc import Mapping
from typing import Any

import orjson

from sandgate.core import errors
from sandgate.core.errors import (
    MethodNotAllowed,
    NotAuthenticated,
    RangeNotSatisfiable,
    SandgateError,
    TooManyRequests,
    UpgradeRequired,
)
from sandgate.http.answer import Answer, Header

STATUSES: Mapping[type[SandgateError], int] = {
    errors.SandgateError: 500,
    errors.RequestRefused: 400,
    errors.InvalidRequest: 400,
    errors.MalformedRequest: 400,
    errors.InvalidDefinition: 400,
    errors.ExpressionError: 400,
    errors.UnknownTemplate: 400,
    errors.UnknownLanguage: 400,
    errors.TemplateUnavailable: 400,
    errors.IsolationUnavailable: 400,
    errors.LimitTooHigh: 400,
    errors.PauseUnavailable: 400,
    errors.SnapshotUnfit: 400,
    errors.SnapshotUnavailable: 400,
    errors.VolumesUnavailable: 400,
    errors.TooManyExecutionFiles: 400,
    errors.NetworkNotOffered: 400,
    errors.TooManyNetworkRules: 400,
    errors.ArchiveInvalid: 400,
    errors.PatternInvalid: 400,
    errors.NotAuthenticated: 401,
    errors.InvalidCredentials: 401,
    errors.Forbidden: 403,
    errors.ForeignOrigin: 403,
    errors.NotFound: 404,
    errors.EnvironmentNotFound: 404,
    errors.ExecutionNotFound: 404,
    errors.ProcessNotFound: 404,
    errors.TemplateNotFound: 404,
    errors.VolumeNotFound: 404,
    errors.SessionNotFound: 404,
    errors.SnapshotNotFound: 404,
    errors.UserNotFound: 404,
    errors.WorkflowNotFound: 404,
    errors.RunNotFound: 404,
    errors.StepNotFound: 404,
    errors.SecretNotFound: 404,
    errors.ArtifactNotFound: 404,
    errors.ScheduleNotFound: 404,
    errors.WebhookNotFound: 404,
    errors.HookNotFound: 404,
    errors.FileLinkNotFound: 404,
    errors.PortLinkNotFound: 404,
    errors.ApiKeyNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.RequestTimeout: 408,
    errors.Conflict: 409,
    errors.EnvironmentNotRunning: 409,
    errors.EnvironmentElsewhere: 409,
    errors.SnapshotElsewhere: 409,
    errors.PortNotServed: 409,
    errors.VolumeNameTaken: 409,
    errors.VolumeQuotaExceeded: 409,
    errors.VolumeInUse: 409,
    errors.VolumeElsewhere: 409,
    errors.ExecutionNotRunning: 409,
    errors.SessionEnded: 409,
    errors.ProcessNotRunning: 409,
    errors.ProcessTakesNoInput: 409,
    errors.ProcessHasNoTerminal: 409,
    errors.ProcessStuck: 409,
    errors.WorkflowRunning: 409,
    errors.WorkflowChanged: 409,
    errors.RunEnded: 409,
    errors.RunLive: 409,
    errors.RunSucceeded: 409,
    errors.StepNotWaiting: 409,
    errors.TooManySecrets: 409,
    errors.UserNameTaken: 409,
    errors.LastAdmin: 409,
    errors.IdempotencyKeyReused: 409,
    errors.IdempotencyInProgress: 409,
    errors.TemplateNameTaken: 409,
    errors.TemplateInUse: 409,
    errors.NoUploadAwaited: 409,
    errors.PayloadTooLarge: 413,
    errors.RecipeTooLarge: 413,
    errors.CodeTooLarge: 413,
    errors.EnvironmentVariablesTooLarge: 413,
    errors.FileTooLarge: 413,
    errors.ArchiveTooLarge: 413,
    errors.SnapshotTooLarge: 413,
    errors.DiskFull: 413,
    errors.FilesUnavailable: 503,
    errors.FileMissing: 404,
    errors.FileConflict: 409,
    errors.FileForbidden: 403,
    errors.PathInvalid: 400,
    errors.ExecutionInputTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.RangeNotSatisfiable: 416,
    errors.UpgradeRequired: 426,
    errors.TooManyRequests: 429,
    errors.TooManyLoginAttempts: 429,
    errors.TooManyEnvironments: 429,
    errors.TooManyExecutions: 429,
    errors.TooManySessions: 429,
    errors.TooManySnapshots: 429,
    errors.SessionBusy: 429,
    errors.TooManyProcesses: 429,
    errors.MemoryQuotaExceeded: 429,
    errors.ExecutionQuotaExceeded: 429,
    errors.TooManyRuns: 429,
    errors.TooManyWorkflows: 429,
    errors.TooManyStreams: 429,
    errors.TooManyRequestsAtOnce: 429,
    errors.TooManyUnreadAnswers: 429,
    errors.TooManyTriggers: 429,
    errors.TooManyPortConnections: 429,
    errors.TooManyDeliveries: 429,
    errors.TooManyTemplates: 429,
    errors.TooManyLiveTemplates: 429,
    errors.TooManyBuilds: 429,
    errors.HeadTooLarge: 431,
    errors.MechanismFault: 500,
    errors.ConfigurationError: 500,
    errors.PortAnswerInvalid: 502,
    errors.PortTimeout: 504,
    errors.LauncherUnavailable: 503,
    errors.SandboxFailed: 503,
    errors.StoreUnavailable: 503,
    errors.SecretUnreadable: 503,
    errors.SnapshotUnreadable: 503,
    errors.NetworkUnavailable: 503,
    errors.ServiceDraining: 503,
    errors.TooManyConnections: 503,
    errors.NotReady: 503,
}

# When asking again may help after a mechanism was away: it is restarted within about this time.
_RETRY_AFTER_S = 1


def status_of(kind: type[SandgateError]) -> int:
    """The status of an error class; of one that the table lacks, that of its nearest ancestor."""
    return next(STATUSES[ancestor] for ancestor in kind.__mro__ if ancestor in STATUSES)


def render_problem(error: SandgateError, request_id: str) -> Answer:
    """The answer to a request that failed with ``error``. A status of 500 tells nothing of the inside."""
    status = status_of(type(error))
    if status == 500:
        return render_internal_error(request_id)
    body = error_body(error.code, error.message, error.details)
    return Answer(status, body, headers=_headers(error, status))


def render_internal_error(request_id: str) -> Answer:
    """The answer to a request that met a bug."""
    message = f"The service failed to answer; its log has the cause under request id {request_id}"
    return Answer(500, error_body(SandgateError.code, message, {"request_id": request_id}))


def error_body(code: str, message: str, details: Mapping[str, Any]) -> bytes:
    """The JSON of an error."""
    return orjson.dumps({"error": {"code": code, "message": message, "details": dict(details)}})


def _headers(error: SandgateError, status: int) -> tuple[Header, ...]:
    if isinstance(error, TooManyRequests):
        return ((b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode()),)
    if status == 503:
        return ((b"retry-after", str(_RETRY_AFTER_S).encode()),)
    if isinstance(error, NotAuthenticated):
        return ((b"www-authenticate", b'Bearer realm="sandgate"'),)
    if isinstance(error, UpgradeRequired):
        return ((b"upgrade", b"websocket"), (b"sec-websocket-version", b"13"))
    if isinstance(error, RangeNotSatisfiable):
        return ((b"content-range", f"bytes */{error.details.get('size_bytes', '*')}".encode()),)
    if isinstance(error, MethodNotAllowed):
        return ((b"allow", ", ".join(error.details.get("allowed", ())).encode()),)
    return ()
