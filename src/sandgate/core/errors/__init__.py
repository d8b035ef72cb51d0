"""What can go wrong, in two of the three shapes.

The third shape, code of a user that went wrong, is no exception: it is a
:class:`sandgate.core.execution.Termination`.

Each refusal has a stable ``code`` that clients may match on. No class here knows an HTTP status:
one table in ``sandgate.http.problems`` maps classes to statuses and a test proves it total.
"""

from sandgate.core.errors.accounts import (
    ApiKeyNotFound,
    Forbidden,
    InvalidCredentials,
    LastAdmin,
    NotAuthenticated,
    TooManyLoginAttempts,
    UserNameTaken,
    UserNotFound,
)
from sandgate.core.errors.base import (
    ConfigurationError,
    Conflict,
    MechanismFault,
    NotFound,
    RequestRefused,
    SandgateError,
    TooManyRequests,
)
from sandgate.core.errors.environments import (
    CodeTooLarge,
    EnvironmentNotFound,
    EnvironmentNotRunning,
    ExecutionNotFound,
    ExecutionNotRunning,
    IsolationUnavailable,
    TemplateNotFound,
    TemplateUnavailable,
    TooManyEnvironments,
    TooManyExecutions,
    UnknownTemplate,
)
from sandgate.core.errors.faults import (
    LauncherUnavailable,
    NotReady,
    SandboxFailed,
    ServiceDraining,
    StoreUnavailable,
    TooManyConnections,
)
from sandgate.core.errors.requests import (
    HeadTooLarge,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InvalidRequest,
    MalformedRequest,
    MethodNotAllowed,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)
from sandgate.core.errors.workflows import (
    ExpressionError,
    InvalidDefinition,
    RunEnded,
    RunNotFound,
    StepNotWaiting,
    TooManyRuns,
    WorkflowChanged,
    WorkflowNotFound,
    WorkflowRunning,
)

__all__ = [
    "ApiKeyNotFound",
    "CodeTooLarge",
    "ConfigurationError",
    "Conflict",
    "EnvironmentNotFound",
    "EnvironmentNotRunning",
    "ExecutionNotFound",
    "ExecutionNotRunning",
    "ExpressionError",
    "Forbidden",
    "HeadTooLarge",
    "IdempotencyInProgress",
    "IdempotencyKeyReused",
    "InvalidCredentials",
    "InvalidDefinition",
    "InvalidRequest",
    "IsolationUnavailable",
    "LastAdmin",
    "LauncherUnavailable",
    "MalformedRequest",
    "MechanismFault",
    "MethodNotAllowed",
    "NotAuthenticated",
    "NotFound",
    "NotReady",
    "PayloadTooLarge",
    "RequestRefused",
    "RequestTimeout",
    "RunEnded",
    "RunNotFound",
    "SandboxFailed",
    "SandgateError",
    "ServiceDraining",
    "StepNotWaiting",
    "StoreUnavailable",
    "TemplateNotFound",
    "TemplateUnavailable",
    "TooManyConnections",
    "TooManyEnvironments",
    "TooManyExecutions",
    "TooManyLoginAttempts",
    "TooManyRequests",
    "TooManyRuns",
    "UnknownTemplate",
    "UnsupportedMediaType",
    "UserNameTaken",
    "UserNotFound",
    "WorkflowChanged",
    "WorkflowNotFound",
    "WorkflowRunning",
]
