"""``StepSandboxes`` on a runtime: a fresh sandbox for each attempt, taken before it is needed, ended after."""

import asyncio
from collections import deque
from collections.abc import Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sandgate.core.attempt_tag import AttemptTag, is_of_run, parse_tag
from sandgate.core.built import BuiltTemplate
from sandgate.core.errors import (
    LauncherUnavailable,
    MechanismFault,
    RequestRefused,
    SandboxFailed,
    TemplateUnavailable,
)
from sandgate.core.execution import ExecutionRequest, StepData, Termination
from sandgate.core.ids import EnvironmentId, ExecutionId, RunId, UserId, make_environment_id
from sandgate.core.language import Language
from sandgate.core.output_tap import OutputTap
from sandgate.core.states import ExecutionStatus
from sandgate.core.template import Template, choose_language
from sandgate.core.workflow import Json
from sandgate.sandbox.base import Collect, Resumed, Runtime, Sandbox, SandboxSpec
from sandgate.telemetry.log import get_logger
from sandgate.workflows.reading import FindProblem
from sandgate.workflows.step_templates import (
    KnownTemplates,
    NamedTemplates,
    StepTemplate,
    TemplatePlaces,
    TemplatePlacing,
    find_version,
)

# What a sandbox lives on without a word from this process, in lengths of a lease.
UNHELD_LEASES = 2
_MOST_EXPECTED = 8
_EXPECTED_FOR_S = 10.0
_DESTROY_AGAIN_S = 0.5
# A launcher that died is started again within a moment, in which attempts are better not begun than lost.
_LAUNCHER_PATIENCE_S = 15.0
_LAUNCHER_PAUSE_S = 0.1

_log = get_logger(__name__)


class RuntimeStepSandboxes:
    """See :class:`sandgate.workflows.base.StepSandboxes`. No two attempts ever share a sandbox."""

    def __init__(
        self,
        runtime: Runtime,
        templates: KnownTemplates,
        *,
        lease_s: float = 10.0,
        places: TemplatePlaces | None = None,
    ) -> None:
        """``places`` None: there may be sandboxes of any number of templates."""
        self._runtime = runtime
        self._templates = templates
        self._placing = TemplatePlacing(places)
        self._lifetime_s = UNHELD_LEASES * lease_s
        self._used: dict[EnvironmentId, Sandbox] = {}
        self._unsettled: dict[str, EnvironmentId] = {}
        self._shared: dict[str, str] = {}
        self._expected: dict[StepTemplate, deque[asyncio.Task[Sandbox]]] = {}
        self._forgetting: dict[asyncio.Future[Sandbox], asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._losses = 0
        self._suspects: set[asyncio.Future[Sandbox]] = set()

    def look_up(self, raw: Json, owner_id: UserId) -> FindProblem:
        """See ``StepSandboxes``."""
        return NamedTemplates.of(raw, self._templates, owner_id).find_problem

    def find_versions(self, templates: Collection[str], owner_id: UserId) -> Mapping[str, str]:
        """See ``StepSandboxes``."""
        found = {name: find_version(self._templates, name, owner_id) for name in sorted(templates)}
        return {name: version for name, version in found.items() if version is not None}

    def expect(self, template: StepTemplate) -> None:
        """Begin to make a sandbox, unless many are being made already, or it cannot be used."""
        try:
            template = self._resolve(template)
        except RequestRefused:
            return
        # Of those that were built there is no end.
        self._expected = {each: queue for each, queue in self._expected.items() if queue}
        waiting = self._expected.setdefault(template, deque())
        if len(waiting) >= _MOST_EXPECTED:
            return
        making = asyncio.get_running_loop().create_task(self._make(template), name="sandbox for a step")
        # Whoever takes it meets its failure; one that nobody takes is nobody's failure.
        making.add_done_callback(lambda task: task.cancelled() or task.exception())
        waiting.append(making)
        later = asyncio.get_running_loop().call_later
        self._forgetting[making] = later(_EXPECTED_FOR_S, self._forget, waiting, making)

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
        """See ``StepSandboxes``."""
        tag = AttemptTag(attempt, data.folder).text
        language = self.find_language(template, data)
        request = ExecutionRequest(code, timeout_s, data, is_last=True, tap=tap, tag=tag, language=language)
        resumed = await self.resume(template, request)
        sandbox = await self._take(self._resolve(template)) if resumed is None else resumed.sandbox
        self._used[sandbox.environment_id] = sandbox
        try:
            ended = await (sandbox.execute(request) if resumed is None else resumed.execution).wait()
            if ended.status is ExecutionStatus.LOST:
                self._suspect_others()
            if collect is not None:
                await collect(lambda more: sandbox.execute(replace(more, is_last=True)), ended)
        except asyncio.CancelledError:
            await asyncio.shield(self.destroy_later(sandbox.environment_id))
            raise
        except BaseException:
            self.destroy_later(sandbox.environment_id)
            raise
        self._unsettled[attempt] = sandbox.environment_id
        return ended

    def find_language(self, template: StepTemplate, data: StepData) -> Language | None:
        """See ``StepSandboxes``."""
        if data.language is None:
            return None
        return choose_language(self._check(template), data.language)

    async def resume(self, template: StepTemplate, request: ExecutionRequest) -> Resumed | None:
        """Take up what an earlier process began; None when it began nothing with this tag. Raises ``SandboxFailed``."""
        if request.tag not in self._runtime.kept():
            return None
        found = self._check(template)
        resumed = await self._runtime.resume(request, found.limits)
        if resumed is None:
            # It must not begin again as the same attempt.
            raise SandboxFailed("The sandbox ended while the process that ran the step was gone")
        self._placing.count(template.owner_id, found, resumed.sandbox.environment_id)
        return resumed

    def _check(self, template: StepTemplate) -> Template:
        """The one that a name stands for. Raises ``UnknownTemplate``, ``TemplateUnavailable``."""
        found = self._templates.check(template.name, template.owner_id)
        if found.built is not None and not found.isolations:
            raise TemplateUnavailable(
                f"The template {found.reference} was built, and this server holds no class that has such",
                {"template": found.reference, "reason": "its class is not held here"},
            )
        return found

    def _resolve(self, template: StepTemplate) -> StepTemplate:
        """The same for everybody when it is one of the server's own. Raises as :meth:`_check`."""
        found = self._check(template)
        return StepTemplate(found.name) if found.built is None else StepTemplate(found.reference, template.owner_id)

    def kept(self) -> Mapping[str, AttemptTag]:
        """See ``StepSandboxes``."""
        tags = map(parse_tag, self._runtime.kept())
        return {tag.attempt: tag for tag in tags}

    def tag(self, attempt: str, folder: str, execution_id: ExecutionId | None = None) -> AttemptTag:
        """See ``StepSandboxes``."""
        tag = self.kept().get(attempt) or AttemptTag(attempt, folder, execution_id)
        self._shared[attempt] = tag.text
        return tag

    async def discard(self, but: Collection[str]) -> None:
        """See ``StepSandboxes``."""
        await self._runtime.discard({tag.text for attempt, tag in self.kept().items() if attempt in but})

    def settle(self, attempt: str) -> None:
        """See ``StepSandboxes``."""
        environment_id = self._unsettled.pop(attempt, None)
        tag = self._shared.pop(attempt, None)
        if environment_id is not None:
            self.destroy_later(environment_id)
        elif tag is not None and tag not in self._runtime.kept():
            self._runtime.let_go(tag)
        elif attempt in (kept := self.kept()):
            # It was given up before it was taken up.
            self._spawn(self.discard(kept.keys() - {attempt}), f"discard {attempt}")

    def release(self, run_id: RunId) -> None:
        """See ``StepSandboxes``."""
        for attempt in [attempt for attempt in self._shared if is_of_run(attempt, run_id)]:
            self._runtime.let_go(self._shared.pop(attempt))
        kept = self.kept()
        others = {attempt for attempt in kept if not is_of_run(attempt, run_id)}
        if len(others) < len(kept):
            self._spawn(self.discard(others), f"discard what was left of {run_id}")

    async def hold(self) -> None:
        """See ``StepSandboxes``."""
        self._runtime.hold()
        waiting = [making for queue in self._expected.values() for making in queue]
        made = [
            making.result() for making in waiting if making.done() and not making.cancelled() and not making.exception()
        ]
        for sandbox in [*self._used.values(), *made]:
            with suppress(MechanismFault, RequestRefused):
                await sandbox.extend(self._lifetime_s)

    async def close(self) -> None:
        """See ``StepSandboxes``."""
        for waiting in self._expected.values():
            while waiting:
                self._forget(waiting, waiting[0])
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        for task in list(self._tasks):
            task.cancel()

    def _suspect_others(self) -> None:
        """A sandbox ended under its code, perhaps with its launcher: then those that wait have, unknown to anybody."""
        self._losses += 1
        self._suspects.update(making for waiting in self._expected.values() for making in waiting)

    async def _take(self, template: StepTemplate) -> Sandbox:
        """A sandbox that lives: one that has ended while it waited costs no attempt, unless they all end."""
        for _ in range(_MOST_EXPECTED):
            losses = self._losses
            sandbox, is_suspect = await self._take_next(template)
            try:
                if await self._lives(sandbox, asked=is_suspect or losses != self._losses):
                    return sandbox
            except asyncio.CancelledError:
                await asyncio.shield(self.destroy_later(sandbox.environment_id))
                raise
            self.destroy_later(sandbox.environment_id)
        return (await self._take_next(template))[0]

    async def _lives(self, sandbox: Sandbox, *, asked: bool) -> bool:
        if asked and sandbox.failure is None:
            try:
                await sandbox.extend(self._lifetime_s)
            except MechanismFault:
                return False
        return sandbox.failure is None

    async def _take_next(self, template: StepTemplate) -> tuple[Sandbox, bool]:
        """The next that waits, or a new one; and whether it may have ended long ago."""
        waiting = self._expected.get(template)
        making = waiting.popleft() if waiting else asyncio.ensure_future(self._make(template))
        is_suspect = making in self._suspects
        self._suspects.discard(making)
        forgetting = self._forgetting.pop(making, None)
        if forgetting is not None:
            # A timer that runs holds the sandbox, and all that it has, for long after its end.
            forgetting.cancel()
        try:
            return await asyncio.shield(making), is_suspect
        except asyncio.CancelledError:
            await self._spawn(self._discard(making), "discard a sandbox")
            raise

    async def make(self, template: StepTemplate, environment_id: EnvironmentId, lifetime_s: float) -> Sandbox:
        """A sandbox of this name. Raises ``MechanismFault``, and ``RequestRefused`` for the template."""
        template = self._resolve(template)
        await self._placing.take(template.owner_id, self._check(template), environment_id)
        try:
            # It may have been deleted while there was no place for it; now that it is counted, it is not.
            made_from = self._check(template)
            spec = SandboxSpec(
                environment_id, made_from.key, made_from.limits, lifetime_s, made_from.isolation, made_from.layer
            )
            return await self._runtime.create(spec)
        except BaseException:
            self.give_back(environment_id)
            raise

    def count(self, template: StepTemplate, environment_id: EnvironmentId) -> None:
        """Count one that an earlier process made, if its template is still there."""
        with suppress(RequestRefused):
            self._placing.count(template.owner_id, self._check(template), environment_id)

    def give_back(self, environment_id: EnvironmentId) -> None:
        """A sandbox is there no more: another may have its place."""
        self._placing.give_back(environment_id)

    def count_of(self, template: BuiltTemplate) -> int:
        """How many sandboxes there are of a version, in use or not, those included that are about to be made."""
        return self._placing.count_of(template)

    async def _make(self, template: StepTemplate) -> Sandbox:
        deadline = asyncio.get_running_loop().time() + _LAUNCHER_PATIENCE_S
        while True:
            # Another id each time: what was asked for in vain may still be made, and is ended then.
            try:
                return await self.make(template, make_environment_id(), self._lifetime_s)
            except LauncherUnavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(_LAUNCHER_PAUSE_S)

    def _forget(self, waiting: "deque[asyncio.Task[Sandbox]]", making: "asyncio.Task[Sandbox]") -> None:
        self._forgetting.pop(making, None)
        self._suspects.discard(making)
        if making in waiting:
            waiting.remove(making)
            self._spawn(self._discard(making), "discard a sandbox")

    async def _discard(self, making: "asyncio.Task[Sandbox] | asyncio.Future[Sandbox]") -> None:
        try:
            sandbox = await making
        except (MechanismFault, RequestRefused):
            return
        await self._destroy(sandbox.environment_id)

    def destroy_later(self, environment_id: EnvironmentId) -> "asyncio.Task[None]":
        """End a sandbox, for as long as that takes; the task is done when nothing of it runs any more."""
        return self._spawn(self._destroy(environment_id), f"destroy {environment_id}")

    async def _destroy(self, environment_id: EnvironmentId) -> None:
        self._used.pop(environment_id, None)
        while True:
            try:
                await self._runtime.destroy(environment_id)
            except MechanismFault as fault:
                _log.warning("sandbox of a step not ended yet", environment_id=environment_id, reason=fault.message)
            else:
                self.give_back(environment_id)
                return
            await asyncio.sleep(_DESTROY_AGAIN_S)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
