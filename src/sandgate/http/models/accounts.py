"""What clients get to read about tokens, keys and users."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from sandgate.core.principal import ApiKey, Principal, Role, User
from sandgate.core.quota import QuotaReport
from sandgate.http.models.base import Model
from sandgate.http.models.parts import Cursor, with_example
from sandgate.http.models.quotas import QUOTA_EXAMPLE, QuotaParts

_USER_ID = "user-06evrhwp4g000e8v0zrc4v1m6h"
_KEY_ID = "key-06evrhwzr0000c9kq9nb4dj8yt"
_TIME = "2026-01-01T00:00:00Z"
_USER = {"user_id": _USER_ID, "username": "alice", "role": "user", "disabled": False, "creation_time": _TIME}
_KEY = {
    "api_key_id": _KEY_ID,
    "label": "build server",
    "creation_time": _TIME,
    "expires_at": None,
    "last_used_at": None,
}


class TokenAnswer(Model):
    """A token, and for how many seconds it is valid."""

    model_config = with_example({"access_token": "eyJhbGciOi…", "token_type": "Bearer", "expires_in": 3600})

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the kind of token, not one
    expires_in: int


class RevokedAnswer(Model):
    """The token is not accepted any more."""

    model_config = with_example({"status": "revoked"})

    status: Literal["revoked"] = "revoked"


class ApiKeyAnswer(Model):
    """An API key, without its secret."""

    model_config = with_example(_KEY)

    api_key_id: str
    label: str
    creation_time: datetime
    expires_at: datetime | None
    last_used_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey) -> "ApiKeyAnswer":
        """From the record."""
        return cls(**_key_fields(key))


class NewApiKeyAnswer(ApiKeyAnswer):
    """A new API key. `api_key` is shown this once; it is null when an idempotent request is answered again."""

    model_config = with_example({**_KEY, "api_key": "sgk_…"})

    api_key: str | None

    @classmethod
    def made(cls, key: ApiKey, secret: str) -> "NewApiKeyAnswer":
        """From the record and its secret."""
        return cls(**_key_fields(key), api_key=secret)


def _key_fields(key: ApiKey) -> dict[str, Any]:
    return {
        "api_key_id": key.api_key_id,
        "label": key.label,
        "creation_time": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
    }


class ApiKeysAnswer(Model):
    """A page of the caller's API keys, newest first."""

    model_config = with_example({"api_keys": [_KEY], "next_cursor": None})

    api_keys: list[ApiKeyAnswer]
    next_cursor: Cursor


class ApiKeyDeletedAnswer(Model):
    """The key is not accepted any more."""

    model_config = with_example({"api_key_id": _KEY_ID, "status": "deleted"})

    api_key_id: str
    status: Literal["deleted"] = "deleted"


class UserAnswer(Model):
    """A user."""

    model_config = with_example(_USER)

    user_id: str
    username: str
    role: Role
    disabled: bool
    creation_time: datetime

    @classmethod
    def of(cls, user: User) -> "UserAnswer":
        """From the record."""
        return cls(
            user_id=user.user_id,
            username=user.name,
            role=user.role,
            disabled=user.disabled,
            creation_time=user.created_at,
        )


class UsersAnswer(Model):
    """A page of users, newest first."""

    model_config = with_example({"users": [_USER], "next_cursor": None})

    users: list[UserAnswer]
    next_cursor: Cursor


class UserDeletedAnswer(Model):
    """The user and the user's keys are gone."""

    model_config = with_example({"user_id": _USER_ID, "status": "deleted"})

    user_id: str
    status: Literal["deleted"] = "deleted"


class MeAnswer(Model):
    """Who the credential belongs to, what that user may use, and how much of it is used."""

    model_config = with_example(
        {"user_id": _USER_ID, "username": "alice", "role": "user", "credential": "token", "quota": QUOTA_EXAMPLE}
    )

    user_id: str
    username: str
    role: Role
    credential: Annotated[Literal["token", "api_key"], Field(description="What the request came with.")]
    quota: QuotaParts

    @classmethod
    def of(cls, caller: Principal, report: QuotaReport) -> "MeAnswer":
        """From the caller."""
        kind: Literal["token", "api_key"] = "token" if caller.api_key_id is None else "api_key"
        quota = QuotaParts.of(report)
        return cls(user_id=caller.user_id, username=caller.name, role=caller.role, credential=kind, quota=quota)
