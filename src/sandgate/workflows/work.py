"""Does what an attempt of a step is: code in its place, a request, or a run of its own."""

import asyncio
from collections.abc import Collection

from sandgate.core.errors import ExpressionError
from sandgate.core.ids import RunId
from sandgate.core.run import StepResult, StepRun
from sandgate.core.workflow import StepType
from sandgate.workflows.attempts import failure, prepare, run_attempt
from sandgate.workflows.base import StepEnvironments, StepSandboxes
from sandgate.workflows.children import Children
from sandgate.workflows.contexts import attempt_context
from sandgate.workflows.events import Changes
from sandgate.workflows.live import LiveRun
from sandgate.workflows.live_output import LiveOutput
from sandgate.workflows.places import Places
from sandgate.workflows.requests import HttpSteps
from sandgate.workflows.workspaces import Workspaces


class StepWork:
    """``most_steps`` run code at once; those that only wait for others take none of these places."""

    def __init__(
        self,
        sandboxes: StepSandboxes,
        children: Children,
        *,
        most_steps: int,
        requests: HttpSteps | None,
        workspaces: Workspaces | None,
        environments: StepEnvironments | None,
    ) -> None:
        self._sandboxes = sandboxes
        self._children = children
        self._workspaces = workspaces
        self._places = Places(sandboxes, workspaces, environments)
        self._requests = requests or HttpSteps()
        self._slots = asyncio.Semaphore(most_steps)

    def expect(self, live: LiveRun, changes: Changes) -> None:
        """The next sandbox is got ready while the result of the step before becomes durable."""
        for row in changes.start:
            self._places.expect(live.graph, row)

    async def run(self, live: LiveRun, row: StepRun, output: LiveOutput) -> StepResult:
        """Do it to its end. When it is cancelled, nothing of it runs any more but a run of its own."""
        match live.graph.steps[row.step].type:
            case StepType.WORKFLOW:
                return await self._children.follow(live, row)
            case StepType.HTTP:
                return await self._request(live, row)
            case _:
                async with self._slots:
                    return await self._execute(live, row, output)

    def keep_only(self, run_ids: Collection[RunId]) -> None:
        """Let go of what an earlier process left for other runs."""
        if self._workspaces is not None:
            self._workspaces.keep_only(run_ids)

    def release(self, run_id: RunId) -> None:
        """The run is over, or another process's."""
        self._places.release(run_id)

    async def close(self) -> None:
        """Let go of everything."""
        self._requests.close()
        await self._sandboxes.close()

    async def _request(self, live: LiveRun, row: StepRun) -> StepResult:
        try:
            context = attempt_context(live.graph, live.state(), row)
        except ExpressionError as problem:
            return failure("ExpressionError", problem.message)
        return await self._requests.run(live.graph.steps[row.step], context)

    async def _execute(self, live: LiveRun, row: StepRun, output: LiveOutput) -> StepResult:
        try:
            data = prepare(live.graph, live.state(), row)
            place = self._places.find(live.graph, live.state(), row)
        except ExpressionError as problem:
            return failure("ExpressionError", problem.message)
        return await run_attempt(place, live.graph.steps[row.step], data, output.tap)
