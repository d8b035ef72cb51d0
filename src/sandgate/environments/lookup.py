"""Finds environments and executions, in memory or in the database, for a caller."""

from sandgate.core.environment import Environment
from sandgate.core.errors import ExecutionNotFound
from sandgate.core.execution import Execution
from sandgate.core.ids import EnvironmentId, ExecutionId
from sandgate.core.principal import Principal
from sandgate.environments.access import check_can_change, check_can_see, check_is_here, environment_not_found
from sandgate.environments.lifecycle import Lifecycle
from sandgate.environments.live import LiveEnvironment, not_running
from sandgate.store.base import Store


class Lookup:
    """What is live comes from memory, all else from the store."""

    def __init__(self, store: Store, lifecycle: Lifecycle, server_id: str) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._server_id = server_id

    async def find_seen(self, caller: Principal, environment_id: EnvironmentId) -> LiveEnvironment | None:
        """The live environment; None when there is only a row. Raises ``EnvironmentNotFound``."""
        live = self._lifecycle.find(environment_id)
        check_can_see(caller, live.row if live is not None else await self.find_row(environment_id))
        return live

    def newest(self, row: Environment) -> Environment:
        """What memory holds of it, which is ahead of the database by the write of ``running``."""
        live = self._lifecycle.find(row.environment_id)
        return row if live is None else live.row

    async def find_row(self, environment_id: EnvironmentId) -> Environment:
        """The row of any environment, whoever's it is. Raises ``EnvironmentNotFound``."""
        row = await self._store.environments.find(environment_id)
        if row is None:
            raise environment_not_found(environment_id)
        return row

    async def get_live(
        self, caller: Principal, environment_id: EnvironmentId, *, changes: bool = True
    ) -> LiveEnvironment:
        """A live environment that the caller may change, or at least see.

        Raises ``EnvironmentNotRunning`` for one that has ended.
        """
        check = check_can_change if changes else check_can_see
        live = self._lifecycle.find(environment_id)
        if live is None:
            row = await self.find_row(environment_id)
            check(caller, row)
            check_is_here(row, self._server_id)
            raise not_running(environment_id, row.status, row.status_reason)
        check(caller, live.row)
        return live

    async def get_awake(self, caller: Principal, environment_id: EnvironmentId) -> LiveEnvironment:
        """One that the caller may change, to do something with what is in it: paused it is resumed.

        Raises ``EnvironmentNotRunning``, ``LauncherUnavailable``.
        """
        live = await self.get_live(caller, environment_id)
        if live.is_paused:
            await live.wait_for_sandbox()
        return live

    async def find_execution(self, environment_id: EnvironmentId, execution_id: ExecutionId) -> Execution:
        """A recorded execution of the environment. Raises ``ExecutionNotFound``."""
        row = await self._store.executions.find(execution_id)
        if row is None or row.environment_id != environment_id:
            raise ExecutionNotFound(f"Environment {environment_id} has no execution {execution_id}")
        return row
