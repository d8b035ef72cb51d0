"""Links to ports, which end with their environment, too."""

from collections.abc import Callable

from sandgate.auth.accounts import Accounts
from sandgate.auth.link_signer import LinkSigner
from sandgate.core.clock import Clock
from sandgate.core.errors import PortLinkNotFound
from sandgate.core.ids import EnvironmentId
from sandgate.core.port_link import OpenPortLink, PortGrant, PortLink
from sandgate.core.principal import Principal

PURPOSE = "links to ports"


class SignedPortLinks:
    """Implements :class:`sandgate.auth.base.PortLinks`. ``derive`` gives the key."""

    def __init__(self, derive: Callable[[str], bytes], accounts: Accounts, clock: Clock) -> None:
        self._signer = LinkSigner(derive, PURPOSE, accounts, clock, PortLinkNotFound)

    def make(self, caller: Principal, grant: PortGrant, lifetime_s: int) -> PortLink:
        """See :class:`sandgate.auth.base.PortLinks`."""
        allowed = {"environment": grant.environment_id, "port": grant.port}
        token, expires_at = self._signer.make(caller, allowed, lifetime_s)
        return PortLink(token, grant, expires_at)

    async def open(self, token: str) -> OpenPortLink:
        """See :class:`sandgate.auth.base.PortLinks`."""
        holder, said = await self._signer.open(token)
        return OpenPortLink(holder, PortGrant(EnvironmentId(said["environment"]), said["port"]))
