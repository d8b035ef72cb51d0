"""The use case of what listens in environments: a connection to it, for whoever may change the environment."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sandgate.config.settings import Settings
from sandgate.core.byte_stream import ByteStream
from sandgate.core.errors import NetworkNotOffered, PortNotServed, SandboxFailed, TooManyPortConnections
from sandgate.core.ids import EnvironmentId, UserId
from sandgate.core.principal import Principal
from sandgate.environments.live import LiveEnvironment
from sandgate.environments.lookup import Lookup
from sandgate.environments.network import WITHOUT_NETWORK


class PortService:
    """Counts the connections that are open."""

    def __init__(self, lookup: Lookup, settings: Settings) -> None:
        self._lookup = lookup
        self._settings = settings
        self._open: Counter[EnvironmentId] = Counter()
        self._open_of_users: Counter[UserId] = Counter()

    @property
    def open_count(self) -> int:
        """How many connections are open."""
        return self._open.total()

    async def check(self, caller: Principal, environment_id: EnvironmentId) -> None:
        """Whether the caller may talk to what listens in a live environment. Raises ``NetworkNotOffered``."""
        await self._check(caller, environment_id)

    async def _check(self, caller: Principal, environment_id: EnvironmentId) -> LiveEnvironment:
        live = await self._lookup.get_live(caller, environment_id)
        if live.row.isolation in WITHOUT_NETWORK:
            raise NetworkNotOffered(
                f"Ports of environments of isolation class {live.row.isolation} cannot be reached; "
                "ask for the class standard",
                {"isolation": live.row.isolation.value},
            )
        return live

    @asynccontextmanager
    async def connect(self, caller: Principal, environment_id: EnvironmentId, port: int) -> AsyncIterator[ByteStream]:
        """A connection to what listens at a port, closed with the block.

        Raises ``PortNotServed``, ``TooManyPortConnections`` and what :meth:`check` does.
        """
        live = await self._check(caller, environment_id)
        with self._counted(environment_id, live.row.owner_id), live.in_use():
            stream = await self._dial(caller, environment_id, port)
            try:
                yield stream
            finally:
                stream.close()

    async def _dial(self, caller: Principal, environment_id: EnvironmentId, port: int) -> ByteStream:
        live = await self._lookup.get_live(caller, environment_id)
        sandbox = await live.wait_for_sandbox()
        try:
            return await sandbox.network.dial(port)
        except OSError:
            raise PortNotServed(
                f"Nothing in environment {environment_id} takes connections at port {port}; start a server there that "
                "listens on 127.0.0.1 or on all addresses",
                {"port": port},
            ) from None
        except SandboxFailed:
            if sandbox.failure is not None or live.ending is not None:
                raise live.refusal() from None
            raise

    @contextmanager
    def _counted(self, environment_id: EnvironmentId, owner_id: UserId) -> Iterator[None]:
        most_of_one, most = self._settings.max_port_connections_per_environment, self._settings.max_port_connections
        most_of_user = self._settings.max_port_connections_per_user
        if self._open[environment_id] >= most_of_one:
            raise TooManyPortConnections(
                f"{most_of_one} connections to ports of this environment are open, the most allowed",
                {"limit": most_of_one},
            )
        if self._open_of_users[owner_id] >= most_of_user:
            raise TooManyPortConnections(
                f"{most_of_user} connections to ports of environments of this owner are open, the most allowed",
                {"limit": most_of_user},
            )
        if self.open_count >= most:
            raise TooManyPortConnections(
                f"The server has {most} connections to ports open, the most allowed; ask again later", {"limit": most}
            )
        self._open[environment_id] += 1
        self._open_of_users[owner_id] += 1
        try:
            yield
        finally:
            self._open[environment_id] -= 1
            if not self._open[environment_id]:
                del self._open[environment_id]
            self._open_of_users[owner_id] -= 1
            if not self._open_of_users[owner_id]:
                del self._open_of_users[owner_id]
