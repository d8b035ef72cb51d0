"""All environments with a network on this machine, and the way out of each."""

import asyncio
from weakref import WeakValueDictionary

from sandgate.core.clock import Clock
from sandgate.core.destinations import SpecialAddresses
from sandgate.core.network import NetworkPolicy, NetworkReport, NetworkRules
from sandgate.sandbox.proxy.entrance import Entrance
from sandgate.sandbox.proxy.gatekeeper import Gatekeeper, Place
from sandgate.sandbox.proxy.ledger import Ledger
from sandgate.sandbox.proxy.notes import Notes, Say
from sandgate.sandbox.proxy.policy import Patterns
from sandgate.sandbox.proxy.resolver import LookUp, Resolver, look_up
from sandgate.sandbox.proxy.way_out import Turns, WayOut


def make_gatekeeper(policy: NetworkPolicy, look_up: LookUp = look_up) -> Gatekeeper:
    """What the administrator says, read. Raises ``ConfigurationError``."""
    special = SpecialAddresses(policy.special, "SANDGATE_NETWORK_ALLOW_SPECIAL")
    only, deny = Patterns(policy.only, "SANDGATE_NETWORK_ONLY"), Patterns(policy.deny, "SANDGATE_NETWORK_DENY")
    return Gatekeeper(Resolver(special, look_up), only, deny, policy.limits)


class ProxyServer:
    """Within one event loop. ``say`` is told what the log of the server is to have."""

    def __init__(self, gatekeeper: Gatekeeper, clock: Clock, say: Say) -> None:
        self._gatekeeper = gatekeeper
        self._limits = gatekeeper.limits
        self._clock = clock
        self._say = say
        self._ways_out: dict[str, WayOut] = {}
        self._all = asyncio.Semaphore(self._limits.connections)
        self._of_owners: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def open(self, environment_id: str, owner: str, rules: NetworkRules, listener: Entrance) -> None:
        """Begin to take connections from a listener, which is closed in the end."""
        known = self._ways_out.pop(environment_id, None)
        if known is not None:
            await known.close()
        limits = self._limits
        ledger = self._ledger(environment_id, owner) if known is None else known.place.ledger
        of_owner = self._of_owners.get(owner)
        if of_owner is None:
            of_owner = self._of_owners[owner] = asyncio.Semaphore(limits.connections_of_owner)
        turns = Turns(asyncio.Semaphore(limits.connections_of_environment), of_owner, self._all)
        place = Place(environment_id, owner, rules, ledger)
        self._ways_out[environment_id] = WayOut(place, listener, self._gatekeeper, turns)

    def _ledger(self, environment_id: str, owner: str) -> Ledger:
        limits, clock = self._limits, self._clock
        notes = Notes(environment_id, owner, limits.logged_per_minute, self._say, clock.monotonic)
        return Ledger(clock.now, limits.kept_connections, limits.total_bytes, notes)

    def change(self, environment_id: str, rules: NetworkRules) -> None:
        """Other rules from now on; one that is not known is no error."""
        if environment_id in self._ways_out:
            self._ways_out[environment_id].change(rules)

    async def close(self, environment_id: str) -> None:
        """Cut an environment off; one that is not known is no error."""
        way_out = self._ways_out.pop(environment_id, None)
        if way_out is not None:
            await way_out.close()
            way_out.place.ledger.close()

    def report(self, environment_id: str) -> NetworkReport | None:
        """What it has reached; None for one that is not known."""
        way_out = self._ways_out.get(environment_id)
        if way_out is None:
            return None
        ledger = way_out.place.ledger
        return NetworkReport(way_out.place.rules, ledger.totals(), tuple(ledger.newest()))

    async def close_all(self) -> None:
        """Cut all of them off."""
        for environment_id in list(self._ways_out):
            await self.close(environment_id)
