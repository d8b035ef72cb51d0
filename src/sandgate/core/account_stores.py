"""What is asked of a database about users and what they prove themselves with: authentication asks, the store answers.

Neither knows the other. Every method may raise ``StoreUnavailable``.
"""

from datetime import datetime
from typing import Protocol

from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import ApiKeyId, UserId
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import ApiKey, Role, User


class UserStore(Protocol):
    """Rows of users."""

    async def insert(self, user: User, answer: KeptAnswer | None = None) -> None:
        """Add a row, and what is answered about it; raises ``UserNameTaken``."""
        ...

    async def find(self, user_id: UserId) -> User | None:
        """The row with this id."""
        ...

    async def find_by_name(self, name: str) -> User | None:
        """The row with this name (compared exactly)."""
        ...

    async def list(self, page: PageRequest) -> Page[User]:
        """A page, newest first."""
        ...

    async def count(self) -> int:
        """How many users there are."""
        ...

    async def update(
        self,
        user_id: UserId,
        *,
        role: Role | None = None,
        password_hash: str | None = None,
        disabled: bool | None = None,
        tokens_valid_from: datetime | None = None,
    ) -> User | None:
        """Change what is not None in one transaction and answer the new row; None when there is none.

        Raises ``LastAdmin``, with nothing written, when no enabled admin would be left.
        """
        ...

    async def delete(self, user_id: UserId) -> bool:
        """Remove the row, API keys, schedules and webhooks; False when there was none. Raises ``LastAdmin``."""
        ...


class CredentialStore(Protocol):
    """API keys, and tokens that were ended before their time."""

    async def insert_api_key(self, key: ApiKey, answer: KeptAnswer | None = None) -> None:
        """Add a row, and what is answered about it; raises ``UserNotFound`` when its user was deleted meanwhile."""
        ...

    async def find_api_key(self, api_key_id: ApiKeyId) -> ApiKey | None:
        """The row."""
        ...

    async def list_api_keys(self, user_id: UserId, page: PageRequest) -> Page[ApiKey]:
        """A page of a user's keys, newest first."""
        ...

    async def touch_api_key(self, api_key_id: ApiKeyId, at: datetime) -> None:
        """Note when the key was last used."""
        ...

    async def delete_api_key(self, api_key_id: ApiKeyId) -> bool:
        """Remove the row; False when there was none."""
        ...

    async def revoke_token(self, token_id: str, expires_at: datetime) -> None:
        """Remember that the token is ended, until it would have expired anyway."""
        ...

    async def is_revoked(self, token_id: str) -> bool:
        """Whether the token was ended."""
        ...

    async def prune_revoked(self, before: datetime) -> int:
        """Forget tokens that expired before; answers how many."""
        ...
