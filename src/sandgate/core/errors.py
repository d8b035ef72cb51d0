"""What can go wrong, in two of the three shapes.

The third shape, code of a user that went wrong, is no exception: it is a
:class:`sandgate.core.execution.Termination`.

Each refusal has a stable ``code`` that clients may match on. No class here knows an HTTP status:
one table in ``sandgate.http.problems`` maps classes to statuses and a test proves it total.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class SandgateError(Exception):
    """Base of everything that sandgate raises on purpose.

    ``message`` says what was tried, on what, what was found and what to do; ``details`` is a JSON object.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})


class RequestRefused(SandgateError):
    """The caller asked for something that is refused; asking again in the same way gets the same answer."""

    code = "REQUEST_REFUSED"


class InvalidRequest(RequestRefused):
    """Fields of a request are wrong; ``details`` is ``{"fields": [{"field", "problem"}]}``."""

    code = "VALIDATION_FAILED"

    @classmethod
    def for_fields(cls, problems: Sequence[tuple[str, str]]) -> "InvalidRequest":
        """Refuse with one entry for each (field, problem) pair."""
        named = "; ".join(f"{field}: {problem}" for field, problem in problems)
        fields = [{"field": field, "problem": problem} for field, problem in problems]
        return cls(f"The request is not valid: {named}", {"fields": fields})


class InvalidDefinition(RequestRefused):
    """A workflow's definition is wrong; ``details`` is ``{"problems": [{"pointer", "problem"}], "fields": […]}``.

    ``pointer`` is a JSON pointer (Source: RFC 6901) into the definition; ``fields`` says the same in the form of
    ``VALIDATION_FAILED``.
    """

    code = "WORKFLOW_INVALID"

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        first = "; ".join(f"{pointer or '/'}: {problem}" for pointer, problem in problems[:3])
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        details = {
            "problems": [{"pointer": pointer, "problem": problem} for pointer, problem in problems],
            "fields": [{"field": pointer or "/", "problem": problem} for pointer, problem in problems],
        }
        super().__init__(f"The definition is not valid: {first}{more}", details)
        self.problems = tuple(problems)


class ExpressionError(RequestRefused):
    """An expression of a workflow cannot be read or has no value; ``details`` has ``position``, counted from 0."""

    code = "EXPRESSION_INVALID"

    def __init__(self, problem: str, position: int) -> None:
        super().__init__(f"{problem} (at character {position + 1})", {"position": position})
        self.problem = problem
        self.position = position


class UnknownTemplate(RequestRefused):
    """No template has this name; ``details`` is ``{"template", "known": [names]}``."""

    code = "UNKNOWN_TEMPLATE"


class TemplateUnavailable(RequestRefused):
    """The template exists, but this machine cannot hold it; ``details`` has ``template`` and ``reason``."""

    code = "TEMPLATE_UNAVAILABLE"


class IsolationUnavailable(RequestRefused):
    """The isolation class that was asked for is not held by this server."""

    code = "ISOLATION_UNAVAILABLE"


class NotAuthenticated(RequestRefused):
    """No credential, or one that is malformed, expired, revoked or of a disabled user."""

    code = "NOT_AUTHENTICATED"


class InvalidCredentials(RequestRefused):
    """Name and password do not belong together; never says which of the two was wrong."""

    code = "INVALID_CREDENTIALS"


class Forbidden(RequestRefused):
    """The caller is known, but the role does not allow this."""

    code = "FORBIDDEN"


class NotFound(RequestRefused):
    """There is no such thing, or it belongs to somebody else; the two look alike on purpose."""

    code = "NOT_FOUND"


class EnvironmentNotFound(NotFound):
    """No environment of the caller has this id."""

    code = "ENVIRONMENT_NOT_FOUND"


class ExecutionNotFound(NotFound):
    """No execution of this environment has this id."""

    code = "EXECUTION_NOT_FOUND"


class TemplateNotFound(NotFound):
    """No template has this name (asked for by path)."""

    code = "TEMPLATE_NOT_FOUND"


class UserNotFound(NotFound):
    """No user has this id."""

    code = "USER_NOT_FOUND"


class ApiKeyNotFound(NotFound):
    """No API key of the caller has this id."""

    code = "API_KEY_NOT_FOUND"


class WorkflowNotFound(NotFound):
    """No workflow of the caller has this id."""

    code = "WORKFLOW_NOT_FOUND"


class RunNotFound(NotFound):
    """No run of the caller has this id, or the workflow has not been started yet."""

    code = "RUN_NOT_FOUND"


class MethodNotAllowed(RequestRefused):
    """The path exists, but not with this method; ``details`` has ``allowed``."""

    code = "METHOD_NOT_ALLOWED"


class Conflict(RequestRefused):
    """The state of the thing does not allow this now."""

    code = "CONFLICT"


class EnvironmentNotRunning(Conflict):
    """The environment has ended or failed; ``details`` has ``status`` and ``status_reason``."""

    code = "ENVIRONMENT_NOT_RUNNING"


class ExecutionNotRunning(Conflict):
    """The execution has already ended; ``details`` has ``status``."""

    code = "EXECUTION_NOT_RUNNING"


class WorkflowRunning(Conflict):
    """Runs of the workflow have not ended; ``details`` has ``run_ids``, some of them."""

    code = "WORKFLOW_RUNNING"


class WorkflowChanged(Conflict):
    """Somebody else has just made another version of the workflow."""

    code = "WORKFLOW_CHANGED"


class RunEnded(Conflict):
    """The run has already ended; ``details`` has ``status``."""

    code = "RUN_ENDED"


class StepNotWaiting(Conflict):
    """The step does not wait for anybody's approval; ``details`` has ``status``, None when there is no such step."""

    code = "STEP_NOT_WAITING"


class UserNameTaken(Conflict):
    """Another user has this name."""

    code = "USER_NAME_TAKEN"


class LastAdmin(Conflict):
    """The change would leave the server without an enabled admin."""

    code = "LAST_ADMIN"


class IdempotencyKeyReused(Conflict):
    """The key was used before with another request."""

    code = "IDEMPOTENCY_KEY_REUSED"


class IdempotencyInProgress(Conflict):
    """The first request with this key has not been answered yet."""

    code = "IDEMPOTENCY_IN_PROGRESS"


class PayloadTooLarge(RequestRefused):
    """The body is larger than the setting allows; ``details`` has ``limit_bytes``."""

    code = "PAYLOAD_TOO_LARGE"


class CodeTooLarge(PayloadTooLarge):
    """The code is larger than the setting allows; ``details`` has ``limit_bytes``."""

    code = "CODE_TOO_LARGE"


class UnsupportedMediaType(RequestRefused):
    """The body is of a type that this path does not read; ``details`` has ``supported``."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class RequestTimeout(RequestRefused):
    """The client took too long to send its request; ``details`` has ``limit_s``."""

    code = "REQUEST_TIMEOUT"


class HeadTooLarge(RequestRefused):
    """The head of the request is larger than the server reads; ``details`` has ``limit_bytes``."""

    code = "HEAD_TOO_LARGE"


class MalformedRequest(RequestRefused):
    """What arrived cannot be read as one request."""

    code = "MALFORMED_REQUEST"


class TooManyRequests(RequestRefused):
    """A rate or a count is over its limit; ``retry_after_s`` says when asking again may help."""

    code = "RATE_LIMITED"

    def __init__(self, message: str, details: Mapping[str, Any] | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message, details)
        self.retry_after_s = retry_after_s


class TooManyLoginAttempts(TooManyRequests):
    """Failed logins of this name or address are slowed down."""

    code = "TOO_MANY_LOGIN_ATTEMPTS"


class TooManyEnvironments(TooManyRequests):
    """The user or the server holds as many live environments as the setting allows."""

    code = "TOO_MANY_ENVIRONMENTS"


class TooManyExecutions(TooManyRequests):
    """The environment runs and queues as many executions as the setting allows."""

    code = "TOO_MANY_EXECUTIONS"


class TooManyRuns(TooManyRequests):
    """The server works on as many runs as the setting allows."""

    code = "TOO_MANY_RUNS"


class MechanismFault(SandgateError):
    """A mechanism below broke: the request was right, the service could not do it."""

    code = "MECHANISM_FAULT"


class LauncherUnavailable(MechanismFault):
    """The launcher does not answer; it is being started again."""

    code = "LAUNCHER_UNAVAILABLE"


class SandboxFailed(MechanismFault):
    """A sandbox could not be made, or died; ``details`` may have ``reason``."""

    code = "SANDBOX_FAILED"


class StoreUnavailable(MechanismFault):
    """The database does not answer or refuses to write."""

    code = "STORE_UNAVAILABLE"


class ServiceDraining(MechanismFault):
    """The service is stopping and takes no new work."""

    code = "SERVICE_DRAINING"


class TooManyConnections(MechanismFault):
    """The server holds as many connections as the setting allows."""

    code = "TOO_MANY_CONNECTIONS"


class NotReady(MechanismFault):
    """The service cannot do its work now; ``details`` has ``missing``, a reason for each part that does not answer."""

    code = "NOT_READY"


class ConfigurationError(SandgateError):
    """A setting is unknown, out of range, or does not fit this machine; the server does not start."""

    code = "CONFIGURATION_ERROR"
