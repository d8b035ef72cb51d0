"""Volumes over HTTP: what is taken, what is refused, and what is shown."""

from typing import Any

import pytest

from tests.unit.http.site import ENVIRONMENTS, Site

VOLUMES = "/api/v1/sandbox/volumes"
NEW = {"name": "e", "template": "python"}


async def _make(site: Site, **fields: Any) -> dict[str, Any]:
    answer = await site.post(VOLUMES, {"name": "data", "size_mb": 16, **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_a_volume_is_made_used_and_deleted(site: Site) -> None:
    """It is shown with who has it, and the environment with where it has it."""
    made = await _make(site)
    assert (made["size_mb"], made["used_bytes"], made["environment_ids"]) == (16, 0, [])
    wanted = [{"name": "data", "path": "/data", "read_only": True}]
    answer = (await site.post(ENVIRONMENTS, {**NEW, "volumes": wanted})).json()
    assert answer["volumes"] == [{**wanted[0], "volume_id": made["volume_id"]}]
    path = f"{VOLUMES}/{made['volume_id']}"
    assert (await site.get(path)).json() == {**made, "environment_ids": [answer["environment_id"]]}
    assert (await site.get(f"{VOLUMES}?name=data")).json()["volumes"][0]["volume_id"] == made["volume_id"]
    assert (await site.get(f"{VOLUMES}?name=other")).json() == {"volumes": [], "next_cursor": None}
    refused = await site.send("DELETE", path)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "VOLUME_IN_USE")
    assert refused.json()["error"]["details"] == {"environment_ids": [answer["environment_id"]]}
    ended = (await site.send("DELETE", f"{path}?force=true")).json()
    assert ended == {
        "volume_id": made["volume_id"], "status": "deleted", "ended_environment_ids": [answer["environment_id"]],
    }  # fmt: skip
    assert (await site.get(f"{ENVIRONMENTS}/{answer['environment_id']}")).status_code == 404
    assert (await site.get(path)).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {}, {"name": ""}, {"name": "a/b"}, {"name": "../x"}, {"name": "x" * 64}, {"name": 7},
        {"name": "data", "size": 16}, {"name": "d", "size_mb": 15}, {"name": "d", "size_mb": "16"},
        {"name": "d", "size_mb": 16.5},
        {"name": "d", "size_mb": True}, {"name": "d", "size_mb": 10**400}, {"name": "d", "size_mb": 10**7},
        {"name": "d", "owner_id": "user-1"},
    ],
)  # fmt: skip
async def test_volumes_that_cannot_be(site: Site, body: dict[str, Any]) -> None:
    """Nothing is made."""
    assert (await site.post(VOLUMES, body)).status_code == 400
    assert site.runtime.volumes.sizes == {}


WRONG: list[Any] = [
    {}, "data", [7], [{}], [{"name": "data"}], [{"path": "/data"}], [{"name": "no", "path": "/data"}],
    [{"name": "data", "path": "/data", "read_only": 1}], [{"name": "data", "path": "/data", "host_path": "/etc"}],
    [{"name": "../data", "path": "/data"}], [{"name": "data", "path": "/a"}, {"name": "data", "path": "/b"}],
    [{"name": f"v{number}", "path": f"/v{number}"} for number in range(9)],
    *([{"name": "data", "path": path}] for path in (
        "", "/", "data", "/data/", "/../data", "/data/../../etc", "/proc", "/usr/x", "/dev/shm", "/workspace",
        "/a\nb", "/" + "x" * 256, "/" + "x/" * 600, "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17",
    )),
]  # fmt: skip


@pytest.mark.parametrize("volumes", WRONG, ids=range(len(WRONG)))
async def test_mounts_that_cannot_be(site: Site, volumes: Any) -> None:
    """Refused with the field, before anything is made."""
    await _make(site)
    answer = await site.post(ENVIRONMENTS, {**NEW, "volumes": volumes})
    assert (answer.status_code, site.runtime.made) == (400, [])
    assert answer.json()["error"]["details"]["fields"][0]["field"].startswith("volumes")


async def test_a_volume_is_made_once_for_a_key(site: Site) -> None:
    """The second request has the answer to the first."""
    headers = {"Idempotency-Key": "k"}
    first, second = [await site.post(VOLUMES, {"name": "data"}, headers=headers) for _each in range(2)]
    assert (first.status_code, second.status_code, first.json()) == (201, 201, second.json())
    assert len(site.runtime.volumes.sizes) == 1


async def test_quotas_are_shown_and_set(site: Site) -> None:
    """In MiB, with what is used."""
    await _make(site)
    own = (await site.get("/api/v1/me")).json()["quota"]
    assert own["volumes"] == {"limit": 20, "used": 1, "set": False}
    assert own["volume_mb"] == {"limit": 20 * 1024, "used": 16, "set": False}
    path = f"/api/v1/users/{site.accounts['user'].principal.user_id}/quota"
    assert (await site.send("PUT", path, "admin", json={"volumes": 5, "volume_mb": 20})).status_code == 200
    # A quota may be a second old.
    site.clock.advance(2)
    refused = await site.post(VOLUMES, {"name": "more", "size_mb": 16})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "VOLUME_QUOTA_EXCEEDED")


async def test_pages(site: Site) -> None:
    """Newest first."""
    ids = [(await _make(site, name=f"v{number}"))["volume_id"] for number in range(3)]
    page = (await site.get(f"{VOLUMES}?limit=2")).json()
    rest = (await site.get(f"{VOLUMES}?limit=2&cursor={page['next_cursor']}")).json()
    assert [each["volume_id"] for each in (*page["volumes"], *rest["volumes"])] == ids[::-1]
    assert (await site.get(f"{VOLUMES}?cursor=x")).status_code == 400
