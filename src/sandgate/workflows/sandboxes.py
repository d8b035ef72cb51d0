"""``StepSandboxes`` on a runtime: a fresh sandbox for each attempt, taken before it is needed, ended after."""

import asyncio
from collections import deque
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from sandgate.core.attempt_tag import AttemptTag, is_of_run, parse_tag
from sandgate.core.errors import LauncherUnavailable, MechanismFault, RequestRefused, SandboxFailed
from sandgate.core.execution import ExecutionRequest, StepData, Termination
from sandgate.core.ids import EnvironmentId, ExecutionId, RunId, make_environment_id
from sandgate.core.language import Language
from sandgate.core.output_tap import OutputTap
from sandgate.core.states import ExecutionStatus
from sandgate.core.template import Template, choose_language
from sandgate.sandbox.base import Collect, Resumed, Runtime, Sandbox, SandboxSpec
from sandgate.telemetry.log import get_logger

_NEWEST = "python"
# What a sandbox lives on without a word from this process, in lengths of a lease.
UNHELD_LEASES = 2
_MOST_EXPECTED = 8
_EXPECTED_FOR_S = 10.0
_DESTROY_AGAIN_S = 0.5
# A launcher that died is started again within a moment, in which attempts are better not begun than lost.
_LAUNCHER_PATIENCE_S = 15.0
_LAUNCHER_PAUSE_S = 0.1

_log = get_logger(__name__)


class KnownTemplates(Protocol):
    """What sandboxes are made from."""

    def list(self) -> Sequence[Template]:
        """All of them."""
        ...

    def check(self, name: str) -> Template:
        """One that can be used. Raises ``UnknownTemplate``, ``TemplateUnavailable``."""
        ...


class RuntimeStepSandboxes:
    """See :class:`sandgate.workflows.base.StepSandboxes`. No two attempts ever share a sandbox."""

    def __init__(self, runtime: Runtime, templates: KnownTemplates, *, lease_s: float = 10.0) -> None:
        self._runtime = runtime
        self._templates = templates
        self._lifetime_s = UNHELD_LEASES * lease_s
        self._used: dict[EnvironmentId, Sandbox] = {}
        self._unsettled: dict[str, EnvironmentId] = {}
        self._shared: dict[str, str] = {}
        self._expected: dict[str, deque[asyncio.Task[Sandbox]]] = {}
        self._forgetting: dict[asyncio.Future[Sandbox], asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._losses = 0
        self._suspects: set[asyncio.Future[Sandbox]] = set()

    def template_names(self) -> Sequence[str]:
        """See ``StepSandboxes``."""
        return [template.name for template in self._templates.list()]

    def expect(self, template: str | None) -> None:
        """Begin to make a sandbox, unless many are being made already."""
        name = template or _NEWEST
        waiting = self._expected.setdefault(name, deque())
        if len(waiting) >= _MOST_EXPECTED:
            return
        making = asyncio.get_running_loop().create_task(self._make(name), name=f"sandbox for a step: {name}")
        # Whoever takes it meets its failure; one that nobody takes is nobody's failure.
        making.add_done_callback(lambda task: task.cancelled() or task.exception())
        waiting.append(making)
        later = asyncio.get_running_loop().call_later
        self._forgetting[making] = later(_EXPECTED_FOR_S, self._forget, waiting, making)

    async def execute(
        self,
        attempt: str,
        template: str | None,
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
        sandbox = await self._take(template or _NEWEST) if resumed is None else resumed.sandbox
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

    def find_language(self, template: str | None, data: StepData) -> Language | None:
        """See ``StepSandboxes``."""
        if data.language is None:
            return None
        return choose_language(self._templates.check(template or _NEWEST), data.language)

    async def resume(self, template: str | None, request: ExecutionRequest) -> Resumed | None:
        """Take up what an earlier process began; None when it began nothing with this tag. Raises ``SandboxFailed``."""
        if request.tag not in self._runtime.kept():
            return None
        resumed = await self._runtime.resume(request, self._templates.check(template or _NEWEST).limits)
        if resumed is None:
            # It must not begin again as the same attempt.
            raise SandboxFailed("The sandbox ended while the process that ran the step was gone")
        return resumed

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

    async def _take(self, name: str) -> Sandbox:
        """A sandbox that lives: one that has ended while it waited costs no attempt, unless they all end."""
        for _ in range(_MOST_EXPECTED):
            losses = self._losses
            sandbox, is_suspect = await self._take_next(name)
            try:
                if await self._lives(sandbox, asked=is_suspect or losses != self._losses):
                    return sandbox
            except asyncio.CancelledError:
                await asyncio.shield(self.destroy_later(sandbox.environment_id))
                raise
            self.destroy_later(sandbox.environment_id)
        return (await self._take_next(name))[0]

    async def _lives(self, sandbox: Sandbox, *, asked: bool) -> bool:
        if asked and sandbox.failure is None:
            try:
                await sandbox.extend(self._lifetime_s)
            except MechanismFault:
                return False
        return sandbox.failure is None

    async def _take_next(self, name: str) -> tuple[Sandbox, bool]:
        """The next that waits, or a new one; and whether it may have ended long ago."""
        waiting = self._expected.get(name)
        making = waiting.popleft() if waiting else asyncio.ensure_future(self._make(name))
        is_suspect = making in self._suspects
        self._suspects.discard(making)
        forgetting = self._forgetting.pop(making, None)
        if forgetting is not None:
            # A timer that runs holds the sandbox, and all that it has, for long after its end.
            forgetting.cancel()
        try:
            return await asyncio.shield(making), is_suspect
        except asyncio.CancelledError:
            await self._spawn(self._discard(making), f"discard a sandbox: {name}")
            raise

    async def make(self, template: str | None, environment_id: EnvironmentId, lifetime_s: float) -> Sandbox:
        """A sandbox of this name. Raises ``MechanismFault``, and ``RequestRefused`` for the template."""
        name = template or _NEWEST
        made_from = self._templates.check(name)
        spec = SandboxSpec(environment_id, name, made_from.limits, lifetime_s, made_from.isolation)
        return await self._runtime.create(spec)

    async def _make(self, name: str) -> Sandbox:
        deadline = asyncio.get_running_loop().time() + _LAUNCHER_PATIENCE_S
        while True:
            # Another id each time: what was asked for in vain may still be made, and is ended then.
            try:
                return await self.make(name, make_environment_id(), self._lifetime_s)
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
                return await self._runtime.destroy(environment_id)
            except MechanismFault as fault:
                _log.warning("sandbox of a step not ended yet", environment_id=environment_id, reason=fault.message)
            await asyncio.sleep(_DESTROY_AGAIN_S)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
