"""Logging in, presenting credentials, ending them."""

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandgate.auth import service
from sandgate.auth.passwords import PasswordCost
from sandgate.core.clock import ManualClock
from sandgate.core.errors import (
    InvalidCredentials,
    InvalidRequest,
    NotAuthenticated,
    StoreUnavailable,
    TooManyLoginAttempts,
)
from sandgate.core.principal import Principal, Role, User
from tests.unit.auth.memory import Desk, MemoryCredentials, MemoryUsers

PASSWORD = "right password"


@pytest.fixture
async def ann(desk: Desk) -> User:
    """A user, beside the admin that there always is."""
    await desk.users.create(None, "root", PASSWORD, Role.ADMIN)
    return await desk.users.create(None, "ann", PASSWORD, Role.USER)


async def test_a_login_gives_a_token_that_says_who(desk: Desk, ann: User) -> None:
    """The way in, from name and password to the caller that the use cases see."""
    issued = await desk.auth.issue_token("ann", PASSWORD, "192.0.2.1")
    caller = await desk.auth.authenticate(issued.access_token)
    assert caller == Principal(ann.user_id, "ann", Role.USER, token_id=caller.token_id)
    assert caller.token_id
    assert issued.expires_in_s == 3600


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ann", "wrong password"),
        ("nobody", PASSWORD),
        ("ANN", PASSWORD),
        ("ann ", PASSWORD),
        ("ann", ""),
        ("ann", PASSWORD + "\0"),
        ("ann", "\ud800" * 8),
        ("", PASSWORD),
        ("\0" * 5000, PASSWORD),
        ("' OR 1=1 --", PASSWORD),
    ],
)
async def test_all_wrong_pairs_look_alike_and_cost_the_same(desk: Desk, ann: User, name: str, password: str) -> None:
    """One answer and one verification of a password, whether the name or the password is wrong or impossible."""
    with pytest.raises(InvalidCredentials) as refused:
        await desk.login(name, password)
    assert (refused.value.message, refused.value.details) == ("Name and password do not belong together", {})
    assert desk.passwords.verifications == 1


async def test_a_disabled_user_looks_like_no_user(desk: Desk, ann: User) -> None:
    """With the right password, too, and for the same work."""
    await desk.users.update(None, ann.user_id, disabled=True)
    with pytest.raises(InvalidCredentials, match=r"^Name and password do not belong together$"):
        await desk.login("ann")
    assert desk.passwords.verifications == 1


async def test_guessing_is_slowed_down(desk: Desk, ann: User) -> None:
    """Ten wrong ones, and then not even the right one, until a while has passed; refusing costs no hashing."""
    for _ in range(10):
        with pytest.raises(InvalidCredentials):
            await desk.login("ann", "wrong password")
    with pytest.raises(TooManyLoginAttempts):
        await desk.login("ann")
    assert desk.passwords.verifications == 10
    desk.clock.advance(6)
    assert await desk.login("ann")


async def test_a_database_that_is_gone_is_not_held_against_the_user(desk: Desk, ann: User) -> None:
    """Logins that could not be tried do not count as failed."""

    async def find_by_name(name: str) -> User | None:
        raise StoreUnavailable("gone")

    desk.user_rows.find_by_name = find_by_name  # type: ignore[method-assign]
    for _ in range(30):
        with pytest.raises(StoreUnavailable):
            await desk.login("ann")
    del desk.user_rows.find_by_name
    assert await desk.login("ann")


async def test_a_known_token_asks_the_database_once_a_second(desk: Desk, ann: User) -> None:
    """Ten thousand calls of one user are two queries a second."""
    token = await desk.login("ann")
    for _ in range(4):
        for _ in range(10):
            await desk.auth.authenticate(token)
        desk.clock.advance(0.25)
    assert desk.user_rows.asked["find"] == 1
    assert desk.credential_rows.asked["is_revoked"] == 1


async def test_calls_at_the_same_time_ask_once(desk: Desk, ann: User) -> None:
    """A burst after an idle second does not become a burst on the database."""
    token = await desk.login("ann")
    await asyncio.gather(*(desk.auth.authenticate(token) for _ in range(50)))
    assert desk.user_rows.asked["find"] == 1


async def test_a_revoked_token_is_refused_at_once(desk: Desk, ann: User) -> None:
    """In this process from the next call on; other tokens of the user live on."""
    token, other = await desk.login("ann"), await desk.login("ann")
    caller = await desk.auth.authenticate(token)
    await desk.auth.revoke(caller, None)
    with pytest.raises(NotAuthenticated, match="revoked"):
        await desk.auth.authenticate(token)
    assert await desk.auth.authenticate(other)


async def test_another_process_sees_a_revocation_within_a_second(desk: Desk, other_desk: Desk, ann: User) -> None:
    """Gateways share the database and nothing else."""
    token = await desk.login("ann")
    caller = await other_desk.auth.authenticate(token)
    await desk.auth.revoke(caller, token)
    assert await other_desk.auth.authenticate(token)
    desk.clock.advance(1)
    with pytest.raises(NotAuthenticated):
        await other_desk.auth.authenticate(token)


async def test_a_revocation_is_remembered_for_as_long_as_the_token_would_live(desk: Desk, ann: User) -> None:
    """And then forgotten, so that the table does not grow."""
    token = await desk.login("ann")
    caller = await desk.auth.authenticate(token)
    await desk.auth.revoke(caller, token)
    await desk.auth.revoke(caller, token)
    desk.clock.advance(3599)
    await desk.auth.tidy()
    assert len(desk.credential_rows.revoked) == 1
    desk.clock.advance(2)
    await desk.auth.tidy()
    assert not desk.credential_rows.revoked


async def test_only_one_s_own_tokens_can_be_ended(desk: Desk, ann: User) -> None:
    """Somebody else's token is no token to a user; an admin may end it."""
    await desk.users.create(None, "bob", PASSWORD, Role.USER)
    foreign = await desk.login("bob")
    ann_caller = await desk.auth.authenticate(await desk.login("ann"))
    with pytest.raises(InvalidRequest):
        await desk.auth.revoke(ann_caller, foreign)
    assert await desk.auth.authenticate(foreign)
    await desk.auth.revoke(await desk.auth.authenticate(await desk.login("root")), foreign)
    with pytest.raises(NotAuthenticated):
        await desk.auth.authenticate(foreign)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "sgk_x_y", "\ud800"])
async def test_what_is_no_token_cannot_be_ended(desk: Desk, ann: User, token: str) -> None:
    """It is a mistake of the request, not of its credential."""
    caller = await desk.auth.authenticate(await desk.login("ann"))
    with pytest.raises(InvalidRequest) as refused:
        await desk.auth.revoke(caller, token)
    assert refused.value.details["fields"][0]["field"] == "token"


async def test_a_changed_password_ends_the_tokens_from_before(desk: Desk, ann: User) -> None:
    """At once, in the very same instant too; the new password gives tokens that are good at once."""
    token = await desk.login("ann")
    await desk.auth.authenticate(token)
    await desk.users.update(None, ann.user_id, password="another password")
    with pytest.raises(NotAuthenticated):
        await desk.auth.authenticate(token)
    assert await desk.auth.authenticate(await desk.login("ann", "another password"))
    with pytest.raises(InvalidCredentials):
        await desk.login("ann")


async def test_a_login_that_a_password_change_overtakes_is_worth_nothing(desk: Desk, ann: User) -> None:
    """The old password was still right when the row was read; the token that comes of it must not be."""
    original = desk.passwords.verify

    async def verify(password_hash: str | None, password: str) -> bool:
        matches = await original(password_hash, password)
        desk.clock.advance(0.2)
        await desk.users.update(None, ann.user_id, password="another password")
        desk.clock.advance(0.2)
        return matches

    desk.passwords.verify = verify  # type: ignore[method-assign]
    token = await desk.login("ann")
    with pytest.raises(NotAuthenticated):
        await desk.auth.authenticate(token)


async def test_a_clock_that_went_back_keeps_nobody_out(desk: Desk, ann: User) -> None:
    """A password changed while the clock was an hour ahead."""
    desk.clock.advance(3600)
    await desk.users.update(None, ann.user_id, password="another password")
    desk.clock.advance(-3600)
    assert await desk.auth.authenticate(await desk.login("ann", "another password"))


async def test_disabling_ends_tokens_for_good(desk: Desk, ann: User) -> None:
    """Enabling the user again does not bring them back."""
    token = await desk.login("ann")
    await desk.auth.authenticate(token)
    for disabled in (True, False):
        await desk.users.update(None, ann.user_id, disabled=disabled)
        with pytest.raises(NotAuthenticated):
            await desk.auth.authenticate(token)
    assert await desk.auth.authenticate(await desk.login("ann"))


async def test_a_changed_role_is_in_force_at_once(desk: Desk, other_desk: Desk, ann: User) -> None:
    """The token says who, the database says what they may; in another process within a second."""
    token = await desk.login("ann")
    assert (await other_desk.auth.authenticate(token)).role is Role.USER
    await desk.auth.authenticate(token)
    await desk.users.update(None, ann.user_id, role=Role.VIEWER)
    assert (await desk.auth.authenticate(token)).role is Role.VIEWER
    assert (await other_desk.auth.authenticate(token)).role is Role.USER
    desk.clock.advance(1)
    assert (await other_desk.auth.authenticate(token)).role is Role.VIEWER


async def test_a_deleted_user_s_token_is_refused_at_once(desk: Desk, ann: User) -> None:
    """Also when a new user takes the name."""
    token = await desk.login("ann")
    await desk.auth.authenticate(token)
    await desk.users.delete(None, ann.user_id)
    await desk.users.create(None, "ann", PASSWORD, Role.ADMIN)
    with pytest.raises(NotAuthenticated):
        await desk.auth.authenticate(token)


async def test_rotating_keys_logs_nobody_out(desk: Desk, other_desk: Desk, ann: User) -> None:
    """Tokens from before the rotation go on, in the process that rotated and in the one that did not."""
    token = await desk.login("ann")
    other_desk.keys.rotate()
    rotated = await other_desk.login("ann")
    for each in (desk, other_desk):
        for credential in (token, rotated):
            assert (await each.auth.authenticate(credential)).user_id == ann.user_id


@pytest.fixture
def dear_desk(tmp_path: Path, desk: Desk) -> Iterator[Desk]:
    """The same service after its hashing was made dearer."""
    dear = PasswordCost(passes=2, memory_kib=8, lanes=1)
    opened = Desk.open(tmp_path, desk.clock, desk.user_rows, desk.credential_rows, dear)
    yield opened
    opened.passwords.close()


async def test_hashes_follow_the_cost(desk: Desk, dear_desk: Desk, ann: User) -> None:
    """A login renews a hash of an earlier cost, and ends no token by that."""
    token = await desk.login("ann")
    await dear_desk.login("ann")
    row = desk.user_rows.rows[ann.user_id]
    assert "t=2" in row.password_hash
    assert row == dataclasses.replace(ann, password_hash=row.password_hash)
    assert await dear_desk.auth.authenticate(token)
    assert await desk.login("ann")


async def test_renewing_a_hash_does_not_undo_a_change(desk: Desk, dear_desk: Desk, ann: User) -> None:
    """The password is changed while the old one is being hashed anew."""
    original = dear_desk.passwords.hash

    async def hash_slowly(password: str) -> str:
        made = await original(password)
        await desk.users.update(None, ann.user_id, password="another password")
        return made

    dear_desk.passwords.hash = hash_slowly  # type: ignore[method-assign]
    await dear_desk.login("ann")
    assert await desk.login("ann", "another password")


@pytest.mark.parametrize("credential", ["", " ", "Bearer", "x.y", "sgk", "sgk_", "\0", "é", "eyJ.eyJ.x", "x" * 100_000])
async def test_what_is_no_credential_never_reaches_the_database(desk: Desk, credential: str) -> None:
    """Strangers cost no query."""
    with pytest.raises(NotAuthenticated):
        await desk.auth.authenticate(credential)
    assert not desk.user_rows.asked
    assert not desk.credential_rows.asked


async def test_the_loop_tidies_at_its_end(desk: Desk, ann: User) -> None:
    """What was used just before the server stops is written down all the same."""
    caller = await desk.auth.authenticate(await desk.login("ann"))
    key = await desk.auth.create_api_key(caller, "robot", None)
    await desk.auth.authenticate(key.secret)
    loop = asyncio.ensure_future(desk.auth.run())
    await asyncio.sleep(0)
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
    assert desk.credential_rows.asked["touch_api_key"] == 1


async def test_a_database_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop ends as it was told to, with nothing but the cancellation."""

    class Stuck(MemoryCredentials):
        async def prune_revoked(self, before: object) -> int:
            await asyncio.Event().wait()
            return 0

    monkeypatch.setattr(service, "_LAST_TIDY_S", 0.01)
    stuck = Desk.open(tmp_path, clock, MemoryUsers(), Stuck())
    loop = asyncio.ensure_future(stuck.auth.run())
    await asyncio.sleep(0)
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
    stuck.passwords.close()


async def test_a_database_that_is_gone_does_not_end_the_loop(tmp_path: Path, clock: ManualClock, desk: Desk) -> None:
    """Tidying is tried again later."""

    class Gone(MemoryCredentials):
        async def prune_revoked(self, before: object) -> int:
            raise StoreUnavailable("gone")

    broken = Desk.open(tmp_path, clock, MemoryUsers(), Gone())
    await broken.auth._tidy_or_log()
    broken.passwords.close()
