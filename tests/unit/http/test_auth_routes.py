"""Tokens and keys over HTTP."""

from typing import Any

import pytest

from tests.unit.http.site import PASSWORD, Site

TOKEN = "/api/v1/auth/token"
KEYS = "/api/v1/auth/api-keys"
REVOKE = "/api/v1/auth/revoke"


async def test_a_name_and_a_password_are_exchanged_for_a_token(site: Site) -> None:
    """The token is what the reference promises, and opens the door."""
    answer = await site.post(TOKEN, {"username": "user", "password": PASSWORD}, None)
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"access_token", "token_type", "expires_in"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", site.settings.token_lifetime_s)
    me = await site.get("/api/v1/me", None, headers={"Authorization": f"Bearer {body['access_token']}"})
    assert (
        me.json().items()
        >= {
            "user_id": site.accounts["user"].principal.user_id,
            "username": "user",
            "role": "user",
            "credential": "token",
        }.items()
    )


async def test_the_form_of_oauth_is_read_too(site: Site) -> None:
    """What a documentation page sends works."""
    form = {"grant_type": "password", "username": "user", "password": PASSWORD, "scope": "", "client_id": ""}
    assert (await site.post(TOKEN, None, None, data=form)).status_code == 200


@pytest.mark.parametrize(
    "form",
    [
        {"username": "user"},
        {"username": "user", "password": ["a", "b"]},
        {"grant_type": "client_credentials", "username": "user", "password": "p"},
        {"username": "user", "password": "p", "role": "admin"},
    ],
)
async def test_odd_forms_are_refused(site: Site, form: dict[str, Any]) -> None:
    """400, like odd JSON."""
    assert (await site.post(TOKEN, None, None, data=form)).status_code == 400


@pytest.mark.parametrize(
    ("name", "password"), [("user", "wrong"), ("nobody", PASSWORD), ("user\n", PASSWORD), ("é", "é")]
)
async def test_wrong_names_and_wrong_passwords_look_alike(site: Site, name: str, password: str) -> None:
    """One 401 for both."""
    answer = await site.post(TOKEN, {"username": name, "password": password}, None)
    assert answer.status_code == 401
    assert answer.json()["error"] == {
        "code": "INVALID_CREDENTIALS",
        "message": "Name and password do not belong together",
        "details": {},
    }


async def test_guessing_is_slowed_down(site: Site) -> None:
    """429 with Retry-After, after the attempts of the setting."""
    for _ in range(site.settings.login_attempts):
        assert (await site.post(TOKEN, {"username": "user", "password": "wrong"}, None)).status_code == 401
    answer = await site.post(TOKEN, {"username": "user", "password": "wrong"}, None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "TOO_MANY_LOGIN_ATTEMPTS")
    assert int(answer.headers["retry-after"]) >= 1


async def test_strangers_are_not_read_at_length(site: Site) -> None:
    """Before anybody is authenticated a body is small, and of the right type."""
    long = await site.post(TOKEN, {"username": "user", "password": "x" * 20_000}, None)
    assert (long.status_code, long.json()["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")
    other = await site.post(TOKEN, None, None, content=b"<xml/>", headers={"Content-Type": "text/xml"})
    assert other.status_code == 415


async def test_a_token_is_revoked_at_once(site: Site) -> None:
    """The one that the request came with; others go on working."""
    other = (await site.post(TOKEN, {"username": "user", "password": PASSWORD}, None)).json()["access_token"]
    assert (await site.post(REVOKE)).json() == {"status": "revoked"}
    assert (await site.get("/api/v1/me")).status_code == 401
    bearer = {"Authorization": f"Bearer {other}"}
    assert (await site.get("/api/v1/me", None, headers=bearer)).status_code == 200
    assert (await site.post(REVOKE, {"token": other}, None, headers=bearer)).status_code == 200
    assert (await site.get("/api/v1/me", None, headers=bearer)).status_code == 401


async def test_only_ones_own_tokens_are_revoked(site: Site) -> None:
    """Somebody else's is refused, junk too, and nothing happens."""
    for token in (site.accounts["admin"].token, "junk"):
        assert (await site.post(REVOKE, {"token": token})).status_code == 400
    assert (await site.get("/api/v1/me", "admin")).status_code == 200


async def test_an_api_key_is_shown_once_and_works(site: Site) -> None:
    """It acts as its user, is listed without its secret, and ends when it is deleted."""
    made = await site.post(KEYS, {"label": "build server", "expires_in": 3600})
    assert made.status_code == 201
    secret, key_id = made.json()["api_key"], made.json()["api_key_id"]
    bearer = {"Authorization": f"Bearer {secret}"}
    assert (await site.get("/api/v1/me", None, headers=bearer)).json()["credential"] == "api_key"
    listed = (await site.get(KEYS)).json()
    assert [item["api_key_id"] for item in listed["api_keys"]] == [key_id]
    assert secret not in str(listed)
    assert (await site.get(KEYS, "stranger")).json()["api_keys"] == []
    assert (await site.send("DELETE", f"{KEYS}/{key_id}", "stranger")).status_code == 404
    deleted = await site.send("DELETE", f"{KEYS}/{key_id}")
    assert deleted.json() == {"api_key_id": key_id, "status": "deleted"}
    assert (await site.get("/api/v1/me", None, headers=bearer)).status_code == 401


@pytest.mark.parametrize(
    "body", [{}, {"label": ""}, {"label": "x" * 101}, {"label": "x", "expires_in": 0}, {"label": "\t"}]
)
async def test_odd_keys_are_refused(site: Site, body: dict[str, Any]) -> None:
    """400 with the field."""
    answer = await site.post(KEYS, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["fields"][0]["field"] in ("label", "expires_in")
