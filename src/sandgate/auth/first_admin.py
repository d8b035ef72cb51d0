"""The first start: somebody must be able to log in, and nobody may by a password that everybody knows."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from sandgate.auth.passwords import Passwords, find_password_problem
from sandgate.auth.private_files import (
    create_private_file,
    delete_private_file,
    make_private_folder,
    read_private_file,
)
from sandgate.auth.users import make_user
from sandgate.core.account_stores import UserStore
from sandgate.core.clock import Clock
from sandgate.core.errors import ConfigurationError, UserNameTaken
from sandgate.core.principal import Role, User
from sandgate.telemetry.log import get_logger

ADMIN_NAME = "admin"
PASSWORD_FILE = "initial-admin-password"  # noqa: S105

_PASSWORD_BYTES = 18

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FirstAdmin:
    """The admin that was made. ``password_file`` is where a random password was written, None when it was given."""

    name: str
    password: str = field(repr=False)
    password_file: Path | None


async def ensure_first_admin(
    users: UserStore, passwords: Passwords, clock: Clock, *, given_password: str, state: Path
) -> FirstAdmin | None:
    """Make ``admin`` when no user exists; None when there was one, or when another process has just made it.

    The password is ``given_password`` or, when that is empty, a random one that is written to the state folder
    *before* the row: a crash between the two leaves a file whose password the next start uses, never a user whose
    password nobody knows. Two processes that start at once on one state folder use the same file.

    Raises ``ConfigurationError`` when the given password cannot be one or the file cannot be written.
    """
    if await users.count() > 0:
        return None
    path = None if given_password else state / PASSWORD_FILE
    password = given_password or _keep_password(state / PASSWORD_FILE)
    problem = find_password_problem(password)
    if problem is not None:
        origin = "SANDGATE_ADMIN_PASSWORD" if path is None else f"The password in {path}"
        raise ConfigurationError(f"{origin} {problem}")
    try:
        await users.insert(make_user(ADMIN_NAME, await passwords.hash(password), Role.ADMIN, clock))
    except UserNameTaken:
        if path is not None:
            await _drop_if_wrong(users, passwords, password, path)
        return None
    return FirstAdmin(ADMIN_NAME, password, path)


def forget_first_password(state: Path, user: User) -> None:
    """Remove the file of the first start when the password in it is good no longer."""
    if user.name != ADMIN_NAME:
        return
    try:
        delete_private_file(state / PASSWORD_FILE)
    except ConfigurationError as error:
        # The password was changed all the same; that its predecessor can still be read does no harm.
        _log.warning("first password not removed", reason=error.message)


def _keep_password(path: Path) -> str:
    """The password of the file, which is made with a random one unless it exists."""
    make_private_folder(path.parent)
    create_private_file(path, secrets.token_urlsafe(_PASSWORD_BYTES).encode() + b"\n")
    data = read_private_file(path)
    if data is None:
        raise ConfigurationError(f"{path} was removed while it was read; start again")
    return data.decode("utf-8", "replace").strip()


async def _drop_if_wrong(users: UserStore, passwords: Passwords, password: str, path: Path) -> None:
    """Another process was faster, perhaps from another state folder: then this file holds nobody's password."""
    admin = await users.find_by_name(ADMIN_NAME)
    if admin is not None and not await passwords.verify(admin.password_hash, password):
        delete_private_file(path)
