"""Who is asking."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sandgate.core.ids import ApiKeyId, UserId


class Role(StrEnum):
    """What a user may do: ``viewer`` reads its own, ``user`` changes its own, ``admin`` sees and changes all."""

    VIEWER = "viewer"
    USER = "user"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller, as the use cases see it."""

    user_id: UserId
    name: str
    role: Role
    token_id: str | None = None
    api_key_id: ApiKeyId | None = None

    @property
    def is_admin(self) -> bool:
        """Whether this caller sees what others own."""
        return self.role is Role.ADMIN

    @property
    def can_write(self) -> bool:
        """Whether this caller may change anything."""
        return self.role is not Role.VIEWER


@dataclass(frozen=True, slots=True)
class User:
    """A user's row. Tokens issued before ``tokens_valid_from`` are refused."""

    user_id: UserId
    name: str
    role: Role
    password_hash: str
    disabled: bool
    created_at: datetime
    tokens_valid_from: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key's row; of the secret only a SHA-256 is kept."""

    api_key_id: ApiKeyId
    user_id: UserId
    label: str
    secret_sha256: bytes
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
