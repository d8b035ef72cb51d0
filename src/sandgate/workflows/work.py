"""Does what an attempt of a step is: code in its place, a request, or a run of its own."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from sandgate.core.attempt_tag import is_of_run
from sandgate.core.errors import ExpressionError, SecretUnreadable, StoreUnavailable
from sandgate.core.fair_slots import FairSlots
from sandgate.core.ids import RunId
from sandgate.core.run import Run, StepKey, StepResult, StepRun
from sandgate.core.workflow import StepType
from sandgate.workflows.attempts import explain, failure, prepare, run_attempt
from sandgate.workflows.base import SecretSource, StepEnvironments, StepSandboxes
from sandgate.workflows.children import Children
from sandgate.workflows.collecting import Collecting, Leftovers
from sandgate.workflows.contexts import attempt_context
from sandgate.workflows.events import AttemptEnded, Changes, Event
from sandgate.workflows.expressions import SecretValues
from sandgate.workflows.live import LiveRun
from sandgate.workflows.live_output import LiveOutput
from sandgate.workflows.maskers import Maskers
from sandgate.workflows.masking import Masker
from sandgate.workflows.one_by_one import OneByOne
from sandgate.workflows.places import Places, attempt_name
from sandgate.workflows.requests import HttpSteps
from sandgate.workflows.state import Graph
from sandgate.workflows.workspaces import Workspaces


class StepWork:
    """``most_steps`` run code at once, ``most_steps_of_one`` of them of one user; what only waits takes no place."""

    def __init__(
        self,
        sandboxes: StepSandboxes,
        children: Children,
        *,
        most_steps: int,
        most_steps_of_one: int,
        requests: HttpSteps | None,
        workspaces: Workspaces | None,
        environments: StepEnvironments | None,
        secrets: SecretSource | None,
        collecting: Collecting | None,
    ) -> None:
        self._sandboxes = sandboxes
        self._children = children
        self._workspaces = workspaces
        self._places = Places(sandboxes, workspaces, environments)
        self._secrets = secrets
        self._maskers = Maskers()
        self._collecting = collecting
        # What attempts left where more is to run, until it is kept for good.
        self._leftovers: dict[str, Leftovers] = {}
        self._removing: set[asyncio.Task[None]] = set()
        self._requests = requests or HttpSteps()
        self._slots = FairSlots(most_steps, most_steps_of_one)
        self._evaluating = OneByOne()

    def expect(self, live: LiveRun, changes: Changes) -> None:
        """The next sandbox is got ready while the result of the step before becomes durable."""
        for row in changes.start:
            self._places.expect(live.graph, live.run, row)

    def find_versions(self, run: Run, graph: Graph) -> Mapping[str, str]:
        """Those of built templates that a run which begins now is to keep to."""
        return self._sandboxes.find_versions(graph.template_names, run.owner_id)

    async def run(self, live: LiveRun, row: StepRun, output: LiveOutput) -> StepResult:
        """Do it to its end. When it is cancelled, nothing of it runs any more but a run of its own."""
        match live.graph.steps[row.step].type:
            case StepType.WORKFLOW:
                return await self._children.follow(live, row)
            case StepType.HTTP:
                return await self._request(live, row)
            case _:
                async with self._slots.place(live.run.owner_id):
                    return await self._execute(live, row, output)

    def kill(self, live: LiveRun, key: StepKey) -> None:
        """End an attempt that is under way."""
        child_run_id = live.steps[key].child_run_id
        task = live.attempts.get(key)
        if child_run_id is not None:
            self._children.cancel(child_run_id)
        elif task is not None:
            task.cancel()

    async def keep_only(self, runs: Collection[LiveRun]) -> None:
        """Let go of what an earlier process left for other runs."""
        if self._workspaces is not None:
            self._workspaces.keep_only({live.run.run_id for live in runs})
        await self._sandboxes.discard({attempt_name(row) for live in runs for row in live.steps.values()})

    def take_over(self, live: LiveRun) -> frozenset[StepKey]:
        """What an earlier process began of a run and can be taken up; the rest is lost."""
        return self._places.take_over(live.graph, live.state())

    def settle(self, run_id: RunId, events: Iterable[Event]) -> None:
        """What attempts came to is on disk, or of no use any more."""
        for event in events:
            if isinstance(event, AttemptEnded):
                step, item = event.key
                name = attempt_name(StepRun(run_id, step, item, attempt=event.attempt))
                self._sandboxes.settle(name)
                self._remove_files(name)

    def _remove_files(self, attempt: str) -> None:
        """What an attempt left is kept for good."""
        leftovers = self._leftovers.pop(attempt, None)
        if leftovers is not None:
            removing = asyncio.get_running_loop().create_task(leftovers.remove(), name=f"remove files of {attempt}")
            self._removing.add(removing)
            removing.add_done_callback(self._removing.discard)

    def release(self, run_id: RunId) -> None:
        """The run is over, or another process's."""
        self._places.release(run_id)
        self._sandboxes.release(run_id)
        for attempt in [attempt for attempt in self._leftovers if is_of_run(attempt, run_id)]:
            del self._leftovers[attempt]

    async def hold(self) -> None:
        """Say that this process lives; see ``StepSandboxes``."""
        await self._sandboxes.hold()
        if self._workspaces is not None:
            await self._workspaces.hold()

    async def close(self) -> None:
        """Let go of everything."""
        self._requests.close()
        for removing in self._removing:
            removing.cancel()
        await self._sandboxes.close()

    async def _request(self, live: LiveRun, row: StepRun) -> StepResult:
        masker = Masker()
        try:
            secrets = await self._open_secrets(live)
            masker = await self._maskers.get(secrets.values())
            context = await self._evaluating.do(lambda: attempt_context(live.graph, live.state(), row, secrets))
        except (ExpressionError, SecretUnreadable, StoreUnavailable) as problem:
            return _not_begun(problem, masker)
        return await self._requests.run(live.graph.steps[row.step], context, masker, live.run.owner_id)

    async def _execute(self, live: LiveRun, row: StepRun, output: LiveOutput) -> StepResult:
        masker = Masker()
        try:
            secrets = await self._open_secrets(live)
            masker = await self._maskers.get(secrets.values())
            data = await self._evaluating.do(lambda: prepare(live.graph, live.state(), row, secrets))
            kept = self._sandboxes.kept().get(attempt_name(row))
            if kept is not None:
                # It was begun with this one, by a process that is gone.
                data = replace(data, folder=kept.folder)
            place = self._places.find(live.graph, live.state(), row, masker.mask_termination)
        except (ExpressionError, SecretUnreadable, StoreUnavailable) as problem:
            return _not_begun(problem, masker)
        leftovers = None
        if self._collecting is not None:
            leftovers = self._collecting.of(row, live.room, data.folder, masker)
            if place.goes_on:
                self._leftovers[attempt_name(row)] = leftovers
        return await run_attempt(place, live.graph.steps[row.step], data, masker, output, leftovers)

    async def _open_secrets(self, live: LiveRun) -> SecretValues:
        """Those that the definition names anywhere, because what one step was given another one may come to show."""
        if self._secrets is None or not live.graph.secret_names:
            return SecretValues()
        return await self._secrets.open(live.run.owner_id, live.graph.secret_names)


def _not_begun(problem: ExpressionError | SecretUnreadable | StoreUnavailable, masker: Masker) -> StepResult:
    """The end of an attempt whose data cannot be had."""
    match problem:
        case ExpressionError():
            return explain(problem, masker)
        case SecretUnreadable():
            return failure("SecretUnreadable", problem.message)
        case _:
            return failure("Lost", problem.message, reason="lost")
