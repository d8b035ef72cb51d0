"""What clients get to read about environments and executions."""

from datetime import datetime
from typing import Annotated, Literal

import orjson
from pydantic import Field, JsonValue

from sandgate.core.environment import Environment
from sandgate.core.execution import ErrorReport, Execution, Usage
from sandgate.core.limits import MIB, Limits
from sandgate.core.session import Bundle, is_json_type
from sandgate.core.states import EnvironmentStatus, ExecutionStatus, Isolation, OnTimeout
from sandgate.http.models.base import Model
from sandgate.http.models.network import NetworkGiven
from sandgate.http.models.parts import Cursor, with_example
from sandgate.http.models.volumes import MountedAnswer

_ENVIRONMENT_ID = "env-06evrhxq8g000wmabyzsqnd3wf"
_EXECUTION_ID = "exec-06evrhxr2g000r2s7n0cymq3kd"
_USER_ID = "user-06evrhwp4g000e8v0zrc4v1m6h"
_TIME = "2026-01-01T00:00:00Z"
_LATER = "2026-01-01T01:00:00Z"

LIMITS_EXAMPLE = {"memory_mb": 512, "cpu": 1.0, "processes": 64, "disk_mb": 256}
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
    "limits": LIMITS_EXAMPLE,
    "network": None,
    "env": {},
    "secrets": [],
    "on_timeout": "delete",
    "idle_timeout": None,
    "paused_at": None,
    "snapshot_id": None,
    "forked_from": None,
    "volumes": [],
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
    "session_id": None,
    "results": None,
    "results_truncated": False,
}


class LimitsAnswer(Model):
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


class EnvironmentAnswer(Model):
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
    network: Annotated[NetworkGiven | None, Field(description="What code may reach; null: nothing.")]
    env: Annotated[dict[str, str], Field(description="Environment variables of all code in it.")]
    secrets: Annotated[list[str], Field(description="Names of secrets that its owner's code finds as variables.")]
    on_timeout: OnTimeout
    idle_timeout: Annotated[int | None, Field(description="It is paused when unused for so many seconds.")]
    paused_at: datetime | None
    snapshot_id: Annotated[str | None, Field(description="The snapshot that it began with.")]
    forked_from: Annotated[str | None, Field(description="The environment that it began as a copy of.")]
    volumes: list[MountedAnswer]

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
            network=NetworkGiven.of(row.network),
            env=dict(row.variables.env),
            secrets=list(row.variables.secrets),
            on_timeout=row.on_timeout,
            idle_timeout=row.idle_timeout_s,
            paused_at=row.paused_at,
            snapshot_id=row.snapshot_id,
            forked_from=row.forked_from,
            volumes=list(map(MountedAnswer.of, row.volumes)),
        )


class EnvironmentsAnswer(Model):
    """A page of environments, newest first."""

    model_config = with_example({"environments": [_ENVIRONMENT], "next_cursor": None})

    environments: list[EnvironmentAnswer]
    next_cursor: Cursor


class ForkAnswer(Model):
    """The copies; each may be used at once."""

    model_config = with_example({"environments": [_ENVIRONMENT]})

    environments: list[EnvironmentAnswer]


class EnvironmentDeletedAnswer(Model):
    """Nothing of the environment runs any more."""

    model_config = with_example({"environment_id": _ENVIRONMENT_ID, "status": "terminated"})

    environment_id: str
    status: Literal["terminated"] = "terminated"


class ExecutionErrorAnswer(Model):
    """How the code went wrong: the exception, or `NonZeroExit`, `SystemExit`, `Signal`."""

    name: str
    value: str
    traceback: str

    @classmethod
    def of(cls, error: ErrorReport) -> "ExecutionErrorAnswer":
        """From the record."""
        return cls(name=error.name, value=error.value, traceback=error.traceback)


class UsageAnswer(Model):
    """What all processes of the execution used, as the kernel counts it."""

    cpu_ms: int
    peak_memory_bytes: Annotated[
        int,
        Field(
            description="The most that the environment held while it ran, files and what ran beside it included. "
            "In the isolation class `process`: the largest process."
        ),
    ]

    @classmethod
    def of(cls, usage: Usage) -> "UsageAnswer":
        """From the record."""
        return cls(cpu_ms=usage.cpu_ms, peak_memory_bytes=usage.peak_memory_bytes)


ResultAnswer = Annotated[
    dict[str, JsonValue],
    Field(description="Texts by their MIME types; of bytes as base64, and of `application/json` the value."),
]


def render_bundle(bundle: Bundle) -> dict[str, JsonValue]:
    """From the record, where a value of JSON is its text."""
    return {kind: orjson.loads(text) if is_json_type(kind) else text for kind, text in bundle.items()}


class ExecutionAnswer(Model):
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
    session_id: Annotated[str | None, Field(description="The session that it ran in.")]
    results: Annotated[
        list[ResultAnswer] | None,
        Field(description="What it has shown in its session, the value of its last expression among it."),
    ]
    results_truncated: bool

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
            session_id=row.session_id,
            results=None if row.results is None else [render_bundle(bundle) for bundle in row.results],
            results_truncated=row.results_truncated,
        )


class ExecutionsAnswer(Model):
    """A page of executions, newest first."""

    model_config = with_example({"executions": [_EXECUTION], "next_cursor": None})

    executions: list[ExecutionAnswer]
    next_cursor: Cursor
