"""What the engine needs of others, and the use cases of workflows as the HTTP layer sees them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sandgate.core.artifact import Artifact, ArtifactId
from sandgate.core.attempt_tag import AttemptTag
from sandgate.core.execution import ExecutionRequest, StepData, Termination
from sandgate.core.idempotency import Keep
from sandgate.core.ids import EnvironmentId, ExecutionId, RunId, UserId, WorkflowId
from sandgate.core.language import Language
from sandgate.core.output_tap import OutputTap
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal
from sandgate.core.run import HistoryEvent, Run, StepKey, StepRun
from sandgate.core.secret import Secret
from sandgate.core.workflow import Json, Workflow, WorkflowDefinition
from sandgate.sandbox.base import Collect, Mask
from sandgate.store.base import RunChange, RunFilter
from sandgate.workflows.expressions import SecretValues
from sandgate.workflows.positions import Batch, Position
from sandgate.workflows.reading import FindProblem
from sandgate.workflows.step_templates import StepTemplate

RunInsert = Callable[[RunChange, float], Awaitable[bool]]
"""Writes a new run, held for so many seconds, with something else or not at all; whether it did.

Raises ``VersionGone``, after which it is called again with a run of the newer version.
"""


class Place(Protocol):
    """Where the code of an attempt runs. ``goes_on``: more may run there after it."""

    @property
    def goes_on(self) -> bool:
        """See above."""
        ...

    async def execute(
        self,
        code: str,
        timeout_s: float,
        data: StepData,
        tap: OutputTap | None = None,
        collect: Collect | None = None,
    ) -> Termination:
        """Run code and answer how it ended.

        ``tap`` shows the output while it is written. ``collect`` is awaited before its sandbox goes, to take out of it
        what the code has left.

        When it is cancelled, it raises ``CancelledError`` once nothing of it runs any more. Raises
        ``MechanismFault``, and ``RequestRefused`` for what cannot be used.
        """
        ...


class StepEnvironments(Protocol):
    """Environments that steps may name."""

    async def execute_step(
        self,
        owner_id: UserId,
        environment_id: EnvironmentId,
        request: ExecutionRequest,
        mask: Mask | None = None,
        collect: Collect | None = None,
    ) -> Termination:
        """Run code in an environment of this owner, as ``Place.execute`` does; its record is what ``mask`` says.

        An execution that an earlier process began with the request's tag is taken up.
        """
        ...


class StepSandboxes(Protocol):
    """Where the code of steps runs: each attempt in a sandbox of its own.

    An ``attempt`` is a text that no other attempt has. What runs under it outlives this process if that is killed.
    """

    async def execute(
        self,
        attempt: str,
        template: StepTemplate,
        code: str,
        timeout_s: float,
        data: StepData,
        tap: OutputTap | None = None,
        collect: Collect | None = None,
    ) -> Termination:
        """See ``Place``. The sandbox stays until :meth:`settle`, unless this raises.

        An attempt of :meth:`kept` is taken up where it is; the rest of what is given has to be what it was begun with.
        """
        ...

    def find_language(self, template: StepTemplate, data: StepData) -> Language | None:
        """What the code of an attempt is written in; None: the interpreter's. Raises ``RequestRefused``."""
        ...

    def kept(self) -> Mapping[str, AttemptTag]:
        """The attempts that an earlier process began, wherever, and that can be taken up."""
        ...

    def tag(self, attempt: str, folder: str, execution_id: ExecutionId | None = None) -> AttemptTag:
        """What an attempt that runs in a shared sandbox is known by: what it was begun with, if it is of :meth:`kept`.

        It is let go of in :meth:`settle`.
        """
        ...

    async def discard(self, but: Collection[str]) -> None:
        """End what an earlier process began, but these attempts."""
        ...

    def settle(self, attempt: str) -> None:
        """What it came to is on disk, or of no use any more: let its sandbox go, if that is its own."""
        ...

    def release(self, run_id: RunId) -> None:
        """None of the run's attempts is to be taken up any more: it is over, or another process's."""
        ...

    def look_up(self, raw: Json, owner_id: UserId) -> FindProblem:
        """What is wrong with the templates that a definition of this owner's names; to be asked in any thread."""
        ...

    def find_versions(self, templates: Collection[str], owner_id: UserId) -> Mapping[str, str]:
        """Of these the ones that were built and are ready, each with what names the version that is to be used now."""
        ...

    def expect(self, template: StepTemplate) -> None:
        """A hint that an attempt with this template is about to be executed."""
        ...

    async def hold(self) -> None:
        """Say that this process lives: what runs ends by itself when this is not said for a while.

        Raises nothing: whoever cannot be told will end.
        """
        ...

    async def close(self) -> None:
        """Let go of every sandbox."""
        ...


class SecretSource(Protocol):
    """Where the engine gets secrets from."""

    async def open(self, owner_id: UserId, names: Collection[str]) -> SecretValues:
        """The values of those that are there. Raises ``SecretUnreadable``, ``StoreUnavailable``."""
        ...


class Secrets(Protocol):
    """Every method raises ``StoreUnavailable``."""

    async def put(self, caller: Principal, name: str, value: str) -> Secret:
        """Make a secret or replace its value, durable. Raises ``Forbidden``, ``InvalidRequest``, ``TooManySecrets``."""
        ...

    async def list(self, caller: Principal) -> Sequence[Secret]:
        """The caller's own, by name and without values."""
        ...

    async def delete(self, caller: Principal, name: str) -> None:
        """Delete one of the caller's own. Raises ``SecretNotFound``."""
        ...


class ArtifactContent(Protocol):
    """An artifact that is open for reading."""

    @property
    def artifact(self) -> Artifact:
        """Its row."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """So many bytes from there on, fewer at the end. Raises ``OSError``."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Artifacts(Protocol):
    """Every method raises ``RunNotFound`` for an unknown or foreign run (an admin sees all), ``StoreUnavailable``."""

    async def list(
        self, caller: Principal, run_id: RunId, page: PageRequest, *, step: str | None = None
    ) -> Page[Artifact]:
        """A page of what a run kept, or one of its steps, newest first."""
        ...

    async def open(self, caller: Principal, run_id: RunId, artifact_id: ArtifactId) -> ArtifactContent:
        """An artifact of the run; the caller closes it. Raises ``ArtifactNotFound``."""
        ...


@dataclass(frozen=True, slots=True)
class RunView:
    """A run with its definition and the rows of its steps; ``omitted`` are those whose output is left out."""

    run: Run
    definition: WorkflowDefinition
    steps: Sequence[StepRun]
    omitted: frozenset[StepKey] = frozenset()


class Workflows(Protocol):
    """Every method raises ``WorkflowNotFound`` or ``RunNotFound`` for an unknown, deleted or foreign id (an admin
    sees all), ``Forbidden`` when a viewer would change something, and ``StoreUnavailable``.
    """

    async def validate(self, caller: Principal, raw: Json) -> WorkflowDefinition:
        """The checked definition, as one of the caller's; it fits the schema.

        Raises ``InvalidDefinition``, ``TooManyRequestsAtOnce``.
        """
        ...

    async def create(self, caller: Principal, raw: Json, keep: Keep[Workflow] | None = None) -> Workflow:
        """The row, durable, with what ``keep`` makes. Raises what ``validate`` does, and ``TooManyWorkflows``."""
        ...

    async def get(self, caller: Principal, workflow_id: WorkflowId) -> Workflow:
        """One workflow with its newest version."""
        ...

    async def definition_of(self, workflow: Workflow) -> WorkflowDefinition:
        """The definition of one that was got. Raises ``InvalidDefinition`` when rules have become tighter since."""
        ...

    async def list(self, caller: Principal, page: PageRequest, *, name: str | None = None) -> Page[Workflow]:
        """A page."""
        ...

    async def replace(self, caller: Principal, workflow_id: WorkflowId, raw: Json) -> Workflow:
        """Make the next version. Raises what ``validate`` does, and ``Conflict`` when somebody else just did."""
        ...

    async def delete(self, caller: Principal, workflow_id: WorkflowId, *, force: bool) -> None:
        """Delete it, and cancel its runs with ``force``. Raises ``WorkflowRunning``."""
        ...

    async def start(
        self,
        caller: Principal,
        workflow_id: WorkflowId,
        inputs: Mapping[str, Json],
        wait_s: float,
        keep: Keep[Run] | None = None,
    ) -> Run:
        """A run, durable; waits for its end for ``wait_s`` at most. What ``keep`` makes is on disk with it.

        Raises ``InvalidRequest`` for inputs that do not fit, ``TooManyRuns``, ``ServiceDraining``.
        """
        ...

    async def join(self, caller: Principal, run_id: RunId, wait_s: float) -> Run:
        """A run once it has ended, or as it is after ``wait_s``, whoever works on it."""
        ...

    async def view(self, caller: Principal, run_id: RunId) -> RunView:
        """A run and how far its steps are."""
        ...

    async def view_newest(self, caller: Principal, workflow_id: WorkflowId, run_id: RunId | None) -> RunView:
        """The newest run of a workflow, or one of its runs. Raises ``RunNotFound`` when there is none."""
        ...

    async def get_step(self, caller: Principal, run_id: RunId, step: str, item: int | None = None) -> StepRun:
        """A step, or one of its items, with all of its output. Raises ``StepNotFound``."""
        ...

    async def list_runs(self, caller: Principal, wanted: RunFilter, page: PageRequest) -> Page[Run]:
        """A page of runs. Whose they are is not for the filter to say."""
        ...

    async def list_history(
        self, caller: Principal, run_id: RunId, first: int, most: int
    ) -> tuple[Sequence[HistoryEvent], int | None]:
        """What happened to a run, oldest first, from an entry on; and where to go on, None at the end."""
        ...

    async def follow(self, caller: Principal, run_id: RunId, position: Position) -> AsyncGenerator[Batch, None]:
        """What happens to a run and what its steps write, from a position on, to the end of the run."""
        ...

    async def cancel(self, caller: Principal, run_id: RunId) -> Run:
        """Kill what runs, let ``finally`` tidy up, and answer the run when it has ended. Raises ``RunEnded``."""
        ...

    async def retry(
        self, caller: Principal, run_id: RunId, from_step: str | None, keep: Keep[Run] | None = None
    ) -> Run:
        """Let an ended run go on with what did not succeed, and from a step on that need not have failed.

        What ``keep`` makes is on disk with it.

        Raises ``RunLive``, ``RunSucceeded``, ``InvalidRequest``, ``WorkflowNotFound`` when the workflow was deleted,
        ``TooManyRuns``, ``ServiceDraining``.
        """
        ...

    async def decide(
        self, caller: Principal, run_id: RunId, step: str, *, approved: bool, comment: str, item: int | None = None
    ) -> RunView:
        """Approve or reject a step, or one item of it, that waits for it. Raises ``StepNotWaiting``, ``Forbidden``."""
        ...
