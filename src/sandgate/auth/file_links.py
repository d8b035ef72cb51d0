"""Links to files, which end with their environment, too."""

from collections.abc import Callable

from sandgate.auth.accounts import Accounts
from sandgate.auth.link_signer import LinkSigner
from sandgate.core.clock import Clock
from sandgate.core.errors import FileLinkNotFound
from sandgate.core.file_link import FileGrant, FileLink, OpenLink
from sandgate.core.ids import EnvironmentId
from sandgate.core.principal import Principal

PURPOSE = "links to files"


class FileLinks:
    """Implements :class:`sandgate.auth.base.Links`. ``derive`` gives the key."""

    def __init__(self, derive: Callable[[str], bytes], accounts: Accounts, clock: Clock) -> None:
        self._signer = LinkSigner(derive, PURPOSE, accounts, clock, FileLinkNotFound)

    def make(self, caller: Principal, grant: FileGrant, lifetime_s: int) -> FileLink:
        """See :class:`sandgate.auth.base.Links`."""
        allowed = {
            "method": grant.method,
            "environment": grant.environment_id,
            "path": grant.path,
            "name": grant.name,
            "most": grant.most_bytes,
            "overwrite": grant.overwrite,
        }
        token, expires_at = self._signer.make(caller, allowed, lifetime_s)
        return FileLink(token, grant, expires_at)

    async def open(self, token: str, method: str) -> OpenLink:
        """See :class:`sandgate.auth.base.Links`."""
        if self._signer.verify(token)["method"] != method:
            self._signer.refuse()
        holder, said = await self._signer.open(token)
        grant = FileGrant(
            method=said["method"],
            environment_id=EnvironmentId(said["environment"]),
            path=said["path"],
            name=said["name"],
            most_bytes=said["most"],
            overwrite=said["overwrite"],
        )
        return OpenLink(holder, grant)
