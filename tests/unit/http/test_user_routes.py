"""Accounts over HTTP."""

from typing import Any

import pytest

from tests.unit.http.site import PASSWORD, Site

USERS = "/api/v1/users"


async def test_an_admin_makes_reads_changes_and_deletes_users(site: Site) -> None:
    """The whole life of an account."""
    made = await site.post(USERS, {"username": "alice", "password": PASSWORD, "role": "viewer"}, "admin")
    assert made.status_code == 201
    alice = made.json()
    assert (alice["username"], alice["role"], alice["disabled"]) == ("alice", "viewer", False)
    assert "password" not in alice
    path = f"{USERS}/{alice['user_id']}"
    assert (await site.get(path, "admin")).json() == alice
    changed = (await site.send("PATCH", path, "admin", json={"role": "user", "disabled": True})).json()
    assert (changed["role"], changed["disabled"]) == ("user", True)
    login = await site.post("/api/v1/auth/token", {"username": "alice", "password": PASSWORD}, None)
    assert login.status_code == 401
    assert (await site.send("DELETE", path, "admin")).json() == {"user_id": alice["user_id"], "status": "deleted"}
    assert (await site.get(path, "admin")).json()["error"]["code"] == "USER_NOT_FOUND"


async def test_users_are_listed_newest_first(site: Site) -> None:
    """In pages."""
    first = (await site.get(USERS, "admin", params={"limit": "3"})).json()
    assert [user["username"] for user in first["users"]] == ["stranger", "viewer", "user"]
    rest = (await site.get(USERS, "admin", params={"cursor": first["next_cursor"]})).json()
    assert [user["username"] for user in rest["users"]] == ["admin"]


async def test_names_are_taken_once(site: Site) -> None:
    """409."""
    answer = await site.post(USERS, {"username": "user", "password": PASSWORD}, "admin")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "USER_NAME_TAKEN")


async def test_the_last_admin_stays(site: Site) -> None:
    """409, whichever way it is tried."""
    path = f"{USERS}/{site.accounts['admin'].principal.user_id}"
    for change in ({"role": "user"}, {"disabled": True}):
        answer = await site.send("PATCH", path, "admin", json=change)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "LAST_ADMIN")
    assert (await site.send("DELETE", path, "admin")).status_code == 409


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"username": "a b", "password": PASSWORD}, "username"),
        ({"username": "", "password": PASSWORD}, "username"),
        ({"username": "x" * 65, "password": PASSWORD}, "username"),
        ({"username": "bob"}, "password"),
        ({"username": "bob", "password": "short"}, "password"),
        ({"username": "bob", "password": PASSWORD, "role": "root"}, "role"),
        ({"username": "bob", "password": PASSWORD, "user_id": "user-000000000000"}, "user_id"),
    ],
)
async def test_wrong_fields_are_named(site: Site, body: dict[str, Any], field: str) -> None:
    """400 with the field, and no password in the answer."""
    answer = await site.post(USERS, body, "admin")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["fields"][0]["field"] == field
    assert PASSWORD not in answer.text


async def test_a_new_password_ends_old_tokens(site: Site) -> None:
    """The user has to log in again."""
    site.clock.advance(1)
    path = f"{USERS}/{site.accounts['user'].principal.user_id}"
    assert (await site.send("PATCH", path, "admin", json={"password": "another long password"})).status_code == 200
    site.clock.advance(2)
    assert (await site.get("/api/v1/me")).status_code == 401
