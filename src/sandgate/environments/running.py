"""The use cases of code that runs in environments."""

from dataclasses import replace

from sandgate.core.errors import ExecutionNotRunning, ServiceDraining
from sandgate.core.execution import Execution, ExecutionRequest, Surroundings, Termination
from sandgate.core.ids import EnvironmentId, ExecutionId, SessionId, UserId
from sandgate.core.language import Language
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal, Role
from sandgate.core.template import Template, choose_language
from sandgate.environments.access import check_can_change, check_is_here
from sandgate.environments.base import Templates
from sandgate.environments.executions import Executions
from sandgate.environments.following import Events, follow, replay
from sandgate.environments.journal import Offsets
from sandgate.environments.lifecycle import Lifecycle
from sandgate.environments.live import ActiveExecution, LiveEnvironment
from sandgate.environments.lookup import Lookup
from sandgate.environments.quotas import UserQuotas
from sandgate.environments.variables import VariableGiver, give_step
from sandgate.sandbox.base import Collect, Mask
from sandgate.store.base import Store


def _measure(code: str, around: Surroundings | None) -> int:
    """How many bytes an execution holds until it has begun."""
    size = len(code) if code.isascii() else len(code.encode("utf-8", "replace"))
    return size if around is None else size + around.measure()


class CodeRunner:
    """The part of ``EnvironmentService`` that is about executions."""

    _store: Store
    _lifecycle: Lifecycle
    _lookup: Lookup
    _executions: Executions
    _templates: Templates
    _variables: VariableGiver
    quotas: UserQuotas
    _server_id: str
    _draining = False

    async def execute(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        code: str,
        timeout_s: float | None,
        around: Surroundings | None = None,
        language: str | None = None,
        session_id: SessionId | None = None,
    ) -> Execution:
        """See ``Environments``."""
        live = self._lifecycle.find(environment_id)
        if live is None:
            live = await self._lookup.get_live(caller, environment_id)
        check_can_change(caller, live.row)
        self._check_not_draining()
        self._executions.check_code(code)
        if session_id is not None:
            live.sessions.get(session_id).check_can_run(caller, live.row)
        elif live.row.variables:
            around = await self._variables.surround(caller, live.row, around)
        if around is not None:
            self._executions.check_around(around)
        chosen = self._choose_language(live, language)
        user_id, size_bytes = caller.user_id, _measure(code, around)
        await self.quotas.begin(user_id, size_bytes)
        try:
            return await self._executions.run(live, code, timeout_s, around, chosen, session_id)
        finally:
            self.quotas.end(user_id, size_bytes)

    async def begin_execution(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        code: str,
        timeout_s: float | None,
        around: Surroundings | None,
        language: str | None = None,
        session_id: SessionId | None = None,
    ) -> Execution:
        """See ``Environments``."""
        active = await self._begin(caller, environment_id, code, timeout_s, around, language, session_id, durable=True)
        return active.row

    async def stream_execution(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        code: str,
        timeout_s: float | None,
        around: Surroundings | None,
        language: str | None = None,
        session_id: SessionId | None = None,
        *,
        detach: bool,
    ) -> Events:
        """See ``Environments``."""
        active = await self._begin(
            caller, environment_id, code, timeout_s, around, language, session_id, durable=detach
        )
        return follow(active, Offsets(), is_new=True, leads=not detach, sets_pace=True)

    async def _begin(
        self,
        caller: Principal,
        environment_id: EnvironmentId,
        code: str,
        timeout_s: float | None,
        around: Surroundings | None,
        language: str | None,
        session_id: SessionId | None,
        *,
        durable: bool,
    ) -> ActiveExecution:
        live = await self._lookup.get_live(caller, environment_id)
        self._check_not_draining()
        self._executions.check_code(code)
        if session_id is not None:
            live.sessions.get(session_id).check_can_run(caller, live.row)
        else:
            around = await self._variables.surround(caller, live.row, around)
        if around is not None:
            self._executions.check_around(around)
        chosen = self._choose_language(live, language)
        size = _measure(code, around)
        await self.quotas.begin(caller.user_id, size)
        try:
            active = await self._executions.begin(live, code, timeout_s, around, chosen, session_id, durable=durable)
        except BaseException:
            self.quotas.end(caller.user_id, size)
            raise
        active.on_record(lambda: self.quotas.end(caller.user_id, size))
        return active

    async def follow_execution(
        self, caller: Principal, environment_id: EnvironmentId, execution_id: ExecutionId, offsets: Offsets | None
    ) -> Events:
        """See ``Environments``."""
        live = await self._lookup.find_seen(caller, environment_id)
        active = None if live is None else self._executions.find_active(live, execution_id)
        if active is not None and active.can_be_seen:
            return follow(active, offsets or Offsets(), is_new=offsets is None)
        if active is None:
            await self._lookup.find_execution(environment_id, execution_id)

        async def look() -> Execution | None:
            return await self._store.executions.find(execution_id) or (None if active is None else active.row)

        return replay(look, offsets or Offsets(), is_new=offsets is None, active=active)

    async def execute_step(
        self,
        owner_id: UserId,
        environment_id: EnvironmentId,
        request: ExecutionRequest,
        mask: Mask | None = None,
        collect: Collect | None = None,
    ) -> Termination:
        """Run the code of a workflow's step in an environment of the workflow's owner.

        Its record is what ``mask`` says; ``collect`` is awaited when it has ended.

        When it is cancelled, it raises ``CancelledError`` once nothing of it runs any more. Raises
        ``EnvironmentNotFound``, also for another user's, ``EnvironmentNotRunning``, ``TooManyExecutions``,
        ``UnknownLanguage``, ``ServiceDraining``.
        """
        owner = Principal(owner_id, "", Role.USER)
        live = await self._lookup.get_live(owner, environment_id)
        self._check_not_draining()
        given = give_step(live.row, request)
        if request.data is not None:
            given = replace(given, language=self._choose_language(live, request.data.language))
        return await self._executions.run_step(live, given, mask, collect)

    async def get_execution(
        self, caller: Principal, environment_id: EnvironmentId, execution_id: ExecutionId
    ) -> Execution:
        """See ``Environments``."""
        live = await self._lookup.find_seen(caller, environment_id)
        active = None if live is None else self._executions.find_active(live, execution_id)
        if active is not None:
            return active.row
        return await self._lookup.find_execution(environment_id, execution_id)

    async def list_executions(
        self, caller: Principal, environment_id: EnvironmentId, page: PageRequest
    ) -> Page[Execution]:
        """See ``Environments``. An execution that began just now may be missing until it has a row."""
        await self._lookup.find_seen(caller, environment_id)
        return await self._store.executions.list(environment_id, page)

    async def cancel_execution(
        self, caller: Principal, environment_id: EnvironmentId, execution_id: ExecutionId
    ) -> Execution:
        """See ``Environments``."""
        live = self._lifecycle.find(environment_id)
        row = live.row if live is not None else await self._lookup.find_row(environment_id)
        check_can_change(caller, row)
        if live is None:
            check_is_here(row, self._server_id)
        active = self._executions.find_active(live, execution_id) if live is not None else None
        if active is not None:
            # What stands still cannot be ended cleanly.
            await self._lookup.get_awake(caller, environment_id)
            return await self._executions.cancel(active)
        found = await self._lookup.find_execution(environment_id, execution_id)
        raise ExecutionNotRunning(
            f"Execution {execution_id} has ended already ({found.status})", {"status": found.status.value}
        )

    def _choose_language(self, live: LiveEnvironment, name: str | None) -> Language | None:
        """None for that of the environment's interpreter. Raises ``UnknownLanguage``."""
        return None if name is None else choose_language(self._find_template(live), name)

    def _find_template(self, live: LiveEnvironment) -> Template:
        return self._templates.get(live.row.template, live.row.owner_id)

    def _check_not_draining(self) -> None:
        if self._draining:
            raise ServiceDraining("The service is stopping and takes no new work; ask again when it is back")
