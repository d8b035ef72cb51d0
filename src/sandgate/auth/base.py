"""What the HTTP layer and the command line need from authentication."""

from dataclasses import dataclass
from typing import Protocol

from sandgate.core.file_link import FileGrant, FileLink, OpenLink
from sandgate.core.idempotency import Keep
from sandgate.core.ids import ApiKeyId, UserId
from sandgate.core.page import Page, PageRequest
from sandgate.core.port_link import OpenPortLink, PortGrant, PortLink
from sandgate.core.principal import ApiKey, Principal, Role, User


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A signed token and how long it is valid."""

    access_token: str
    expires_in_s: int


@dataclass(frozen=True, slots=True)
class IssuedApiKey:
    """An API key's row and the one and only showing of its secret."""

    key: ApiKey
    secret: str


class Links(Protocol):
    """Links to files, which are credentials of their own."""

    def make(self, caller: Principal, grant: FileGrant, lifetime_s: int) -> FileLink:
        """A link with which anybody may do what the caller may, of what is granted."""
        ...

    async def open(self, token: str, method: str) -> OpenLink:
        """What a link allows to whoever comes with it. Raises ``FileLinkNotFound``, ``StoreUnavailable``."""
        ...


class PortLinks(Protocol):
    """Links to ports, which are credentials of their own."""

    def make(self, caller: Principal, grant: PortGrant, lifetime_s: int) -> PortLink:
        """A link with which anybody may talk to the server at the port, as the caller may."""
        ...

    async def open(self, token: str) -> OpenPortLink:
        """What a link allows to whoever comes with it. Raises ``PortLinkNotFound``, ``StoreUnavailable``."""
        ...


class Authenticator(Protocol):
    """Credentials of callers."""

    async def issue_token(self, name: str, password: str, address: str) -> IssuedToken:
        """A token for a name and its password, asked for from a client's address.

        Raises ``InvalidCredentials`` (in the same time for an unknown name and a wrong password, and for a
        disabled user) and ``TooManyLoginAttempts``.
        """
        ...

    async def authenticate(self, credential: str) -> Principal:
        """Who presents this token or API key. Raises ``NotAuthenticated``."""
        ...

    async def revoke(self, caller: Principal, token: str | None) -> None:
        """End a token of the caller's own before its time (None: the one that the caller came with).

        Raises ``InvalidRequest`` when it is no valid token of the caller's (an admin may end anybody's).
        """
        ...

    async def create_api_key(
        self,
        caller: Principal,
        label: str,
        expires_in_s: int | None,
        keep: Keep[IssuedApiKey] | None = None,
    ) -> IssuedApiKey:
        """A new key that acts as the caller; what ``keep`` makes of it is on disk with it.

        Raises ``Forbidden`` when the caller came with an API key.
        """
        ...

    async def list_api_keys(self, caller: Principal, page: PageRequest) -> Page[ApiKey]:
        """The caller's own keys."""
        ...

    async def delete_api_key(self, caller: Principal, api_key_id: ApiKeyId) -> None:
        """End one of the caller's own keys. Raises ``ApiKeyNotFound``."""
        ...


class Users(Protocol):
    """The accounts, for admins. Each method raises ``Forbidden`` unless the caller is one (None: the command line)."""

    async def create(
        self,
        caller: Principal | None,
        name: str,
        password: str,
        role: Role,
        keep: Keep[User] | None = None,
    ) -> User:
        """A new user; what ``keep`` makes of it is on disk with it. Raises ``UserNameTaken``, ``InvalidRequest``."""
        ...

    async def get(self, caller: Principal | None, user_id: UserId) -> User:
        """One user. Raises ``UserNotFound``."""
        ...

    async def list(self, caller: Principal | None, page: PageRequest) -> Page[User]:
        """A page of users."""
        ...

    async def update(
        self,
        caller: Principal | None,
        user_id: UserId,
        *,
        role: Role | None = None,
        password: str | None = None,
        disabled: bool | None = None,
    ) -> User:
        """Change a user; a new password and disabling end all tokens issued before.

        Raises ``UserNotFound``, ``LastAdmin``, ``InvalidRequest``.
        """
        ...

    async def delete(self, caller: Principal | None, user_id: UserId) -> None:
        """Remove a user and the user's keys. Raises ``UserNotFound``, ``LastAdmin``."""
        ...
