"""What a server answers, as records. Fields that a newer server adds are left out."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sandgate.core.process import LIVE_PROCESS_STATUSES
from sandgate.core.run import LIVE_RUN_STATUSES, LIVE_STEP_STATUSES


class AnswerModel(BaseModel):
    """Base of all: frozen, and deaf to what it does not know."""

    # Most commands read one or two of them.
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


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


class NetworkRules(AnswerModel):
    """Hosts that code may reach."""

    allow: Sequence[str]


class NetworkConnection(AnswerModel):
    """A connection that code asked for; ``reason`` is empty while it is open."""

    started_at: datetime
    host: str | None
    port: int | None
    verdict: str
    reason: str
    sent_bytes: int
    received_bytes: int
    duration_ms: int


class NetworkTotals(AnswerModel):
    """All connections together."""

    allowed: int
    denied: int
    failed: int
    open: int
    sent_bytes: int
    received_bytes: int


class Network(AnswerModel):
    """What an environment may reach, and has reached; the newest connections first."""

    network: NetworkRules | None
    totals: NetworkTotals
    connections: Sequence[NetworkConnection]


class MountedVolume(AnswerModel):
    """Where an environment has a volume."""

    volume_id: str
    name: str
    path: str
    read_only: bool


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
    network: NetworkRules | None = None
    env: Mapping[str, str] = {}
    secrets: Sequence[str] = ()
    isolation: str | None = None
    ended_at: datetime | None = None
    on_timeout: str | None = None
    idle_timeout: int | None = None
    paused_at: datetime | None = None
    snapshot_id: str | None = None
    forked_from: str | None = None
    volumes: Sequence[MountedVolume] = ()
    owner_id: str | None = None


class Environments(AnswerModel):
    """Several at once."""

    environments: Sequence[Environment]


class BackgroundOutput(AnswerModel):
    """What a session wrote between executions: the newest part, and how many bytes before it are lost."""

    stdout: str
    stderr: str
    lost_bytes: int


class Session(AnswerModel):
    """An interpreter that stays; ``status_reason`` says why one has ``ended``."""

    session_id: str
    environment_id: str
    language: str
    status: str
    status_reason: str | None
    creation_time: datetime
    last_used_at: datetime
    executions: int
    queued: int
    background: BackgroundOutput


class Sessions(AnswerModel):
    """Those of an environment."""

    sessions: list[Session]


class Unpacked(AnswerModel):
    """What was laid out from an archive, in which folder."""

    path: str
    files: int
    folders: int
    links: int
    size_bytes: int


class FileMatch(AnswerModel):
    """An entry with the name that was looked for, or a line with the content; lines and columns are counted from 1."""

    path: str
    encoded_path: str
    kind: str
    line_number: int | None
    column: int | None
    line: str | None
    cut: bool


class FileLink(AnswerModel):
    """A link to a file: behind the server's address, ``link_path`` is all that is needed.

    ``link_url`` is both, as the server was asked; None where it was not named, or is an older one.
    """

    link_path: str
    method: str
    path: str
    expires_at: datetime
    link_url: str | None = None


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
    owner_id: str
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
    session_id: str | None = None
    results: list[dict[str, Any]] | None = None
    results_truncated: bool = False


class Process(AnswerModel):
    """A command in the background of an environment; what comes after ``started_at`` is null while it runs."""

    process_id: str
    environment_id: str
    status: str
    command: tuple[str, ...]
    name: str | None
    metadata: dict[str, str]
    started_at: datetime
    ended_at: datetime | None
    exit_code: int | None
    signal: str | None
    error: str | None
    usage: Usage | None

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.status in LIVE_PROCESS_STATUSES


class Processes(AnswerModel):
    """Those of an environment."""

    processes: list[Process]


class TerminalTicket(AnswerModel):
    """Where a terminal is opened, for ``expires_in`` seconds; ``url`` is a path on the server."""

    process_id: str
    url: str
    ticket: str
    expires_in: int


class ProcessOutput(AnswerModel):
    """What is kept of its output; ``skipped`` is how many characters of each stream are not, None: nobody knows."""

    stdout: str
    stderr: str
    position: str
    skipped: dict[str, int | None]


class Attempted(AnswerModel):
    """What a step and an item of a step have in common.

    With ``output_omitted``, its output did not fit into the answer; ``Client.get_run_step`` gets it.
    """

    status: str
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: int | None
    exit_code: int | None
    outputs: Any
    stdout: str
    stderr: str
    output_omitted: bool = False
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
    """A run of a workflow. ``templates`` has the version of each built template that its steps name."""

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
    templates: Mapping[str, str] = Field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.status in LIVE_RUN_STATUSES


class RunView(Run):
    """A run and how far each of its steps is, those of ``on_error`` and ``finally`` last."""

    steps: tuple[Step, ...]
