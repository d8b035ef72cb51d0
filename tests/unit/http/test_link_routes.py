"""Links to files of environments: who has one needs nothing else, and can do nothing else."""

import base64
import json
from typing import Any

import pytest

from sandgate.core.principal import Role
from tests.unit.http.site import ENVIRONMENTS, Site


async def _link(site: Site, base: str, who: str = "user", **fields: Any) -> str:
    answer = await site.post(f"{base}/links", {"path": "in/a.html", **fields}, who)
    assert answer.status_code == 201, answer.text
    path: str = answer.json()["link_path"]
    return path


async def _base(site: Site) -> str:
    base = f"{ENVIRONMENTS}/{await site.create_environment()}"
    await site.send("PUT", f"{base}/files/in/a.html", content=b"<script>alert(1)</script>")
    return base


async def _code(site: Site, path: str, method: str = "GET", **named: Any) -> tuple[int, str]:
    answer = await site.send(method, path, None, **named)
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_link_reads_one_file(site: Site) -> None:
    """Whole and in parts; a page is harmless in a browser, and saved under the name that was asked for."""
    link = await _link(site, await _base(site), name='odd "name".html')
    got = await site.get(link, None)
    assert got.content == b"<script>alert(1)</script>"
    assert (got.headers["content-type"], got.headers["x-content-type-options"]) == (
        "application/octet-stream", "nosniff",
    )  # fmt: skip
    assert got.headers["content-disposition"].startswith('attachment; filename="odd _name_.html"')
    assert got.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert got.headers["cache-control"] == "no-store"
    part = await site.get(link, None, headers={"Range": "bytes=1-6"})
    assert (part.status_code, part.content) == (206, b"script")
    assert await _code(site, link, headers={"Range": "bytes=99-"}) == (416, "RANGE_NOT_SATISFIABLE")


async def test_a_link_is_where_the_server_was_asked(site: Site) -> None:
    """It is fetched as it is printed, port included; a host that is none is not repeated."""
    base = await _base(site)
    for host, origin in (("api.test:8443", "http://api.test:8443"), ("api.test", "http://api.test"), ("a/b", None)):
        made = (await site.post(f"{base}/links", {"path": "in/a.html"}, headers={"Host": host})).json()
        assert made["link_url"] == (None if origin is None else origin + made["link_path"])
        if origin is not None:
            assert (await site.get(made["link_url"], None)).status_code == 200


async def test_a_link_writes_one_file(site: Site) -> None:
    """As long as it may be, and over what is there only if that was said."""
    base = await _base(site)
    link = await _link(site, base, method="PUT", path="up", max_bytes=5)
    assert await _code(site, link, "PUT", content=b"longer") == (413, "FILE_TOO_LARGE")

    async def pieces() -> Any:
        for _ in range(3):
            yield b"xxx"

    assert await _code(site, link, "PUT", content=pieces()) == (413, "FILE_TOO_LARGE")
    assert (await site.get(f"{base}/files/up")).status_code == 404
    assert (await site.send("PUT", link, None, content=b"fits")).json()["size_bytes"] == 4
    kept = await _link(site, base, method="PUT", path="up", overwrite=False)
    assert await _code(site, kept, "PUT", content=b"x") == (409, "FILE_CONFLICT")


async def test_a_link_does_what_it_says_and_nothing_else(site: Site) -> None:
    """Another method, a change of any sign of it, or one of another server's is refused."""
    base = await _base(site)
    link = await _link(site, base)
    refused = 404, "FILE_LINK_NOT_FOUND"
    assert await _code(site, link, "PUT", content=b"x") == refused
    body, _, signature = link.rpartition("/")[2].partition(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert await _code(site, await _link(site, base, method="PUT")) == refused
    for change in ({"path": "/etc/passwd"}, {"ends": 9e9}, {"method": "PUT"}, {"user": "user-x"}):
        forged = base64.urlsafe_b64encode(json.dumps({**said, **change}).encode()).rstrip(b"=").decode()
        assert await _code(site, f"/api/v1/links/{forged}.{signature}") == refused
    for odd in (body, f"{body}.", f"{body}.{signature[:-1]}", f"{body}.{signature}=", f".{signature}", "%FF.%FF", "x"):
        assert await _code(site, f"/api/v1/links/{odd}") == refused
    assert await _code(site, f"/api/v1/links/{body}.{signature}A") == refused


@pytest.mark.parametrize("how", ["time", "disabled", "password", "deleted", "environment"])
async def test_a_link_ends(site: Site, how: str) -> None:
    """With its time, with the user who has made it, and with the environment."""
    other = await site.add_account("other", Role.ADMIN)
    base = await _base(site)
    link = await _link(site, base, "other", expires_in=60)
    assert (await site.get(link, None)).status_code == 200
    expected = 404, "FILE_LINK_NOT_FOUND"
    if how == "time":
        site.clock.advance(60)
    elif how == "disabled":
        await site.users.update(None, other.principal.user_id, disabled=True)
    elif how == "password":
        await site.users.update(None, other.principal.user_id, password="another long password")
    elif how == "deleted":
        await site.users.delete(None, other.principal.user_id)
    else:
        await site.send("DELETE", base)
        expected = 404, "ENVIRONMENT_NOT_FOUND"
    assert await _code(site, link) == expected


async def test_a_link_can_do_no_more_than_its_user(site: Site) -> None:
    """Neither when it is made, nor when the user's role has changed since."""
    other = await site.add_account("other", Role.USER)
    base = f"{ENVIRONMENTS}/{await site.create_environment('other')}"
    link = await _link(site, base, "other", method="PUT")
    await site.users.update(None, other.principal.user_id, role=Role.VIEWER)
    site.clock.advance(2)
    assert await _code(site, link, "PUT", content=b"x") == (403, "FORBIDDEN")
    answer = await site.post(f"{base}/links", {"path": "a", "method": "PUT"}, "other")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN")
    assert (await site.post(f"{base}/links", {"path": "a"}, "other")).status_code == 201


async def test_links_are_told_of_but_never_shown(site: Site) -> None:
    """Each use has an entry with the user and the file; none has the link."""
    base = await _base(site)
    link = await _link(site, base)
    await site.get(link, None)
    await _code(site, link, "PUT", content=b"x")
    await site.trail.flush()
    entries = (await site.get("/api/v1/audit", "admin", params={"limit": "50"})).json()["entries"]
    told = {entry["action"]: entry for entry in entries}
    assert told["create_link"]["details"]["path"] == "in/a.html"
    read = told["read_linked_file"]
    assert (read["credential"], read["details"]["path"], read["outcome"]) == ("link", "in/a.html", "done")
    assert (read["user_id"], read["resource_id"]) == (
        site.accounts["user"].principal.user_id, base.rpartition("/")[2],
    )  # fmt: skip
    assert told["write_linked_file"]["outcome"] == "refused"
    assert link.rpartition("/")[2] not in json.dumps(entries)


@pytest.mark.parametrize(
    "body",
    [
        {"path": "a", "expires_in": 8 * 86_400},
        {"path": "a", "expires_in": 0},
        {"path": "a", "method": "DELETE"},
        {"path": "a", "name": ""},
        {"path": "a", "max_bytes": -1},
        {"path": "a", "more": 1},
        {},
    ],
)
async def test_odd_links_are_refused(site: Site, body: Any) -> None:
    """By the field that is wrong."""
    answer = await site.post(f"{await _base(site)}/links", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_FAILED")
