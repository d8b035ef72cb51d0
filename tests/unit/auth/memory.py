"""Users and credentials in memory, and services put together on them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from sandgate.auth.accounts import Accounts
from sandgate.auth.keys import KeyRing
from sandgate.auth.passwords import PasswordCost, Passwords
from sandgate.auth.service import AuthService
from sandgate.auth.throttle import LoginThrottle
from sandgate.auth.tokens import Tokens
from sandgate.auth.users import UserService
from sandgate.core.clock import ManualClock
from sandgate.core.errors import LastAdmin, UserNameTaken
from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import ApiKeyId, UserId
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import ApiKey, Role, User

CHEAP = PasswordCost(passes=1, memory_kib=8, lanes=1)

RowT = TypeVar("RowT")


def _page(rows: dict[str, RowT], wanted: PageRequest, keep: Callable[[RowT], bool] = lambda _: True) -> Page[RowT]:
    """Rows of a page, newest first, as the stores answer it."""
    ids = sorted((key for key, row in rows.items() if keep(row)), reverse=True)
    ids = [key for key in ids if wanted.before_id is None or key < wanted.before_id]
    shown = ids[: wanted.limit]
    return Page(tuple(rows[key] for key in shown), shown[-1] if len(ids) > wanted.limit else None)


class MemoryUsers:
    """Satisfies ``UserStore``; counts what it is asked."""

    def __init__(self) -> None:
        self.rows: dict[str, User] = {}
        self.asked: Counter[str] = Counter()

    async def insert(self, user: User, answer: KeptAnswer | None = None) -> None:
        """See the protocol."""
        if any(row.name == user.name for row in self.rows.values()):
            raise UserNameTaken(f"{user.name} is taken")
        self.rows[user.user_id] = user

    async def find(self, user_id: UserId) -> User | None:
        """See the protocol."""
        self.asked["find"] += 1
        return self.rows.get(user_id)

    async def find_by_name(self, name: str) -> User | None:
        """See the protocol."""
        self.asked["find_by_name"] += 1
        return next((row for row in self.rows.values() if row.name == name), None)

    async def list(self, page: PageRequest) -> Page[User]:
        """See the protocol."""
        return _page(self.rows, page)

    async def count(self) -> int:
        """See the protocol."""
        return len(self.rows)

    async def update(
        self,
        user_id: UserId,
        *,
        role: Role | None = None,
        password_hash: str | None = None,
        disabled: bool | None = None,
        tokens_valid_from: datetime | None = None,
    ) -> User | None:
        """See the protocol."""
        row = self.rows.get(user_id)
        if row is None:
            return None
        changed = replace(
            row,
            role=role or row.role,
            password_hash=password_hash or row.password_hash,
            disabled=row.disabled if disabled is None else disabled,
            tokens_valid_from=tokens_valid_from or row.tokens_valid_from,
        )
        self._check_admin_left({**self.rows, user_id: changed})
        self.rows[user_id] = changed
        return changed

    async def delete(self, user_id: UserId) -> bool:
        """See the protocol."""
        left = {key: row for key, row in self.rows.items() if key != user_id}
        if user_id in self.rows:
            self._check_admin_left(left)
        found, self.rows = user_id in self.rows, left
        return found

    def _check_admin_left(self, rows: dict[str, User]) -> None:
        def is_enabled_admin(row: User) -> bool:
            return row.role is Role.ADMIN and not row.disabled

        if any(map(is_enabled_admin, self.rows.values())) and not any(map(is_enabled_admin, rows.values())):
            raise LastAdmin("no enabled admin would be left")


class MemoryCredentials:
    """Satisfies ``CredentialStore``; counts what it is asked."""

    def __init__(self) -> None:
        self.keys: dict[str, ApiKey] = {}
        self.revoked: dict[str, datetime] = {}
        self.asked: Counter[str] = Counter()

    async def insert_api_key(self, key: ApiKey, answer: KeptAnswer | None = None) -> None:
        """See the protocol."""
        self.keys[key.api_key_id] = key

    async def find_api_key(self, api_key_id: ApiKeyId) -> ApiKey | None:
        """See the protocol."""
        self.asked["find_api_key"] += 1
        return self.keys.get(api_key_id)

    async def list_api_keys(self, user_id: UserId, page: PageRequest) -> Page[ApiKey]:
        """See the protocol."""
        return _page(self.keys, page, lambda key: key.user_id == user_id)

    async def touch_api_key(self, api_key_id: ApiKeyId, at: datetime) -> None:
        """See the protocol."""
        self.asked["touch_api_key"] += 1
        if api_key_id in self.keys:
            self.keys[api_key_id] = replace(self.keys[api_key_id], last_used_at=at)

    async def delete_api_key(self, api_key_id: ApiKeyId) -> bool:
        """See the protocol."""
        return self.keys.pop(api_key_id, None) is not None

    async def revoke_token(self, token_id: str, expires_at: datetime) -> None:
        """See the protocol."""
        self.revoked[token_id] = expires_at

    async def is_revoked(self, token_id: str) -> bool:
        """See the protocol."""
        self.asked["is_revoked"] += 1
        return token_id in self.revoked

    async def prune_revoked(self, before: datetime) -> int:
        """See the protocol."""
        old = [token_id for token_id, expires_at in self.revoked.items() if expires_at < before]
        for token_id in old:
            del self.revoked[token_id]
        return len(old)


@dataclass(frozen=True, slots=True)
class Desk:
    """One process's authentication, put together as the server does it, on rows that others may share."""

    clock: ManualClock
    user_rows: MemoryUsers
    credential_rows: MemoryCredentials
    keys: KeyRing
    tokens: Tokens
    passwords: Passwords
    throttle: LoginThrottle
    auth: AuthService
    users: UserService

    @classmethod
    def open(
        cls,
        folder: Path,
        clock: ManualClock,
        user_rows: MemoryUsers,
        credential_rows: MemoryCredentials,
        cost: PasswordCost = CHEAP,
    ) -> "Desk":
        """Close ``passwords`` at the end."""
        keys = KeyRing(folder / "keys", clock)
        keys.open()
        tokens = Tokens(keys, clock, lifetime_s=3600)
        passwords = Passwords(cost, threads=1)
        throttle = LoginThrottle(clock, attempts=10, window_s=60)
        accounts = Accounts(user_rows, clock)
        auth = AuthService(
            accounts=accounts,
            credentials=credential_rows,
            passwords=passwords,
            tokens=tokens,
            throttle=throttle,
            clock=clock,
        )
        users = UserService(user_rows, accounts, passwords, clock)
        return cls(clock, user_rows, credential_rows, keys, tokens, passwords, throttle, auth, users)

    async def login(self, name: str, password: str = "right password", address: str = "192.0.2.1") -> str:
        """A token for the user."""
        return (await self.auth.issue_token(name, password, address)).access_token
