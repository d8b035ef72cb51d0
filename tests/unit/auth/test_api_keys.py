"""API keys: shown once, kept hashed, as good as their user."""

import asyncio
import hashlib
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandgate.auth.base import IssuedApiKey
from sandgate.core.errors import ApiKeyNotFound, Conflict, Forbidden, InvalidRequest, NotAuthenticated
from sandgate.core.ids import make_api_key_id
from sandgate.core.page import PageRequest
from sandgate.core.principal import Principal, Role
from tests.unit.auth.memory import Desk

PASSWORD = "right password"


async def enter(desk: Desk, name: str, role: Role = Role.USER) -> Principal:
    """A new user who has logged in."""
    await desk.users.create(None, name, PASSWORD, role)
    return await desk.auth.authenticate(await desk.login(name))


@pytest.fixture
async def ann(desk: Desk) -> Principal:
    """A user who has logged in, beside the admin that there always is."""
    await desk.users.create(None, "root", PASSWORD, Role.ADMIN)
    return await enter(desk, "ann")


@pytest.fixture
async def issued(desk: Desk, ann: Principal) -> IssuedApiKey:
    """Ann's key."""
    return await desk.auth.create_api_key(ann, "robot", None)


async def test_a_key_stands_for_its_user(desk: Desk, ann: Principal, issued: IssuedApiKey) -> None:
    """It is accepted wherever a token is."""
    caller = await desk.auth.authenticate(issued.secret)
    assert caller == Principal(ann.user_id, "ann", Role.USER, api_key_id=issued.key.api_key_id)


async def test_the_secret_is_not_kept(desk: Desk, issued: IssuedApiKey) -> None:
    """The row has a SHA-256 of it."""
    match = re.fullmatch(r"sgk_([0-9a-z]{26})_([0-9a-f]{64})", issued.secret)
    assert match is not None
    row = desk.credential_rows.keys[f"key-{match[1]}"]
    assert row.secret_sha256 == hashlib.sha256(match[2].encode()).digest()
    assert match[2] not in repr(row)


async def test_no_changed_key_is_accepted(desk: Desk, issued: IssuedApiKey) -> None:
    """Whatever single character is replaced, dropped or doubled."""
    secret = issued.secret
    for place in range(4, len(secret)):
        other = "1" if secret[place] != "1" else "2"
        for changed in (other, "", secret[place] * 2):
            with pytest.raises(NotAuthenticated):
                await desk.auth.authenticate(secret[:place] + changed + secret[place + 1 :])


async def test_an_unknown_key_looks_like_a_wrong_secret(desk: Desk, issued: IssuedApiKey) -> None:
    """Ids of keys cannot be told from made-up ones."""
    wrong = issued.secret[:-64] + "0" * 64
    unknown = f"sgk_{make_api_key_id().removeprefix('key-')}_{'0' * 64}"
    messages = []
    for credential in (wrong, unknown, "sgk_x"):
        with pytest.raises(NotAuthenticated) as refused:
            await desk.auth.authenticate(credential)
        messages.append(refused.value.message)
    assert messages == ["The API key is not valid"] * 3


@given(st.text(max_size=120).map(lambda text: "sgk_" + text) | st.from_regex(r"\Asgk_[0-9a-z]{26}_[0-9a-f]{64}\Z"))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_no_made_up_key_is_accepted(desk: Desk, credential: str) -> None:
    """Whatever the text is, the answer is ``NotAuthenticated`` and nothing else."""
    with pytest.raises(NotAuthenticated), asyncio.Runner() as runner:
        runner.run(desk.auth.authenticate(credential))


async def test_a_key_ends_at_its_expiry(desk: Desk, ann: Principal) -> None:
    """To the second, also when it is in use."""
    issued = await desk.auth.create_api_key(ann, "robot", 60)
    desk.clock.advance(59.9)
    await desk.auth.authenticate(issued.secret)
    desk.clock.advance(0.1)
    with pytest.raises(NotAuthenticated, match="expired"):
        await desk.auth.authenticate(issued.secret)


async def test_a_deleted_key_is_refused_at_once(
    desk: Desk, other_desk: Desk, ann: Principal, issued: IssuedApiKey
) -> None:
    """In another process within a second."""
    for each in (desk, other_desk):
        await each.auth.authenticate(issued.secret)
    await desk.auth.delete_api_key(ann, issued.key.api_key_id)
    with pytest.raises(NotAuthenticated):
        await desk.auth.authenticate(issued.secret)
    desk.clock.advance(1)
    with pytest.raises(NotAuthenticated):
        await other_desk.auth.authenticate(issued.secret)


async def test_a_key_is_worth_what_its_user_is(desk: Desk, ann: Principal, issued: IssuedApiKey) -> None:
    """It follows role and disabling, and ends with the user."""
    await desk.users.update(None, ann.user_id, role=Role.VIEWER)
    assert (await desk.auth.authenticate(issued.secret)).role is Role.VIEWER
    await desk.users.update(None, ann.user_id, disabled=True)
    with pytest.raises(NotAuthenticated):
        await desk.auth.authenticate(issued.secret)
    await desk.users.update(None, ann.user_id, disabled=False)
    assert await desk.auth.authenticate(issued.secret)
    await desk.users.delete(None, ann.user_id)
    with pytest.raises(NotAuthenticated):
        await desk.auth.authenticate(issued.secret)


async def test_a_key_makes_no_keys(desk: Desk, issued: IssuedApiKey) -> None:
    """Or a stolen one could not be got rid of by deleting it."""
    with pytest.raises(Forbidden):
        await desk.auth.create_api_key(await desk.auth.authenticate(issued.secret), "second", None)


async def test_a_key_is_no_token_to_end(desk: Desk, issued: IssuedApiKey) -> None:
    """Ending 'the one I came with' needs a token."""
    with pytest.raises(InvalidRequest):
        await desk.auth.revoke(await desk.auth.authenticate(issued.secret), None)


async def test_a_viewer_makes_no_keys(desk: Desk, ann: Principal) -> None:
    """Viewers change nothing."""
    with pytest.raises(Forbidden):
        await desk.auth.create_api_key(await enter(desk, "eve", Role.VIEWER), "robot", None)


@pytest.mark.parametrize("label", ["", "x" * 101, "a\nb", "nul\0", "\ud800", "\u202e"])
async def test_labels_are_bounded_and_printable(desk: Desk, ann: Principal, label: str) -> None:
    """They are shown in lists and terminals."""
    with pytest.raises(InvalidRequest):
        await desk.auth.create_api_key(ann, label, None)


@pytest.mark.parametrize("expires_in_s", [0, -1, 10**400])
async def test_lifetimes_are_bounded(desk: Desk, ann: Principal, expires_in_s: int) -> None:
    """None is for ever; a number is a number of seconds that a date can hold."""
    with pytest.raises(InvalidRequest):
        await desk.auth.create_api_key(ann, "robot", expires_in_s)


async def test_a_user_has_a_bounded_number_of_keys(desk: Desk, ann: Principal) -> None:
    """A hundred; after deleting one there is room again."""
    issued = [await desk.auth.create_api_key(ann, "robot", None) for _ in range(100)]
    with pytest.raises(Conflict):
        await desk.auth.create_api_key(ann, "robot", None)
    await desk.auth.delete_api_key(ann, issued[0].key.api_key_id)
    assert await desk.auth.create_api_key(ann, "robot", None)


async def test_everybody_sees_and_ends_their_own_only(desk: Desk, ann: Principal, issued: IssuedApiKey) -> None:
    """A foreign key looks like none."""
    bob = await enter(desk, "bob")
    assert (await desk.auth.list_api_keys(bob, PageRequest())).items == ()
    assert (await desk.auth.list_api_keys(ann, PageRequest())).items == (issued.key,)
    messages = []
    for api_key_id in (issued.key.api_key_id, make_api_key_id()):
        with pytest.raises(ApiKeyNotFound) as refused:
            await desk.auth.delete_api_key(bob, api_key_id)
        messages.append(refused.value.message.replace(api_key_id, "ID"))
    assert messages[0] == messages[1]
    assert await desk.auth.authenticate(issued.secret)


async def test_its_last_use_is_noted_once_a_minute_and_not_on_the_way(desk: Desk, issued: IssuedApiKey) -> None:
    """No request waits for a write."""
    first = desk.clock.now()
    written: list[int] = []
    for _ in range(59):
        await desk.auth.authenticate(issued.secret)
        desk.clock.advance(1)
    written.append(desk.credential_rows.asked["touch_api_key"])
    await desk.auth.tidy()
    assert desk.credential_rows.keys[issued.key.api_key_id].last_used_at == first
    for seconds in (0, 1):
        desk.clock.advance(seconds)
        await desk.auth.authenticate(issued.secret)
        await desk.auth.tidy()
        written.append(desk.credential_rows.asked["touch_api_key"])
    assert written == [0, 1, 2]


async def test_a_known_key_asks_the_database_once_a_second(desk: Desk, issued: IssuedApiKey) -> None:
    """As a known token does."""
    await asyncio.gather(*(desk.auth.authenticate(issued.secret) for _ in range(50)))
    assert desk.credential_rows.asked["find_api_key"] == 1
    assert desk.user_rows.asked["find"] == 1
