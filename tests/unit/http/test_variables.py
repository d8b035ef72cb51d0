"""What environments give to all code in them: variables, and their owner's secrets."""

import json
from typing import Any

import pytest

from tests.unit.http.site import ENVIRONMENTS, Site

CANARY = "correct horse battery staple"
LOOK = "import os\nprint(os.environ['A'], os.environ['B'])"


async def _keep_secret(site: Site, name: str = "API_TOKEN", value: str = CANARY) -> None:
    put = await site.send("PUT", f"/api/v1/orchestrator/secrets/{name}", json={"value": value})
    assert put.status_code == 200


async def _run(site: Site, environment_id: str, code: str, who: str = "user", **fields: Any) -> Any:
    answer = await site.post(f"{ENVIRONMENTS}/{environment_id}/execute", {"code": code, **fields}, who)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_all_code_finds_the_variables(site: Site) -> None:
    """What comes with the code is stronger; they are in the answers, and stay for the next gateway."""
    environment_id = await site.create_environment(env={"A": "a", "B": "b"})
    assert (await _run(site, environment_id, LOOK))["stdout"] == "a b\n"
    assert (await _run(site, environment_id, LOOK, env={"B": "mine"}))["stdout"] == "a mine\n"
    events = (await site.post(f"{ENVIRONMENTS}/{environment_id}/execute", {"code": LOOK, "stream": True})).text
    assert 'data: {"text":"a b\\n"}' in events
    shown = (await site.get(f"{ENVIRONMENTS}/{environment_id}")).json()
    assert (shown["env"], shown["secrets"]) == ({"A": "a", "B": "b"}, [])
    row = await site.store.environments.find(environment_id)  # type: ignore[arg-type]
    assert row is not None
    assert row.variables.env == {"A": "a", "B": "b"}


async def test_code_finds_secrets_that_nobody_is_shown(site: Site) -> None:
    """By their names; a new value is found by the code that begins after, and one that was deleted is not found."""
    await _keep_secret(site)
    environment_id = await site.create_environment(secrets=["API_TOKEN"])
    code = "import os\nprint(os.environ['API_TOKEN'])"
    assert (await _run(site, environment_id, code))["stdout"] == f"{CANARY}\n"
    await _keep_secret(site, value="another long secret")
    assert (await _run(site, environment_id, code))["stdout"] == "another long secret\n"
    shown = await site.get(f"{ENVIRONMENTS}/{environment_id}")
    assert (shown.json()["env"], shown.json()["secrets"]) == ({}, ["API_TOKEN"])
    assert CANARY not in shown.text
    row = await site.store.environments.find(environment_id)  # type: ignore[arg-type]
    assert "another long secret" not in repr(row)
    await site.send("DELETE", "/api/v1/orchestrator/secrets/API_TOKEN")
    assert (await _run(site, environment_id, code))["status"] == "failed"


async def test_an_admin_s_code_finds_no_secrets_of_others(site: Site) -> None:
    """Though the admin may run code there, and finds the variables."""
    await _keep_secret(site)
    environment_id = await site.create_environment(secrets=["API_TOKEN"], env={"A": "a"})
    assert (await _run(site, environment_id, "import os\nprint(os.environ['A'])", "admin"))["stdout"] == "a\n"
    ran = await _run(site, environment_id, "import os\nprint(os.environ['API_TOKEN'])", "admin")
    assert (ran["status"], ran["stdout"]) == ("failed", "")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"secrets": ["NO_SUCH"]}, 400, "VALIDATION_FAILED"),
        ({"secrets": ["lower"]}, 400, "VALIDATION_FAILED"),
        ({"secrets": ["API_TOKEN"], "env": {"API_TOKEN": "x"}}, 400, "VALIDATION_FAILED"),
        ({"env": {"A=B": "x"}}, 400, "VALIDATION_FAILED"),
        ({"env": {"A": "x\0"}}, 400, "VALIDATION_FAILED"),
        ({"env": {"A": "x" * 17_000}}, 413, "ENVIRONMENT_VARIABLES_TOO_LARGE"),
        ({"env": {f"A{number}": "" for number in range(65)}}, 400, "VALIDATION_FAILED"),
    ],
)
async def test_what_cannot_be_given_is_refused(site: Site, fields: Any, status: int, code: str) -> None:
    """Before an environment is made."""
    await _keep_secret(site)
    answer = await site.post(ENVIRONMENTS, {"name": "e", "template": "python-3.9", **fields})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert (await site.get(ENVIRONMENTS)).json()["environments"] == []


async def test_another_s_secret_is_none(site: Site) -> None:
    """Nobody names what is not theirs; the audit log has names of fields only."""
    await _keep_secret(site)
    answer = await site.post(ENVIRONMENTS, {"name": "e", "template": "python-3.9", "secrets": ["API_TOKEN"]}, "admin")
    assert answer.status_code == 400
    await site.create_environment(env={"A": CANARY})
    await site.trail.flush()
    entries = (await site.get("/api/v1/audit", "admin")).text
    assert CANARY not in entries
    assert '"env"' in json.dumps(json.loads(entries))
