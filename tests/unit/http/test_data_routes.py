"""Secrets and artifacts over HTTP."""

from typing import Any

import pytest

from sandgate.core.ids import RunId
from sandgate.store.base import Pack
from tests.unit.http.site import PASSWORD, Site

ORCHESTRATOR = "/api/v1/orchestrator"
SECRETS = f"{ORCHESTRATOR}/secrets"
OTHER = "another horse battery staple"


async def _put(site: Site, name: str, value: Any = PASSWORD, **named: Any) -> Any:
    return await site.send("PUT", f"{SECRETS}/{name}", json={"value": value}, **named)


async def test_secrets_are_written_and_listed_and_never_read(site: Site) -> None:
    """The answers know names and times; another value keeps the time of the first."""
    for value in (PASSWORD, OTHER):
        answer = await _put(site, "B")
        assert set(answer.json()) == {"name", "creation_time", "updated_at"}
        site.clock.advance(60)
        assert (await _put(site, "A", value)).status_code == 200
    listed = (await site.get(SECRETS)).json()
    assert [(row["name"], row["creation_time"] < row["updated_at"]) for row in listed["secrets"]] == [
        ("A", True),
        ("B", True),
    ]
    assert (await site.get(SECRETS, who="stranger")).json() == {"secrets": [], "next_cursor": None}
    assert (await site.send("DELETE", f"{SECRETS}/A")).json() == {"name": "A", "status": "deleted"}
    assert (await site.send("DELETE", f"{SECRETS}/A")).status_code == 404
    user_id = site.accounts["user"].principal.user_id
    assert await site.secrets.open(user_id, ["A", "B"]) == {"B": PASSWORD}


@pytest.mark.parametrize("name", ["a", "1A", "A-B", "A" * 65, "Ä"])
async def test_names_that_are_none(site: Site, name: str) -> None:
    """They cannot be made, and are not there."""
    answer = await _put(site, name)
    assert (answer.status_code, answer.json()["error"]["details"]["fields"][0]["field"]) == (400, "secret_name")
    assert (await site.send("DELETE", f"{SECRETS}/{name}")).json()["error"]["code"] == "SECRET_NOT_FOUND"


@pytest.mark.parametrize(
    "value", ["", "short-x", "       x       ", "x" * 32_769, "é" * 20_000, "12345678\n" * 1001, 12345678, None]
)
async def test_values_that_cannot_be_kept(site: Site, value: Any) -> None:
    """Too short to be masked, too long, or no text; the answer does not show them."""
    answer = await _put(site, "A", value)
    assert (answer.status_code, answer.json()["error"]["details"]["fields"][0]["field"]) == (400, "value")
    assert not value or str(value).strip() not in answer.text or len(str(value).strip()) == 1


async def test_a_user_has_so_many_secrets(site: Site) -> None:
    """One more is refused; another value of one that is there is not, nor is the first of another user."""
    for number in range(site.settings.max_secrets_per_user):
        await _put(site, f"A{number}")
    refused = await _put(site, "B")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "TOO_MANY_SECRETS")
    assert (await _put(site, "A1", OTHER)).status_code == 200
    assert (await _put(site, "B", who="stranger")).status_code == 200


async def _run(site: Site) -> str:
    workflow = await site.post(
        f"{ORCHESTRATOR}/workflows", {"name": "w", "steps": [{"name": "ask", "type": "approval"}]}
    )
    run = await site.post(f"{ORCHESTRATOR}/workflows/{workflow.json()['workflow_id']}/start", {})
    run_id: str = run.json()["run_id"]
    return run_id


async def test_artifacts_are_listed_in_pages(site: Site) -> None:
    """Newest first, with all that is known of them; of one step when that is asked for."""
    run_id = await _run(site)
    made = [await site.add_artifact(run_id, f"{number}.txt", b"x" * number) for number in range(3)]
    path = f"{ORCHESTRATOR}/runs/{run_id}/artifacts"
    first = (await site.get(f"{path}?limit=2")).json()
    rest = (await site.get(f"{path}?limit=2&cursor={first['next_cursor']}")).json()
    assert [row["artifact_id"] for row in [*first["artifacts"], *rest["artifacts"]]] == [
        artifact.artifact_id for artifact in reversed(made)
    ]
    assert rest["next_cursor"] is None
    assert first["artifacts"][0]["sha256"] == made[2].sha256.hex()
    assert (await site.get(f"{path}?step=other")).json()["artifacts"] == []
    assert (await site.get(f"{path}?step=ask")).json()["artifacts"] == first["artifacts"] + rest["artifacts"]


async def test_an_artifact_is_downloaded_whole_and_in_parts(site: Site) -> None:
    """As something to be saved, never to be shown; a part beyond the end is none."""
    run_id = await _run(site)
    await site.add_artifact(run_id, "first", b"other")
    artifact = await site.add_artifact(run_id, 'a/b "é".html', b"0123", b"456789")
    path = f"{ORCHESTRATOR}/runs/{run_id}/artifacts/{artifact.artifact_id}"
    whole = await site.get(path)
    assert (whole.status_code, whole.content) == (200, b"0123456789")
    assert whole.headers["content-type"] == "application/octet-stream"
    saved_as = "attachment; filename=\"b ___.html\"; filename*=UTF-8''b%20%22%C3%A9%22.html"
    assert whole.headers["content-disposition"] == saved_as
    part = await site.get(path, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert (await site.get(path, headers={"If-None-Match": whole.headers["etag"]})).status_code == 304
    beyond = await site.get(path, headers={"Range": "bytes=10-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */10")
    head = await site.send("HEAD", path)
    assert (head.status_code, head.headers["content-length"]) == (200, "10")


async def test_an_artifact_is_one_of_its_run(site: Site) -> None:
    """Under another run it is not there; nor is one whose file is somewhere else."""
    run_id, other = await _run(site), await _run(site)
    artifact = await site.add_artifact(run_id, "x", b"x")
    answer = await site.get(f"{ORCHESTRATOR}/runs/{other}/artifacts/{artifact.artifact_id}")
    assert answer.json()["error"]["code"] == "ARTIFACT_NOT_FOUND"
    site.files.delete([Pack(RunId(run_id), artifact.pack)])
    answer = await site.get(f"{ORCHESTRATOR}/runs/{run_id}/artifacts/{artifact.artifact_id}")
    assert answer.json()["error"]["code"] == "ARTIFACT_NOT_FOUND"
