"""Refusals about environments, executions and templates."""

from sandgate.core.errors.base import Conflict, NotFound, RequestRefused, TooManyRequests
from sandgate.core.errors.requests import PayloadTooLarge


class UnknownTemplate(RequestRefused):
    """No template has this name; ``details`` is ``{"template", "known": [names]}``."""

    code = "UNKNOWN_TEMPLATE"


class TemplateUnavailable(RequestRefused):
    """The template exists, but this machine cannot hold it; ``details`` has ``template`` and ``reason``."""

    code = "TEMPLATE_UNAVAILABLE"


class UnknownLanguage(RequestRefused):
    """The template knows no such language; ``details`` is ``{"language", "known": [names]}``."""

    code = "UNKNOWN_LANGUAGE"


class IsolationUnavailable(RequestRefused):
    """The isolation class that was asked for is not held by this server."""

    code = "ISOLATION_UNAVAILABLE"


class PauseUnavailable(RequestRefused):
    """Environments of this isolation class cannot be paused on this server; ``details`` has ``isolation``."""

    code = "PAUSE_UNAVAILABLE"


class LimitTooHigh(RequestRefused):
    """Limits above their ceilings; ``details`` has ``limits`` (``{name: {"asked", "ceiling"}}``) and ``scope``."""

    code = "LIMIT_TOO_HIGH"


class EnvironmentNotFound(NotFound):
    """No environment of the caller has this id."""

    code = "ENVIRONMENT_NOT_FOUND"


class ExecutionNotFound(NotFound):
    """No execution of this environment has this id."""

    code = "EXECUTION_NOT_FOUND"


class TemplateNotFound(NotFound):
    """No template has this name (asked for by path)."""

    code = "TEMPLATE_NOT_FOUND"


class SessionNotFound(NotFound):
    """No session of this environment has this id."""

    code = "SESSION_NOT_FOUND"


class SessionEnded(Conflict):
    """The session's interpreter is gone; ``details`` has ``session_id`` and ``status_reason``. Restart the session."""

    code = "SESSION_ENDED"


class ProcessNotFound(NotFound):
    """No process of this environment has this id, or its end was too long ago."""

    code = "PROCESS_NOT_FOUND"


class ProcessNotRunning(Conflict):
    """The process has ended; ``details`` has ``status``."""

    code = "PROCESS_NOT_RUNNING"


class ProcessTakesNoInput(Conflict):
    """The process was started without standard input, or has closed it."""

    code = "PROCESS_TAKES_NO_INPUT"


class ProcessHasNoTerminal(Conflict):
    """The process was started without a terminal."""

    code = "PROCESS_HAS_NO_TERMINAL"


class ProcessStuck(Conflict):
    """What was said to the process before has not been taken; it can only be killed. ``details`` has ``waiting``."""

    code = "PROCESS_STUCK"


class EnvironmentNotRunning(Conflict):
    """The environment has ended or failed; ``details`` has ``status`` and ``status_reason``."""

    code = "ENVIRONMENT_NOT_RUNNING"


class EnvironmentElsewhere(Conflict):
    """The environment is on another server that shares the database; ``details`` has ``server_id``."""

    code = "ENVIRONMENT_ELSEWHERE"


class ExecutionNotRunning(Conflict):
    """The execution has already ended; ``details`` has ``status``."""

    code = "EXECUTION_NOT_RUNNING"


class CodeTooLarge(PayloadTooLarge):
    """The code is larger than the setting allows; ``details`` has ``limit_bytes``."""

    code = "CODE_TOO_LARGE"


class ExecutionInputTooLarge(PayloadTooLarge):
    """What comes with the code is larger than the setting allows; ``details`` has ``limit_bytes``."""

    code = "EXECUTION_INPUT_TOO_LARGE"


class EnvironmentVariablesTooLarge(PayloadTooLarge):
    """The variables of an environment are larger than the setting allows; ``details`` has ``limit_bytes``."""

    code = "ENVIRONMENT_VARIABLES_TOO_LARGE"


class TooManyExecutionFiles(RequestRefused):
    """More files come with the code than the setting allows; ``details`` has ``limit``."""

    code = "TOO_MANY_EXECUTION_FILES"


class TooManyEnvironments(TooManyRequests):
    """The user or the server holds as many live environments as the setting allows."""

    code = "TOO_MANY_ENVIRONMENTS"


class MemoryQuotaExceeded(TooManyRequests):
    """The user's live environments would have more memory than allowed; ``details`` has limit, used and asked."""

    code = "MEMORY_QUOTA_EXCEEDED"


class ExecutionQuotaExceeded(TooManyRequests):
    """The user runs, or has run today, as many executions as allowed; ``details`` has limit, used and ``scope``."""

    code = "EXECUTION_QUOTA_EXCEEDED"


class TooManySessions(TooManyRequests):
    """The environment, or the user, has as many sessions as the setting allows; ``details`` has ``limit``."""

    code = "TOO_MANY_SESSIONS"


class SessionBusy(TooManyRequests):
    """As many executions wait in the session as the setting allows; ``details`` has ``limit``."""

    code = "SESSION_BUSY"


class TooManyProcesses(TooManyRequests):
    """The environment, or the user, has as many processes as are allowed; ``details`` has ``limit`` and ``scope``."""

    code = "TOO_MANY_PROCESSES"


class TooManyExecutions(TooManyRequests):
    """The environment or the server runs and queues as many executions as may be.

    ``details`` has ``limit``, and for the server ``used`` and ``scope``.
    """

    code = "TOO_MANY_EXECUTIONS"
