"""The accounts, and the first of them."""

import asyncio
import stat
from functools import partial
from pathlib import Path

import pytest

from sandgate.auth.accounts import Accounts
from sandgate.auth.first_admin import FirstAdmin, ensure_first_admin, forget_first_password
from sandgate.auth.users import UserService
from sandgate.core.errors import (
    ConfigurationError,
    Forbidden,
    InvalidRequest,
    LastAdmin,
    UserNameTaken,
    UserNotFound,
)
from sandgate.core.ids import make_user_id
from sandgate.core.page import PageRequest
from sandgate.core.principal import Principal, Role, User
from tests.unit.auth.memory import Desk

PASSWORD = "right password"


@pytest.fixture
async def root(desk: Desk) -> User:
    """The only admin."""
    return await desk.users.create(None, "root", PASSWORD, Role.ADMIN)


@pytest.mark.parametrize("role", [Role.USER, Role.VIEWER])
async def test_users_are_managed_by_admins(desk: Desk, root: User, role: Role) -> None:
    """Everybody else is forbidden every method, for themselves too, before anything is looked up."""
    caller = Principal(make_user_id(), "eve", role)
    for attempt in (
        desk.users.create(caller, "new", PASSWORD, Role.USER),
        desk.users.get(caller, root.user_id),
        desk.users.list(caller, PageRequest()),
        desk.users.update(caller, caller.user_id, role=Role.ADMIN),
        desk.users.delete(caller, root.user_id),
    ):
        with pytest.raises(Forbidden):
            await attempt
    assert not desk.user_rows.asked


async def test_an_admin_manages(desk: Desk, root: User) -> None:
    """Create, get, list, change, delete."""
    admin = Principal(root.user_id, "root", Role.ADMIN)
    ann = await desk.users.create(admin, "ann", PASSWORD, Role.USER)
    assert await desk.users.get(admin, ann.user_id) == ann
    assert (await desk.users.list(admin, PageRequest())).items == (ann, root)
    assert (await desk.users.update(admin, ann.user_id, role=Role.VIEWER)).role is Role.VIEWER
    await desk.users.delete(admin, ann.user_id)
    assert (await desk.users.list(admin, PageRequest())).items == (root,)


async def test_a_change_of_nothing_changes_nothing(desk: Desk, root: User) -> None:
    """It answers the user and ends no token."""
    assert await desk.users.update(None, root.user_id) == root


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "ann\n", "änn", "a\0", "\ud800", "<b>", "a:b"])
async def test_names_have_few_characters(desk: Desk, name: str) -> None:
    """Letters, digits, and what mail addresses have."""
    with pytest.raises(InvalidRequest) as refused:
        await desk.users.create(None, name, PASSWORD, Role.USER)
    assert refused.value.details["fields"][0]["field"] == "name"


@pytest.mark.parametrize("name", ["a", "x" * 64, "Ann.Lee-2_@example.org"])
async def test_names_that_are_possible(desk: Desk, name: str) -> None:
    """From one character to sixty-four."""
    assert (await desk.users.create(None, name, PASSWORD, Role.USER)).name == name


async def test_weak_passwords_are_refused(desk: Desk, root: User) -> None:
    """When a user is made and when the password is changed, with nothing written."""
    with pytest.raises(InvalidRequest):
        await desk.users.create(None, "ann", "short", Role.USER)
    with pytest.raises(InvalidRequest):
        await desk.users.update(None, root.user_id, password="short")
    assert list(desk.user_rows.rows.values()) == [root]


async def test_names_are_given_once(desk: Desk, root: User) -> None:
    """Two users cannot have one name."""
    with pytest.raises(UserNameTaken):
        await desk.users.create(None, "root", PASSWORD, Role.USER)


async def test_an_unknown_user_is_not_found(desk: Desk) -> None:
    """The message names the id."""
    missing = make_user_id()
    for attempt in (
        desk.users.get(None, missing),
        desk.users.update(None, missing, password="another password"),
        desk.users.update(None, missing),
        desk.users.delete(None, missing),
    ):
        with pytest.raises(UserNotFound, match=missing):
            await attempt


async def test_an_admin_is_always_left(desk: Desk, root: User) -> None:
    """The last one cannot be deleted, disabled or made less, and stays logged in."""
    token = await desk.login("root")
    with pytest.raises(LastAdmin):
        await desk.users.update(None, root.user_id, role=Role.USER)
    with pytest.raises(LastAdmin):
        await desk.users.update(None, root.user_id, disabled=True)
    with pytest.raises(LastAdmin):
        await desk.users.delete(None, root.user_id)
    assert (await desk.auth.authenticate(token)).is_admin


async def ensure(desk: Desk, state: Path, given_password: str = "") -> FirstAdmin | None:
    """What a start does."""
    return await ensure_first_admin(
        desk.user_rows, desk.passwords, desk.clock, given_password=given_password, state=state
    )


async def test_the_first_start_makes_an_admin(desk: Desk, tmp_path: Path) -> None:
    """With a random password, in a file for its owner only, that logs in; the second start makes none."""
    state = tmp_path / "state"
    made = await ensure(desk, state)
    assert made is not None
    assert made.password_file == state / "initial-admin-password"
    assert made.password_file.read_text() == made.password + "\n"
    assert stat.S_IMODE(made.password_file.stat().st_mode) == 0o600
    assert len(made.password) == 24
    assert made.password not in repr(made)
    assert (await desk.auth.authenticate(await desk.login("admin", made.password))).is_admin
    assert await ensure(desk, state) is None
    assert await ensure(desk, state, "given password") is None


async def test_the_first_password_goes_when_it_is_good_no_longer(desk: Desk, tmp_path: Path) -> None:
    """Another password of that user, or its end, removes the file; whatever happens to others leaves it."""
    made = await ensure(desk, tmp_path)
    assert made is not None
    assert made.password_file is not None
    accounts, forget = Accounts(desk.user_rows, desk.clock), partial(forget_first_password, tmp_path)
    users = UserService(desk.user_rows, accounts, desk.passwords, desk.clock, forget)
    other = await users.create(None, "second", "a good password", Role.ADMIN)
    admin = next(user for user in desk.user_rows.rows.values() if user.name == "admin")
    await users.update(None, other.user_id, password="another password")
    await users.update(None, admin.user_id, role=Role.ADMIN)
    assert made.password_file.exists()
    await users.update(None, admin.user_id, password="another password")
    assert not made.password_file.exists()
    made.password_file.touch()
    await users.delete(None, admin.user_id)
    assert not made.password_file.exists()


async def test_no_two_servers_have_the_same_first_password(desk: Desk, tmp_path: Path) -> None:
    """There is no default."""
    first = await ensure(desk, tmp_path / "a")
    desk.user_rows.rows.clear()
    second = await ensure(desk, tmp_path / "b")
    assert first is not None
    assert second is not None
    assert first.password != second.password


async def test_the_first_password_can_be_given(desk: Desk, tmp_path: Path) -> None:
    """Then it is written nowhere."""
    made = await ensure(desk, tmp_path / "state", "given password")
    assert made == FirstAdmin("admin", "given password", None)
    assert not (tmp_path / "state").exists()
    assert await desk.login("admin", "given password")


async def test_a_weak_first_password_stops_the_start(desk: Desk, tmp_path: Path) -> None:
    """The message names the variable, and not its value."""
    with pytest.raises(ConfigurationError, match="SANDGATE_ADMIN_PASSWORD") as refused:
        await ensure(desk, tmp_path, "weak pw")
    assert "weak pw" not in refused.value.message


async def test_starts_at_the_same_time_make_one_admin(desk: Desk, other_desk: Desk, tmp_path: Path) -> None:
    """Whoever was first, the password in the file is the admin's."""
    made = await asyncio.gather(*(ensure(each, tmp_path / "state") for each in (desk, other_desk) * 3))
    assert len([each for each in made if each]) == 1
    password = (tmp_path / "state" / "initial-admin-password").read_text().strip()
    assert await desk.login("admin", password)


async def test_a_start_from_another_folder_leaves_no_wrong_password(
    desk: Desk, other_desk: Desk, tmp_path: Path
) -> None:
    """Two gateways on one database with a state folder each: the slower one's file goes."""
    made = await asyncio.gather(ensure(desk, tmp_path / "a"), ensure(other_desk, tmp_path / "b"))
    winner = next(each for each in made if each)
    files = [path for path in (tmp_path / name / "initial-admin-password" for name in "ab") if path.exists()]
    assert files == [winner.password_file]


async def test_a_start_that_was_cut_short_is_made_good(desk: Desk, tmp_path: Path) -> None:
    """The file was written and the user was not: the next start takes the password of the file."""
    await ensure(desk, tmp_path / "state")
    desk.user_rows.rows.clear()
    made = await ensure(desk, tmp_path / "state")
    assert made is not None
    assert await desk.login("admin", made.password)
