"""The use cases of what environments reach of the network."""

from contextlib import suppress

from sandgate.config.settings import Settings
from sandgate.core.environment import Environment
from sandgate.core.errors import MechanismFault, NetworkNotOffered, TooManyNetworkRules
from sandgate.core.ids import EnvironmentId
from sandgate.core.network import NetworkReport, NetworkRules
from sandgate.core.principal import Principal
from sandgate.core.states import Isolation
from sandgate.environments.live import LiveEnvironment
from sandgate.environments.lookup import Lookup
from sandgate.sandbox.base import Sandbox
from sandgate.telemetry.log import get_logger

_log = get_logger(__name__)
# Its environments have the machine's.
WITHOUT_NETWORK = frozenset({Isolation.PROCESS})


class NetworkService:
    """Lets live environments reach hosts, and tells what they have reached."""

    def __init__(self, lookup: Lookup, settings: Settings) -> None:
        self._lookup = lookup
        self._settings = settings

    def check(self, rules: NetworkRules | None, isolation: Isolation) -> None:
        """Whether an environment may have such rules. Raises ``NetworkNotOffered``, ``TooManyNetworkRules``."""
        if rules is None:
            return
        if not self._settings.network_enabled:
            raise NetworkNotOffered("This server gives environments no network; its administrator can change that")
        if isolation in WITHOUT_NETWORK:
            raise NetworkNotOffered(
                f"Environments of isolation class {isolation} have no network of their own; ask for the class standard",
                {"isolation": isolation.value},
            )
        most = self._settings.max_network_rules
        if len(rules.allow) > most:
            raise TooManyNetworkRules(f"{len(rules.allow)} hosts are named; {most} is the most", {"limit": most})

    async def report(self, caller: Principal, environment_id: EnvironmentId) -> NetworkReport:
        """What a live environment may reach, and has reached. Raises ``NetworkUnavailable``."""
        live = await self._lookup.get_live(caller, environment_id, changes=False)
        sandbox = await live.wait_for_sandbox()
        return await sandbox.network.report()

    async def change(self, live: LiveEnvironment, rules: NetworkRules | None) -> None:
        """Let it reach something else from now on. Raises ``MechanismFault``; then it reaches what it did."""
        await apply(await live.wait_for_sandbox(), rules, live.row)

    async def undo(self, live: LiveEnvironment) -> None:
        """A change was not written down: what its row says is true again."""
        # One that is ending has no network any more, and one that cannot be told is told by the next gateway.
        with suppress(MechanismFault):
            await apply(await live.wait_for_sandbox(), live.row.network, live.row)

    async def open_again(self, sandbox: Sandbox, row: Environment) -> None:
        """After an earlier gateway. If it fails the environment lives, and its code finds that it reaches nothing."""
        if row.network is None:
            return
        try:
            await apply(sandbox, row.network if self._settings.network_enabled else None, row)
        except MechanismFault as fault:
            _log.warning("network not opened again", environment_id=row.environment_id, reason=fault.message)


async def apply(sandbox: Sandbox, rules: NetworkRules | None, row: Environment) -> None:
    """Let a sandbox reach what rules say. Raises ``MechanismFault``."""
    if rules is None:
        await sandbox.network.close()
    else:
        await sandbox.network.allow(rules, row.owner_id)
