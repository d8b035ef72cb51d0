"""Sandboxes that the steps of a run share, from the first step that needs one to the end of the run.

The name of a run's workspace follows from the run's, so that it is found again after a restart.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from sandgate.core.errors import MechanismFault, RequestRefused, SandboxFailed
from sandgate.core.execution import ExecutionRequest, Termination
from sandgate.core.ids import EnvironmentId, RunId
from sandgate.core.limits import Limits
from sandgate.core.tidying import tidy
from sandgate.sandbox.base import Collect, Resumed, Sandbox
from sandgate.workflows.step_templates import StepTemplate

_PREFIX, _RUN_PREFIX = "env-", "run-"


class Sandboxes(Protocol):
    """What makes and ends sandboxes."""

    async def make(self, template: StepTemplate, environment_id: EnvironmentId, lifetime_s: float) -> Sandbox:
        """A sandbox of this name. Raises ``MechanismFault``, and ``RequestRefused`` for the template."""
        ...

    async def resume(self, template: StepTemplate, request: ExecutionRequest) -> Resumed | None:
        """Take up what an earlier process began with the request's tag. Raises ``SandboxFailed``."""
        ...

    def count(self, template: StepTemplate, environment_id: EnvironmentId) -> None:
        """Count one that an earlier process made."""
        ...

    def give_back(self, environment_id: EnvironmentId) -> None:
        """One is there no more."""
        ...

    def destroy_later(self, environment_id: EnvironmentId) -> "asyncio.Task[None]":
        """End a sandbox."""
        ...


def workspace_id(run_id: RunId) -> EnvironmentId:
    """What the workspace of a run is called."""
    return EnvironmentId(_PREFIX + run_id.removeprefix(_RUN_PREFIX))


class _Workspace:
    """A sandbox, or the promise of one, and until when it is kept, in the loop's time."""

    def __init__(self, making: "asyncio.Future[Sandbox]", until: float) -> None:
        self.making = making
        self.until = until

    @property
    def sandbox(self) -> Sandbox | None:
        """What was made."""
        return self.making.result() if self.making.done() and self.making.exception() is None else None

    @property
    def is_useless(self) -> bool:
        """Whether it could not be made, or has ended."""
        return self.making.done() and (self.sandbox is None or self.sandbox.failure is not None)


class Workspaces:
    """The workspaces of this process's runs. One that nothing has run in for ``idle_s`` ends by itself.

    With ``unheld_s`` they also end when nobody says ``hold`` for so long, because their runs may go on elsewhere then.
    """

    def __init__(self, sandboxes: Sandboxes, idle_s: float, unheld_s: float | None = None) -> None:
        self._sandboxes = sandboxes
        self._idle_s = idle_s
        self._unheld_s = unheld_s
        self._kept: dict[RunId, _Workspace] = {}
        self._told: set[RunId] = set()

    def expected(self, run_ids: Iterable[RunId], limits: Limits) -> Mapping[EnvironmentId, Limits]:
        """What an earlier process may have left of these runs."""
        return {workspace_id(run_id): limits for run_id in run_ids}

    def adopt(self, sandboxes: Sequence[Sandbox]) -> None:
        """Keep what an earlier process left."""
        loop = asyncio.get_running_loop()
        for sandbox in sandboxes:
            made: asyncio.Future[Sandbox] = loop.create_future()
            made.set_result(sandbox)
            run_id = RunId(_RUN_PREFIX + sandbox.environment_id.removeprefix(_PREFIX))
            # Its lifetime is counted anew by what runs next in it.
            self._kept[run_id] = _Workspace(made, loop.time() + (0.0 if self._unheld_s is None else self._idle_s))

    def count(self, run_id: RunId, template: StepTemplate) -> None:
        """Say what the workspace of a run is made from that goes on here."""
        if run_id in self._kept:
            self._sandboxes.count(template, workspace_id(run_id))

    def keep_only(self, run_ids: Collection[RunId]) -> None:
        """End the workspaces of all other runs."""
        for run_id in [run_id for run_id in self._kept if run_id not in run_ids]:
            self.release(run_id)

    async def execute(
        self,
        run_id: RunId,
        template: StepTemplate,
        request: ExecutionRequest,
        *,
        was_used: bool,
        collect: Collect | None = None,
    ) -> Termination:
        """Run code in the workspace of a run, which is made when there is none.

        ``was_used`` says that steps have run in it before: when it is gone with what they left, that is said once,
        with ``SandboxFailed``, and the next attempt finds a new one. When it is cancelled, it raises
        ``CancelledError`` once nothing of the code runs any more. Raises ``MechanismFault``, ``RequestRefused``.
        """
        sandbox = await self._take(run_id, template, request.timeout_s, was_used=was_used)
        try:
            resumed = await self._sandboxes.resume(template, request)
            running = sandbox.execute(request) if resumed is None else resumed.execution
            try:
                ended = await running.wait()
                if collect is not None:
                    await collect(sandbox.execute, ended)
            except asyncio.CancelledError:
                running.cancel()
                await tidy(sandbox.execute, request, await running.wait())
                raise
            await tidy(sandbox.execute, request, ended)
        finally:
            if sandbox.failure is not None:
                self._lose(run_id, sandbox)
        return ended

    async def hold(self) -> None:
        """Let them live on, those that have not been idle for too long. Raises nothing.

        Those that have ended give their places back, however long their runs go on without them.
        """
        for run_id, kept in self._kept.items():
            if kept.is_useless:
                self._sandboxes.give_back(workspace_id(run_id))
        if self._unheld_s is None:
            return
        now = asyncio.get_running_loop().time()
        for kept in list(self._kept.values()):
            if kept.sandbox is not None and kept.until > now:
                with suppress(MechanismFault, RequestRefused):
                    await kept.sandbox.extend(self._lifetime_s(kept.until - now))

    def miss(self, run_id: RunId) -> None:
        """What ran in the workspace of a run is lost, and whoever is told of that need not be told of the workspace."""
        if run_id not in self._kept:
            self._told.add(run_id)

    def _lifetime_s(self, wanted_s: float) -> float:
        return wanted_s if self._unheld_s is None else min(wanted_s, self._unheld_s)

    def release(self, run_id: RunId) -> None:
        """The run needs no workspace any more."""
        self._told.discard(run_id)
        kept = self._kept.pop(run_id, None)
        if kept is None:
            return
        if kept.making.done():
            self._sandboxes.destroy_later(workspace_id(run_id))
        else:
            kept.making.add_done_callback(lambda _: self._sandboxes.destroy_later(workspace_id(run_id)))

    async def _take(self, run_id: RunId, template: StepTemplate, timeout_s: float, *, was_used: bool) -> Sandbox:
        kept = self._kept.get(run_id)
        if kept is not None and kept.is_useless:
            self._sandboxes.give_back(workspace_id(run_id))
            del self._kept[run_id]
            kept = None
        if kept is None:
            if was_used and run_id not in self._told:
                self._told.add(run_id)
                raise SandboxFailed("The workspace of the run is gone, with all files in it", {"run_id": run_id})
            kept = self._begin(run_id, template, timeout_s)
        sandbox = await asyncio.shield(kept.making)
        await self._prolong(kept, sandbox, timeout_s)
        return sandbox

    def _begin(self, run_id: RunId, template: StepTemplate, timeout_s: float) -> _Workspace:
        lifetime_s = self._idle_s + timeout_s
        loop = asyncio.get_running_loop()
        making = loop.create_task(
            self._make(run_id, template, self._lifetime_s(lifetime_s)), name=f"workspace of {run_id}"
        )
        # Whoever waits for it meets its failure; when nobody does any more, it is nobody's.
        making.add_done_callback(lambda task: task.cancelled() or task.exception())
        kept = self._kept[run_id] = _Workspace(making, loop.time() + lifetime_s)
        return kept

    async def _make(self, run_id: RunId, template: StepTemplate, lifetime_s: float) -> Sandbox:
        # One of this name that died may still be on its way out.
        await self._sandboxes.destroy_later(workspace_id(run_id))
        try:
            sandbox = await self._sandboxes.make(template, workspace_id(run_id), lifetime_s)
        except (MechanismFault, RequestRefused):
            self._told.add(run_id)
            raise
        self._told.discard(run_id)
        return sandbox

    async def _prolong(self, kept: _Workspace, sandbox: Sandbox, timeout_s: float) -> None:
        """Let it live for this execution and the idle time after it; never for less than was promised before."""
        lifetime_s = self._idle_s + timeout_s
        until = asyncio.get_running_loop().time() + lifetime_s
        if until > kept.until + 1:
            kept.until = until
            await sandbox.extend(self._lifetime_s(lifetime_s))

    def _lose(self, run_id: RunId, sandbox: Sandbox) -> None:
        """Whoever ran in it when it ended has been told by that."""
        kept = self._kept.get(run_id)
        # Another one of this name may have its place by now.
        if kept is not None and kept.sandbox is sandbox:
            self._sandboxes.give_back(sandbox.environment_id)
            del self._kept[run_id]
            self._told.add(run_id)
