"""Accounts, for admins, and who one is."""

from typing import Annotated

from starlette.requests import Request

from sandgate.auth.base import Users
from sandgate.core import errors
from sandgate.environments.base import Quotas
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.idempotency import keeper
from sandgate.http.marks import Query
from sandgate.http.models.accounts import MeAnswer, UserAnswer, UserDeletedAnswer, UsersAnswer
from sandgate.http.models.quotas import QuotaAnswer, QuotaParts, SetQuota
from sandgate.http.models.requests import CreateUser, UpdateUser
from sandgate.http.pagination import PageQuery, next_cursor
from sandgate.http.paths import UserPath

_USERS = "/api/v1/users"
_USER = f"{_USERS}/{{user_id}}"
_QUOTA = f"{_USER}/quota"
_TAG = "users"

# Passwords are hashed a few at a time, on purpose slowly.
_HASHING = (errors.TooManyRequests, errors.ServiceDraining)


def add_user_routes(api: Api, users: Users, quotas: Quotas) -> None:
    """Declare the operations."""
    _add_account_routes(api, users)
    _add_quota_routes(api, quotas)

    @api.operation("GET", "/api/v1/me", tag=_TAG)
    async def get_me(caller: Caller) -> MeAnswer:
        """Who the credential belongs to, and what that user may use and uses."""
        return MeAnswer.of(caller, await quotas.report(caller))


def _add_quota_routes(api: Api, quotas: Quotas) -> None:
    @api.operation("GET", _QUOTA, tag=_TAG, errors=(errors.Forbidden, errors.UserNotFound))
    async def get_quota(caller: Caller, user_id: UserPath) -> QuotaAnswer:
        """What a user may use, and uses."""
        return QuotaAnswer(user_id=user_id, quota=QuotaParts.of(await quotas.get(caller, user_id)))

    @api.operation("PUT", _QUOTA, tag=_TAG, errors=(errors.Forbidden, errors.UserNotFound))
    async def put_quota(caller: Caller, user_id: UserPath, body: SetQuota) -> QuotaAnswer:
        """Set what a user may use. It holds for what is asked for from now on; what there is stays."""
        report = await quotas.put(caller, user_id, body.wanted())
        return QuotaAnswer(user_id=user_id, quota=QuotaParts.of(report))

    @api.operation("DELETE", _QUOTA, tag=_TAG, errors=(errors.Forbidden, errors.UserNotFound))
    async def delete_quota(caller: Caller, user_id: UserPath) -> QuotaAnswer:
        """Leave what a user may use to the server's settings again."""
        return QuotaAnswer(user_id=user_id, quota=QuotaParts.of(await quotas.delete(caller, user_id)))


def _add_account_routes(api: Api, users: Users) -> None:

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
