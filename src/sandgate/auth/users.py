"""The accounts, for admins and for the command line."""

from collections.abc import Callable

from sandgate.auth.accounts import Accounts
from sandgate.auth.names import check_user_name
from sandgate.auth.passwords import Passwords, check_password
from sandgate.core.account_stores import UserStore
from sandgate.core.clock import Clock
from sandgate.core.errors import Forbidden, UserNotFound
from sandgate.core.idempotency import Keep
from sandgate.core.ids import UserId, make_user_id
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal, Role, User


class UserService:
    """Implements :class:`sandgate.auth.base.Users`."""

    def __init__(
        self,
        rows: UserStore,
        accounts: Accounts,
        passwords: Passwords,
        clock: Clock,
        on_password_gone: Callable[[User], None] = lambda _user: None,
    ) -> None:
        """``on_password_gone`` is told of each user whose password is good no longer."""
        self._on_password_gone = on_password_gone
        self._rows = rows
        self._accounts = accounts
        self._passwords = passwords
        self._clock = clock

    async def create(
        self,
        caller: Principal | None,
        name: str,
        password: str,
        role: Role,
        keep: Keep[User] | None = None,
    ) -> User:
        """See :class:`sandgate.auth.base.Users`; raises ``TooManyRequests`` when too many passwords are hashed."""
        _check_admin(caller)
        check_user_name(name)
        check_password(password)
        user = make_user(name, await self._passwords.hash(password), role, self._clock)
        await self._rows.insert(user, keep and keep(user))
        return user

    async def get(self, caller: Principal | None, user_id: UserId) -> User:
        """See :class:`sandgate.auth.base.Users`."""
        _check_admin(caller)
        return _found(await self._rows.find(user_id), user_id)

    async def list(self, caller: Principal | None, page: PageRequest) -> Page[User]:
        """See :class:`sandgate.auth.base.Users`."""
        _check_admin(caller)
        return await self._rows.list(page)

    async def update(
        self,
        caller: Principal | None,
        user_id: UserId,
        *,
        role: Role | None = None,
        password: str | None = None,
        disabled: bool | None = None,
    ) -> User:
        """See :class:`sandgate.auth.base.Users`."""
        _check_admin(caller)
        if password is not None:
            check_password(password)
        present = _found(await self._rows.find(user_id), user_id)
        if role is None and password is None and disabled is None:
            return present
        password_hash = None if password is None else await self._passwords.hash(password)
        changed = await self._accounts.update(user_id, role=role, password_hash=password_hash, disabled=disabled)
        if changed is not None and password is not None:
            self._on_password_gone(changed)
        return _found(changed, user_id)

    async def delete(self, caller: Principal | None, user_id: UserId) -> None:
        """See :class:`sandgate.auth.base.Users`."""
        _check_admin(caller)
        user = _found(await self._rows.find(user_id), user_id)
        if not await self._accounts.delete(user_id):
            raise _not_found(user_id)
        self._on_password_gone(user)


def make_user(name: str, password_hash: str, role: Role, clock: Clock) -> User:
    """A new user's row."""
    now = clock.now()
    return User(
        user_id=make_user_id(),
        name=name,
        role=role,
        password_hash=password_hash,
        disabled=False,
        created_at=now,
        tokens_valid_from=now,
    )


def _check_admin(caller: Principal | None) -> None:
    """None is the command line, which has the database anyway."""
    if caller is not None and not caller.is_admin:
        raise Forbidden(f"Users are managed by admins; {caller.name} has the role {caller.role}")


def _found(user: User | None, user_id: UserId) -> User:
    if user is None:
        raise _not_found(user_id)
    return user


def _not_found(user_id: UserId) -> UserNotFound:
    return UserNotFound(f"There is no user {user_id}")
