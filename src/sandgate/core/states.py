"""The life of every noun as one transition table each. Stores write only what these tables allow."""

from collections.abc import Mapping
from enum import StrEnum


class EnvironmentStatus(StrEnum):
    """Where an environment is in its life."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSED = "paused"
    TERMINATED = "terminated"
    FAILED = "failed"
    EXPIRED = "expired"


class OnTimeout(StrEnum):
    """What becomes of an environment at the end of its lifetime."""

    DELETE = "delete"
    PAUSE = "pause"


class ExecutionStatus(StrEnum):
    """``running``, or how an execution ended."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_LIMIT = "output_limit"
    CANCELLED = "cancelled"
    LOST = "lost"


class TemplateStatus(StrEnum):
    """How far a template has come that is built from a recipe."""

    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


class Isolation(StrEnum):
    """How strong the wall around an environment is; see docs/security.md."""

    STANDARD = "standard"
    GVISOR = "gvisor"
    PROCESS = "process"


_ENDED = frozenset({EnvironmentStatus.TERMINATED, EnvironmentStatus.FAILED, EnvironmentStatus.EXPIRED})

ENVIRONMENT_TRANSITIONS: Mapping[EnvironmentStatus, frozenset[EnvironmentStatus]] = {
    EnvironmentStatus.CREATING: frozenset({EnvironmentStatus.RUNNING}) | _ENDED,
    EnvironmentStatus.RUNNING: frozenset({EnvironmentStatus.PAUSED}) | _ENDED,
    EnvironmentStatus.PAUSED: frozenset({EnvironmentStatus.RUNNING}) | _ENDED,
    # What has ended by itself, or with the service, can still be deleted by its owner.
    EnvironmentStatus.EXPIRED: frozenset({EnvironmentStatus.TERMINATED}),
    EnvironmentStatus.FAILED: frozenset({EnvironmentStatus.TERMINATED}),
    EnvironmentStatus.TERMINATED: frozenset({EnvironmentStatus.TERMINATED}),
}

LIVE_ENVIRONMENT_STATUSES = frozenset({EnvironmentStatus.CREATING, EnvironmentStatus.RUNNING, EnvironmentStatus.PAUSED})

EXECUTION_TRANSITIONS: Mapping[ExecutionStatus, frozenset[ExecutionStatus]] = {
    status: frozenset(set(ExecutionStatus) - {ExecutionStatus.RUNNING})
    if status is ExecutionStatus.RUNNING
    else frozenset()
    for status in ExecutionStatus
}

TEMPLATE_TRANSITIONS: Mapping[TemplateStatus, frozenset[TemplateStatus]] = {
    TemplateStatus.BUILDING: frozenset({TemplateStatus.READY, TemplateStatus.FAILED}),
    # One whose files are gone.
    TemplateStatus.READY: frozenset({TemplateStatus.FAILED}),
    TemplateStatus.FAILED: frozenset(),
}


def sources_of(target: EnvironmentStatus) -> frozenset[EnvironmentStatus]:
    """The statuses from which an environment may go to ``target``."""
    return frozenset(source for source, targets in ENVIRONMENT_TRANSITIONS.items() if target in targets)
