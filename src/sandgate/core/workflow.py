"""A workflow's definition, parsed and checked: what the engine works from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sandgate.core.ids import UserId, WorkflowId

Json = Any
"""A value of JSON: None, bool, int, float, str, list or dict."""


class StepType(StrEnum):
    """What a step does."""

    CODE_EXECUTION = "code_execution"
    HTTP = "http"
    SLEEP = "sleep"
    APPROVAL = "approval"
    WORKFLOW = "workflow"


class InputType(StrEnum):
    """What an input must be."""

    STRING = "string"
    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    OBJECT = "object"
    ARRAY = "array"


@dataclass(frozen=True, slots=True)
class InputDefinition:
    """An input of a workflow. ``default`` holds when ``has_default``."""

    type: InputType
    required: bool = False
    has_default: bool = False
    default: Json = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a step is tried again: ``max_attempts`` in all, for endings named in ``on``.

    The wait before attempt n is ``min(max_delay_s, delay_s * backoff ** (n - 2))``.
    """

    max_attempts: int = 1
    delay_s: float = 0.0
    backoff: float = 2.0
    max_delay_s: float = 300.0
    on: frozenset[str] = frozenset({"failed", "timed_out", "out_of_memory", "lost"})


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """One step. Texts may hold ``${{ … }}`` expressions where the guide says so; ``config.code`` never does.

    ``needs`` is complete: a step that left it out has the step before it here. ``condition`` and ``foreach`` are the
    text of one expression each, without its braces.
    """

    name: str
    type: StepType
    needs: tuple[str, ...]
    config: Mapping[str, Json]
    condition: str | None = None
    foreach: Json = None
    max_parallel: int | None = None
    timeout_s: float | None = None
    retry: RetryPolicy = RetryPolicy()
    env: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkflowDefinition:
    """A whole definition. ``on_error`` and ``final`` run after ``steps``, in the order that their ``needs`` give.

    ``outputs`` are what a run that succeeded leaves: values whose texts may hold expressions.
    """

    name: str
    steps: tuple[StepDefinition, ...]
    description: str = ""
    inputs: Mapping[str, InputDefinition] = field(default_factory=dict)
    env: Mapping[str, Json] = field(default_factory=dict)
    timeout_s: float | None = None
    concurrency_group: str | None = None
    concurrency_limit: int | None = None
    shares_workspace: bool = False
    on_error: tuple[StepDefinition, ...] = ()
    final: tuple[StepDefinition, ...] = ()
    outputs: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow's row. ``definition`` is the newest version as the user wrote it."""

    workflow_id: WorkflowId
    owner_id: UserId
    name: str
    version: int
    definition: Mapping[str, Json]
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
