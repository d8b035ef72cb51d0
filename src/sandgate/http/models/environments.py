"""What clients get to read about environments, executions and templates."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from sandgate.core.environment import Environment
from sandgate.core.execution import ErrorReport, Execution, Usage
from sandgate.core.limits import MIB, Limits
from sandgate.core.states import EnvironmentStatus, ExecutionStatus, Isolation
from sandgate.core.template import Template
from sandgate.http.models.parts import Cursor, with_example

_ENVIRONMENT_ID = "env-06evrhxq8g000wmabyzsqnd3wf"
_EXECUTION_ID = "exec-06evrhxr2g000r2s7n0cymq3kd"
_USER_ID = "user-06evrhwp4g000e8v0zrc4v1m6h"
_TIME = "2026-01-01T00:00:00Z"
_LATER = "2026-01-01T01:00:00Z"

_LIMITS = {"memory_mb": 512, "cpu": 1.0, "processes": 64, "disk_mb": 256}
_ENVIRONMENT = {
    "environment_id": _ENVIRONMENT_ID,
    "status": "creating",
    "creation_time": _TIME,
    "name": "test-env",
    "template": "python-3.9",
    "timeout": 3600,
    "expires_at": _LATER,
    "isolation": "standard",
    "metadata": {},
    "status_reason": None,
    "ended_at": None,
    "owner_id": _USER_ID,
    "limits": _LIMITS,
}
_EXECUTION = {
    "execution_id": _EXECUTION_ID,
    "environment_id": _ENVIRONMENT_ID,
    "status": "completed",
    "stdout": "Hello, World!\n",
    "stderr": "",
    "exit_code": 0,
    "error": None,
    "duration_ms": 2,
    "stdout_truncated": False,
    "stderr_truncated": False,
    "usage": {"cpu_ms": 1, "peak_memory_bytes": 9437184},
    "isolation": "standard",
    "timeout": 30.0,
    "started_at": _TIME,
    "finished_at": _TIME,
}
_TEMPLATE = {
    "name": "python-3.9",
    "language": "python",
    "language_version": "3.9.20",
    "available": True,
    "unavailable_reason": None,
    "limits": _LIMITS,
    "isolation": "standard",
    "isolations": ["standard", "gvisor"],
}


class LimitsAnswer(BaseModel):
    """Ceilings of an environment; `cpu` is in cores."""

    memory_mb: int
    cpu: float
    processes: int
    disk_mb: int

    @classmethod
    def of(cls, limits: Limits) -> "LimitsAnswer":
        """From the record."""
        return cls(
            memory_mb=limits.memory_bytes // MIB,
            cpu=limits.cpu_millis / 1000,
            processes=limits.processes,
            disk_mb=limits.disk_bytes // MIB,
        )


class EnvironmentAnswer(BaseModel):
    """An environment."""

    model_config = with_example(_ENVIRONMENT)

    environment_id: str
    status: EnvironmentStatus
    creation_time: datetime
    name: str
    template: str
    timeout: Annotated[int, Field(description="Lifetime in seconds.")]
    expires_at: datetime
    isolation: Isolation
    metadata: dict[str, str]
    status_reason: str | None
    ended_at: datetime | None
    owner_id: str
    limits: LimitsAnswer

    @classmethod
    def of(cls, row: Environment) -> "EnvironmentAnswer":
        """From the record."""
        return cls(
            environment_id=row.environment_id,
            status=row.status,
            creation_time=row.created_at,
            name=row.name,
            template=row.template,
            timeout=row.timeout_s,
            expires_at=row.expires_at,
            isolation=row.isolation,
            metadata=row.metadata,
            status_reason=row.status_reason,
            ended_at=row.ended_at,
            owner_id=row.owner_id,
            limits=LimitsAnswer.of(row.limits),
        )


class EnvironmentsAnswer(BaseModel):
    """A page of environments, newest first."""

    model_config = with_example({"environments": [_ENVIRONMENT], "next_cursor": None})

    environments: list[EnvironmentAnswer]
    next_cursor: Cursor


class EnvironmentDeletedAnswer(BaseModel):
    """Nothing of the environment runs any more."""

    model_config = with_example({"environment_id": _ENVIRONMENT_ID, "status": "terminated"})

    environment_id: str
    status: Literal["terminated"] = "terminated"


class ExecutionErrorAnswer(BaseModel):
    """How the code went wrong: the exception, or `NonZeroExit`, `SystemExit`, `Signal`."""

    name: str
    value: str
    traceback: str

    @classmethod
    def of(cls, error: ErrorReport) -> "ExecutionErrorAnswer":
        """From the record."""
        return cls(name=error.name, value=error.value, traceback=error.traceback)


class UsageAnswer(BaseModel):
    """What the execution used."""

    cpu_ms: int
    peak_memory_bytes: int

    @classmethod
    def of(cls, usage: Usage) -> "UsageAnswer":
        """From the record."""
        return cls(cpu_ms=usage.cpu_ms, peak_memory_bytes=usage.peak_memory_bytes)


class ExecutionAnswer(BaseModel):
    """An execution. Code that fails is no error of the service: see `status`, `exit_code` and `error`."""

    model_config = with_example(_EXECUTION)

    execution_id: str
    environment_id: str
    status: ExecutionStatus
    stdout: str
    stderr: str
    exit_code: int | None
    error: ExecutionErrorAnswer | None
    duration_ms: int | None
    stdout_truncated: bool
    stderr_truncated: bool
    usage: UsageAnswer | None
    isolation: Isolation
    timeout: float
    started_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, row: Execution, isolation: Isolation) -> "ExecutionAnswer":
        """From the record, and the class of its environment."""
        return cls(
            execution_id=row.execution_id,
            environment_id=row.environment_id,
            status=row.status,
            stdout=row.stdout,
            stderr=row.stderr,
            exit_code=row.exit_code,
            error=None if row.error is None else ExecutionErrorAnswer.of(row.error),
            duration_ms=row.duration_ms,
            stdout_truncated=row.stdout_truncated,
            stderr_truncated=row.stderr_truncated,
            usage=None if row.usage is None else UsageAnswer.of(row.usage),
            isolation=isolation,
            timeout=row.timeout_s,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )


class ExecutionsAnswer(BaseModel):
    """A page of executions, newest first."""

    model_config = with_example({"executions": [_EXECUTION], "next_cursor": None})

    executions: list[ExecutionAnswer]
    next_cursor: Cursor


class TemplateAnswer(BaseModel):
    """What environments can be made from; `isolations` are the classes that they can have."""

    model_config = with_example(_TEMPLATE)

    name: str
    language: str
    language_version: str
    available: bool
    unavailable_reason: str | None
    limits: LimitsAnswer
    isolation: Annotated[Isolation | None, Field(description="The class of environments that ask for none.")]
    isolations: list[Isolation]

    @classmethod
    def of(cls, template: Template) -> "TemplateAnswer":
        """From the record."""
        return cls(
            name=template.name,
            language=template.language,
            language_version=template.language_version,
            available=template.available,
            unavailable_reason=template.unavailable_reason,
            limits=LimitsAnswer.of(template.limits),
            isolation=template.isolation,
            isolations=list(template.isolations),
        )


class TemplatesAnswer(BaseModel):
    """All templates by name; there are few, so that one page holds them."""

    model_config = with_example({"templates": [_TEMPLATE], "next_cursor": None})

    templates: list[TemplateAnswer]
    next_cursor: Cursor = None
