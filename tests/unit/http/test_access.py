"""Who may do what, tried with every kind of caller on every operation of the document."""

import pytest

from sandgate.core.principal import Role
from tests.unit.http.conftest import StreamLifetime
from tests.unit.http.rules import PROCESS, ROLES, RULES, WORKFLOWS, ask, filled, make_things
from tests.unit.http.site import ENVIRONMENTS, Site


@pytest.fixture(autouse=True)
def _short_streams(stream_lifetime: StreamLifetime) -> None:
    """Those of what waits end soon."""
    stream_lifetime(0.5)


async def _operations(site: Site) -> set[tuple[str, str]]:
    paths = (await site.get("/openapi.json", None)).json()["paths"]
    return {(method.upper(), path) for path, operations in paths.items() for method in operations}


async def test_every_operation_has_a_rule(site: Site) -> None:
    """A new path is not served before somebody has said who may use it."""
    assert await _operations(site) == set(RULES)


@pytest.mark.parametrize(("method", "path"), RULES)
async def test_every_caller_gets_what_the_rule_says(site: Site, method: str, path: str) -> None:
    """And 404 of what is somebody else's is word for word that of what does not exist, but for the id."""
    rule = RULES[method, path]
    things: dict[str, str] = {}
    for who in (*ROLES, *(["stranger"] if rule.stranger else [])):
        things = things or await make_things(site, path)
        answer = await ask(site, (method, path), who, things)
        assert answer.status_code == getattr(rule, who), f"{who}: {answer.text}"
        if answer.status_code == 404:
            # A number of a port, and what follows it, name nothing that could be somebody's.
            own = things.keys() - {"port", "rest"}
            unknown = {name: value[:-4] + "0000" if name in own else value for name, value in things.items()}
            missing = await ask(site, (method, path), who, unknown)
            named, nameless = answer.text, missing.text
            for name, value in things.items():
                if name in own and f"{{{name}}}" in f"{path} {rule.body}":
                    named, nameless = named.replace(value, name), nameless.replace(unknown[name], name)
            assert (missing.status_code, nameless) == (404, named)
        if method != "GET" and answer.is_success:
            # Something is not as it was, or gone.
            await site.renew_account("user")
            things = {}


REVOKE = "POST", "/api/v1/auth/revoke"
# What an owner who only reads is answered, where it is neither what an owner is, to a GET, nor 403.
READS_ONLY = {
    # A link with which one may read, and one that is not for writing.
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/links"): 201,
    ("PUT", "/api/v1/links/{link}"): 404,
    # Whatever the method, who knows what a server inside does.
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}/ports/{{port}}/{{rest}}"): 403,
    ("GET", "/api/v1/port-links/{port_link}/{rest}"): 403,
    # They only ask.
    ("POST", f"{PROCESS}/wait"): 200,
    ("POST", f"{WORKFLOWS}/validate"): 200,
    # One's own credentials; a key less opens nothing.
    ("POST", "/api/v1/auth/token"): 200,
    ("DELETE", "/api/v1/auth/api-keys/{api_key_id}"): 200,
    REVOKE: 200,
}


async def test_an_owner_who_may_only_read_any_more(site: Site) -> None:
    """Who was made a viewer sees what is theirs as before, and changes nothing of it: 403, where others find none."""
    things = await make_things(site, "{session_id}{snapshot_id}{process_id}")
    await site.users.update(None, site.accounts["user"].principal.user_id, role=Role.VIEWER)
    wrong = []
    for key, rule in sorted(RULES.items(), key=lambda each: each[0] == REVOKE):
        expected = READS_ONLY.get(key, rule.user if key[0] == "GET" else 403)
        answer = await ask(site, key, "user", things)
        if answer.status_code != expected:
            wrong.append((key, expected, answer.status_code, answer.text[:100]))
    assert wrong == [], "\n".join(map(str, wrong))


async def _spoil_token(site: Site, how: str) -> str:
    """A credential of an admin that is good no longer."""
    admin = site.accounts["admin"]
    if how == "expired api key":
        key = (await site.post("/api/v1/auth/api-keys", {"label": "x", "expires_in": 1}, "admin")).json()["api_key"]
        site.clock.advance(2)
        return str(key)
    if how == "deleted api key":
        made = (await site.post("/api/v1/auth/api-keys", {"label": "x"}, "admin")).json()
        await site.send("DELETE", f"/api/v1/auth/api-keys/{made['api_key_id']}", "admin")
        return str(made["api_key"])
    if how == "revoked token":
        await site.post("/api/v1/auth/revoke", None, "admin")
        return admin.token
    if how == "expired token":
        site.clock.advance(site.settings.token_lifetime_s + 1)
        return admin.token
    other = await site.add_account("other admin".replace(" ", "-"), admin.principal.role)
    if how == "token of a disabled user":
        await site.users.update(None, other.principal.user_id, disabled=True)
    elif how == "token from before a new password":
        await site.users.update(None, other.principal.user_id, password="another long password")
    else:
        await site.users.delete(None, other.principal.user_id)
    return other.token


SPOILT = (
    "expired api key",
    "deleted api key",
    "revoked token",
    "expired token",
    "token of a disabled user",
    "token from before a new password",
    "token of a deleted user",
)


@pytest.mark.parametrize("how", SPOILT)
async def test_a_credential_that_is_good_no_longer_opens_nothing(site: Site, how: str) -> None:
    """No operation of the document but those that ask nobody; nothing is done, and the answer is always the same."""
    made = await make_things(site)
    credential = await _spoil_token(site, how)
    headers = {"Authorization": f"Bearer {credential}"}
    messages = set()
    for (method, path), rule in RULES.items():
        if rule.anonymous != 401:
            continue
        named = {} if rule.body is None else {"json": filled(rule.body, made)}
        answer = await site.send(method, path.format(**made), None, headers=headers, **named)
        assert answer.status_code == 401, f"{method} {path}: {answer.text}"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        messages.add(answer.json()["error"]["message"])
    assert len(messages) == 1
