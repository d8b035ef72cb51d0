"""``sandgate user``: the accounts, straight in the database, beside a running server too.

A server notices within a second. Passwords come from a prompt or from standard input, never from the command line,
which every user of the machine can read.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from sandgate.cli import state as state_folder
from sandgate.cli.asking import ask, check_terminal, read_line
from sandgate.cli.audit_commands import audited
from sandgate.cli.groups import command_group
from sandgate.cli.state import DatabaseOption, JsonOption, StateOption
from sandgate.cli.terminal import print_json, print_table, show_time
from sandgate.core.errors import UserNotFound
from sandgate.core.ids import UserId
from sandgate.core.principal import Role, User

if TYPE_CHECKING:
    from sandgate.auth.users import UserService
    from sandgate.config.settings import Settings
    from sandgate.core.account_stores import UserStore
    from sandgate.store.sql_store import SqlStore

app = command_group("The users who may use the API.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The user's name or id.", show_default=False)]
StdinOption = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of standard input.")
]
_ROLES = "viewer reads what is its own, user also changes it, admin sees and changes everything."
#: How many users are fetched at a time.
LIST_PAGE = 200


ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class _Accounts:
    """The service of users, as the server has it, and the rows that it works on."""

    users: "UserService"
    rows: "UserStore"
    store: "SqlStore"

    async def find(self, name: str) -> User:
        """The user of this name, or of this id. Raises ``UserNotFound``."""
        from sandgate.auth.names import is_user_name

        user = None
        if is_user_name(name):  # Ids have the form of names; nothing else is worth a question.
            user = await self.rows.find_by_name(name) or await self.rows.find(UserId(name))
        if user is None:
            raise UserNotFound(f"There is no user {name!r}; `sandgate user list` lists them")
        return user


Work = Callable[[_Accounts], Awaitable[ResultT]]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 64 of A-Z a-z 0-9 . _ @ -", show_default=False)],
    role: Annotated[Role, typer.Option(help=_ROLES)] = Role.USER,
    password_stdin: StdinOption = False,
    state: StateOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a user; the password is asked for."""
    settings = state_folder.read(state=state, database_url=database_url)
    password = _read_password(password_stdin)

    async def work(accounts: _Accounts) -> User:
        return await accounts.users.create(None, name, password, role)

    details = {"username": name, "role": role.value}
    _show(_change(settings, "create_user", work, create=True, **details), "was made", as_json)


@app.command("list")
def list_users(state: StateOption = None, database_url: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List all users, newest first.

    With --json: {"users": [{"user_id", "name", "role", "disabled", "created_at"}]}.
    """
    settings = state_folder.read(state=state, database_url=database_url)
    users = _run(settings, _list_all)
    if as_json:
        print_json({"users": [_describe(user) for user in users]})
        return
    rows = [(each.name, each.role, _status(each), show_time(each.created_at), each.user_id) for each in users]
    print_table(("name", "role", "status", "created", "id"), rows)


@app.command("set-password")
def set_password(
    name: NameArgument,
    password_stdin: StdinOption = False,
    state: StateOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a user another password.

    It is asked for. Tokens from before are good no longer.
    """
    settings = state_folder.read(state=state, database_url=database_url)
    password = _read_password(password_stdin)

    async def work(accounts: _Accounts) -> User:
        user = await accounts.find(name)
        return await accounts.users.update(None, user.user_id, password=password)

    _show(_change(settings, "update_user", work, fields=["password"]), "has another password", as_json)


@app.command("set-role")
def set_role(
    name: NameArgument,
    role: Annotated[Role, typer.Argument(metavar="ROLE", help=_ROLES, show_default=False)],
    state: StateOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change what a user may do."""

    async def work(accounts: _Accounts) -> User:
        user = await accounts.find(name)
        return await accounts.users.update(None, user.user_id, role=role)

    settings = state_folder.read(state=state, database_url=database_url)
    _show(_change(settings, "update_user", work, role=role.value), f"has the role {role}", as_json)


@app.command("disable")
def disable(
    name: NameArgument, state: StateOption = None, database_url: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """Keep a user out until enabled again.

    Tokens from before are good no longer, also after that.
    """
    settings = state_folder.read(state=state, database_url=database_url)
    _show(_change(settings, "update_user", _set_disabled(name, True), disabled=True), "is disabled", as_json)


@app.command("enable")
def enable(
    name: NameArgument, state: StateOption = None, database_url: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """Let a disabled user in again."""
    settings = state_folder.read(state=state, database_url=database_url)
    _show(_change(settings, "update_user", _set_disabled(name, False), disabled=False), "is enabled", as_json)


@app.command("delete")
def delete(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    state: StateOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a user and the user's API keys."""
    settings = state_folder.read(state=state, database_url=database_url)
    if not yes:
        check_terminal("--yes")
        typer.confirm(f"Remove the user {name} and all API keys of that user?", abort=True)

    async def work(accounts: _Accounts) -> User:
        user = await accounts.find(name)
        await accounts.users.delete(None, user.user_id)
        return user

    _show(_change(settings, "delete_user", work), "was removed", as_json)


def _set_disabled(name: str, disabled: bool) -> Work[User]:
    async def work(accounts: _Accounts) -> User:
        user = await accounts.find(name)
        return await accounts.users.update(None, user.user_id, disabled=disabled)

    return work


async def _list_all(accounts: _Accounts) -> list[User]:
    """Page by page."""
    from sandgate.core.page import PageRequest

    listed: list[User] = []
    page = await accounts.users.list(None, PageRequest(limit=LIST_PAGE))
    listed += page.items
    while page.next_before_id is not None:
        page = await accounts.users.list(None, PageRequest(limit=LIST_PAGE, before_id=page.next_before_id))
        listed += page.items
    return listed


def _change(settings: "Settings", action: str, work: Work[User], *, create: bool = False, **details: object) -> User:
    """Do the work and tell the audit log."""

    async def told(accounts: _Accounts) -> User:
        async with audited(settings, accounts.store, action, **details) as found:
            user = await work(accounts)
            found["resource_id"] = user.user_id
        return user

    return _run(settings, told, create=create)


def _run(settings: "Settings", work: Work[ResultT], *, create: bool = False) -> ResultT:
    """Do the work on the database of the settings."""

    import asyncio

    async def opened() -> ResultT:
        async with _opened(settings, create=create) as accounts:
            return await work(accounts)

    return asyncio.run(opened())


@asynccontextmanager
async def _opened(settings: "Settings", *, create: bool) -> AsyncIterator[_Accounts]:
    """The accounts, for as long as the database is open."""
    from sandgate.auth.accounts import Accounts
    from sandgate.auth.first_admin import forget_first_password
    from sandgate.auth.passwords import Passwords
    from sandgate.auth.users import UserService
    from sandgate.core.clock import SystemClock

    clock = SystemClock()
    passwords = Passwords(threads=1)
    try:
        async with state_folder.opened_store(settings, create=create) as store:
            forget = partial(forget_first_password, settings.state)
            accounts = Accounts(store.users, clock)
            yield _Accounts(UserService(store.users, accounts, passwords, clock, forget), store.users, store)
    finally:
        passwords.close()


def _read_password(from_stdin: bool) -> str:
    """The password, from the first line of standard input or asked for twice."""
    return read_line() if from_stdin else ask("Password", "--password-stdin", hide=True, twice=True)


def _show(user: User, done: str, as_json: bool) -> None:
    if as_json:
        print_json(_describe(user))
    else:
        typer.echo(f"The user {user.name} {done}.")


def _describe(user: User) -> dict[str, object]:
    """A user as ``--json`` shows it: what the API shows, and no hash."""
    return {
        "user_id": user.user_id,
        "name": user.name,
        "role": user.role.value,
        "disabled": user.disabled,
        "created_at": show_time(user.created_at),
    }


def _status(user: User) -> str:
    return "disabled" if user.disabled else "enabled"
