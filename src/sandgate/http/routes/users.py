"""Accounts, for admins, and who one is."""

from typing import Annotated

from fastapi import Query
from starlette.requests import Request

from sandgate.auth.base import Users
from sandgate.core import errors
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.idempotency import keeper
from sandgate.http.models.accounts import MeAnswer, UserAnswer, UserDeletedAnswer, UsersAnswer
from sandgate.http.models.requests import CreateUser, UpdateUser
from sandgate.http.pagination import PageQuery, next_cursor
from sandgate.http.paths import UserPath

_USERS = "/api/v1/users"
_USER = f"{_USERS}/{{user_id}}"
_TAG = "users"

# Passwords are hashed a few at a time, on purpose slowly.
_HASHING = (errors.TooManyRequests, errors.ServiceDraining)


def add_user_routes(api: Api, users: Users) -> None:
    """Declare the operations."""

    @api.operation("GET", "/api/v1/me", tag=_TAG)
    async def get_me(caller: Caller) -> MeAnswer:
        """Who the credential belongs to."""
        return MeAnswer.of(caller)

    @api.operation(
        "POST",
        _USERS,
        tag=_TAG,
        status=201,
        idempotent=True,
        errors=(errors.Forbidden, errors.UserNameTaken, *_HASHING),
    )
    async def create_user(caller: Caller, body: CreateUser, request: Request) -> UserAnswer:
        """Make a user."""
        keep = keeper(request, UserAnswer.of)
        return UserAnswer.of(await users.create(caller, body.username, body.password, body.wanted_role(), keep))

    @api.operation("GET", _USERS, tag=_TAG, errors=(errors.Forbidden,))
    async def list_users(caller: Caller, query: Annotated[PageQuery, Query()]) -> UsersAnswer:
        """List all users, newest first."""
        page = await users.list(caller, query.page_request("user"))
        return UsersAnswer(users=[UserAnswer.of(user) for user in page.items], next_cursor=next_cursor(page))

    @api.operation("GET", _USER, tag=_TAG, errors=(errors.Forbidden, errors.UserNotFound))
    async def get_user(caller: Caller, user_id: UserPath) -> UserAnswer:
        """Get one user."""
        return UserAnswer.of(await users.get(caller, user_id))

    @api.operation(
        "PATCH", _USER, tag=_TAG, errors=(errors.Forbidden, errors.UserNotFound, errors.LastAdmin, *_HASHING)
    )
    async def update_user(caller: Caller, user_id: UserPath, body: UpdateUser) -> UserAnswer:
        """Change role or password, disable or enable. A new password and disabling end all tokens issued before."""
        user = await users.update(
            caller, user_id, role=body.wanted_role(), password=body.password, disabled=body.disabled
        )
        return UserAnswer.of(user)

    @api.operation("DELETE", _USER, tag=_TAG, errors=(errors.Forbidden, errors.UserNotFound, errors.LastAdmin))
    async def delete_user(caller: Caller, user_id: UserPath) -> UserDeletedAnswer:
        """Remove a user and the user's API keys."""
        await users.delete(caller, user_id)
        return UserDeletedAnswer(user_id=user_id)
