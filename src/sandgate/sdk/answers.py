"""What a server answers, as records. Fields that a newer server adds are left out."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sandgate.core.run import LIVE_RUN_STATUSES, LIVE_STEP_STATUSES


class AnswerModel(BaseModel):
    """Base of all: frozen, and deaf to what it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Me(AnswerModel):
    """Who a credential belongs to."""

    user_id: str
    username: str
    role: str
    credential: Literal["token", "api_key"]


class Token(AnswerModel):
    """A token, and for how many seconds it is valid."""

    access_token: str
    expires_in: int


class IssuedKey(AnswerModel):
    """A new API key; ``api_key`` is null when the answer to an earlier request is given again."""

    api_key_id: str
    label: str
    expires_at: datetime | None
    api_key: str | None


class Environment(AnswerModel):
    """An environment."""

    environment_id: str
    name: str
    template: str
    status: str
    status_reason: str | None
    timeout: int
    creation_time: datetime
    expires_at: datetime
    metadata: Mapping[str, str]


class FileEntry(AnswerModel):
    """A file, a folder, a link or something else of an environment; ``encoded_path`` is as it stands in an address."""

    path: str
    name: str
    encoded_path: str
    kind: str
    size_bytes: int
    mode: str
    modified_at: datetime
    target: str | None


class Workflow(AnswerModel):
    """A workflow; ``definition`` is as it was sent."""

    workflow_id: str
    name: str
    version: int
    creation_time: datetime
    updated_at: datetime
    definition: dict[str, Any]


class PlannedStep(AnswerModel):
    """A step of a plan; ``level`` is its round: what has the same one may run side by side."""

    name: str
    type: str
    level: int
    needs: tuple[str, ...]


class Plan(AnswerModel):
    """What a definition would do."""

    steps: tuple[PlannedStep, ...]
    levels: tuple[tuple[str, ...], ...]
    on_error: tuple[PlannedStep, ...] = ()
    final: Annotated[tuple[PlannedStep, ...], Field(alias="finally")] = ()


class ErrorReport(AnswerModel):
    """Why a run, a step or an item has failed."""

    name: str
    value: str
    traceback: str = ""


class Usage(AnswerModel):
    """What an execution used."""

    cpu_ms: int
    peak_memory_bytes: int


class Execution(AnswerModel):
    """Code that was run once; what comes after ``started_at`` is null while it runs."""

    execution_id: str
    environment_id: str
    status: str
    stdout: str
    stderr: str
    stdout_truncated: bool
    stderr_truncated: bool
    started_at: datetime
    finished_at: datetime | None
    duration_ms: int | None
    exit_code: int | None
    error: ErrorReport | None
    usage: Usage | None


class Attempted(AnswerModel):
    """What a step and an item of a step have in common."""

    status: str
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: int | None
    exit_code: int | None
    outputs: Any
    stdout: str
    stderr: str
    error: ErrorReport | None

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.status in LIVE_STEP_STATUSES


class Item(Attempted):
    """One item of a step with ``foreach``."""

    index: int


class Step(Attempted):
    """A step of a run; ``items`` is null unless it has ``foreach`` and has begun."""

    name: str
    type: str
    items: tuple[Item, ...] | None


class Run(AnswerModel):
    """A run of a workflow."""

    run_id: str
    workflow_id: str
    workflow_name: str
    workflow_version: int
    status: str
    creation_time: datetime
    started_at: datetime | None
    finished_at: datetime | None
    inputs: Mapping[str, Any]
    error: ErrorReport | None

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.status in LIVE_RUN_STATUSES


class RunView(Run):
    """A run and how far each of its steps is, those of ``on_error`` and ``finally`` last."""

    steps: tuple[Step, ...]
