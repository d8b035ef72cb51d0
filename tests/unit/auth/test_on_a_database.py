"""The services on a real database: what the rows in memory promise, the store keeps."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandgate.auth.accounts import Accounts
from sandgate.auth.first_admin import ensure_first_admin
from sandgate.auth.keys import KeyRing
from sandgate.auth.passwords import Passwords
from sandgate.auth.service import AuthService
from sandgate.auth.throttle import LoginThrottle
from sandgate.auth.tokens import Tokens
from sandgate.auth.users import UserService
from sandgate.core.account_stores import CredentialStore, UserStore
from sandgate.core.clock import ManualClock
from sandgate.core.errors import InvalidCredentials, LastAdmin, NotAuthenticated, UserNameTaken
from sandgate.core.page import PageRequest
from sandgate.core.principal import Role
from sandgate.store.sql_store import SqlStore
from tests.unit.auth.memory import CHEAP


class Server:
    """One process of the server, on the state folder."""

    def __init__(self, state: Path, store: SqlStore, clock: ManualClock) -> None:
        self.rows: UserStore = store.users
        self.credentials: CredentialStore = store.credentials
        self.passwords = Passwords(CHEAP, threads=1)
        self.clock = clock
        self.state = state
        keys = KeyRing(state / "keys", clock)
        keys.open()
        accounts = Accounts(self.rows, clock)
        self.auth = AuthService(
            accounts=accounts,
            credentials=self.credentials,
            passwords=self.passwords,
            tokens=Tokens(keys, clock, lifetime_s=3600),
            throttle=LoginThrottle(clock, attempts=10, window_s=60),
            clock=clock,
        )
        self.users = UserService(self.rows, accounts, self.passwords, clock)

    async def login(self, name: str, password: str) -> str:
        """A token."""
        return (await self.auth.issue_token(name, password, "192.0.2.1")).access_token


@pytest.fixture
async def server(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Server]:
    """A server at its first start."""
    store = SqlStore(tmp_path / "sandgate.db", read_threads=1)
    await store.open()
    opened = Server(tmp_path, store, clock)
    yield opened
    opened.passwords.close()
    await store.close()


async def test_a_life_with_tokens_and_keys(server: Server) -> None:
    """First admin, users, logins, keys, revocation, changes and removal, end to end."""
    admin = await ensure_first_admin(server.rows, server.passwords, server.clock, given_password="", state=server.state)
    assert admin is not None
    root = await server.auth.authenticate(await server.login("admin", admin.password))
    ann = await server.users.create(root, "ann", "right password", Role.USER)
    with pytest.raises(UserNameTaken):
        await server.users.create(root, "ann", "right password", Role.USER)
    with pytest.raises(LastAdmin):
        await server.users.delete(root, root.user_id)

    token = await server.login("ann", "right password")
    caller = await server.auth.authenticate(token)
    assert (caller.user_id, caller.role) == (ann.user_id, Role.USER)
    issued = await server.auth.create_api_key(caller, "robot", 3600)
    assert (await server.auth.authenticate(issued.secret)).api_key_id == issued.key.api_key_id
    await server.auth.tidy()
    (listed,) = (await server.auth.list_api_keys(caller, PageRequest())).items
    assert listed.last_used_at == server.clock.now()

    await server.auth.revoke(caller, None)
    with pytest.raises(NotAuthenticated):
        await server.auth.authenticate(token)
    second = await server.login("ann", "right password")
    await server.users.update(root, ann.user_id, password="another password")
    with pytest.raises(NotAuthenticated):
        await server.auth.authenticate(second)
    with pytest.raises(InvalidCredentials):
        await server.login("ann", "right password")
    assert await server.auth.authenticate(await server.login("ann", "another password"))
    assert await server.auth.authenticate(issued.secret)

    await server.users.delete(root, ann.user_id)
    with pytest.raises(NotAuthenticated):
        await server.auth.authenticate(issued.secret)
    assert await server.credentials.find_api_key(issued.key.api_key_id) is None


async def test_a_token_that_was_ended_by_the_microsecond_stays_ended(server: Server) -> None:
    """The database keeps times as exactly as tokens do."""
    ann = await server.users.create(None, "ann", "right password", Role.ADMIN)
    server.clock.advance(0.123457)
    token = await server.login("ann", "right password")
    await server.users.update(None, ann.user_id, password="right password")
    with pytest.raises(NotAuthenticated):
        await server.auth.authenticate(token)
    assert await server.auth.authenticate(await server.login("ann", "right password"))


async def test_odd_credentials_do_not_break_the_database(server: Server) -> None:
    """NUL, surrogates and length never reach a statement."""
    for name in ("\0", "\ud800", "x" * 100_000, "' OR 1=1 --", ""):
        with pytest.raises(InvalidCredentials):
            await server.login(name, "right password")
    for credential in ("\0", "\ud800", "sgk_\0", "sgk_" + "0" * 26 + "_" + "0" * 64):
        with pytest.raises(NotAuthenticated):
            await server.auth.authenticate(credential)
