"""Files of environments over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.http.conftest import StreamLifetime
from tests.unit.http.site import ENVIRONMENTS, Site


async def _base(site: Site) -> str:
    return f"{ENVIRONMENTS}/{await site.create_environment()}"


async def test_a_file_goes_up_and_comes_down(site: Site) -> None:
    """Whole and in parts, with the headers that a browser goes by."""
    base = await _base(site)
    put = await site.send("PUT", f"{base}/files/data/a.txt", content=b"0123456789")
    assert (put.status_code, put.json()["path"], put.json()["size_bytes"]) == (200, "data/a.txt", 10)
    got = await site.get(f"{base}/files/data/a.txt")
    assert (got.content, got.headers["content-type"]) == (b"0123456789", "application/octet-stream")
    assert 'filename="a.txt"' in got.headers["content-disposition"]
    part = await site.get(f"{base}/files/data/a.txt", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    same = await site.get(f"{base}/files/data/a.txt", headers={"If-None-Match": got.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    beyond = await site.get(f"{base}/files/data/a.txt", headers={"Range": "bytes=10-"})
    assert (beyond.status_code, beyond.json()["error"]["code"]) == (416, "RANGE_NOT_SATISFIABLE")


async def test_a_body_of_unknown_length_is_a_file(site: Site) -> None:
    """It comes in pieces, and is as long as it turns out."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 50_000

    base = await _base(site)
    assert (await site.send("PUT", f"{base}/files/a", content=pieces())).json()["size_bytes"] == 1_000_000


async def test_folders_are_made_listed_and_removed(site: Site) -> None:
    """In pages, by name."""
    base = await _base(site)
    for name in "cab":
        assert (await site.post(f"{base}/folders", {"path": f"in/{name}"})).json()["kind"] == "folder"
    first = (await site.get(f"{base}/files", params={"path": "in", "limit": "2"})).json()
    assert [entry["name"] for entry in first["files"]] == ["a", "b"]
    rest = (await site.get(f"{base}/files", params={"path": "in", "cursor": first["next_cursor"]})).json()
    assert ([entry["path"] for entry in rest["files"]], rest["next_cursor"]) == (["in/c"], None)
    full = await site.send("DELETE", f"{base}/files/in")
    assert (full.status_code, full.json()["error"]["code"]) == (409, "FILE_CONFLICT")
    assert (await site.send("DELETE", f"{base}/files/in", params={"recursive": "true"})).json() == {"deleted": 4}
    assert (await site.get(f"{base}/stat", params={"path": "in"})).json()["error"]["code"] == "FILE_NOT_FOUND"


async def test_files_are_moved_and_copied(site: Site) -> None:
    """And nothing is replaced that nobody has said may be."""
    base = await _base(site)
    await site.send("PUT", f"{base}/files/a", params={"mode": "750"}, content=b"a")
    copied = await site.post(f"{base}/copy", {"source": "a", "target": "in/b"})
    assert (copied.json()["mode"], (await site.get(f"{base}/files/in/b")).content) == ("0750", b"a")
    taken = await site.post(f"{base}/move", {"source": "a", "target": "in/b"})
    assert taken.json()["error"]["code"] == "FILE_CONFLICT"
    moved = await site.post(f"{base}/move", {"source": "a", "target": "in/b", "overwrite": True})
    assert moved.status_code == 200
    kept = await site.send("PUT", f"{base}/files/in/b", params={"overwrite": "false"}, content=b"new")
    assert kept.json()["error"]["code"] == "FILE_CONFLICT"


async def test_names_are_any_bytes(site: Site) -> None:
    """What is no UTF-8 shows as such, and is found by the path that the listing gives for addresses."""
    base = await _base(site)
    await site.send("PUT", f"{base}/files/%FF%0A%3Fname", content=b"odd")
    (entry,) = (await site.get(f"{base}/files")).json()["files"]
    assert (entry["name"], entry["encoded_path"]) == ("\ufffd\n?name", "%FF%0A%3Fname")
    assert (await site.get(f"{base}/files/{entry['encoded_path']}")).content == b"odd"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("files/none", 404, "FILE_NOT_FOUND"),
        ("files/%00", 400, "PATH_INVALID"),
        ("files/" + "x/" * 2100 + "x", 400, "PATH_INVALID"),
        ("files/" + "x" * 300, 400, "PATH_INVALID"),
        ("files//dev/zero", 409, "FILE_CONFLICT"),
        ("files//proc", 409, "FILE_CONFLICT"),
        ("stat", 400, "VALIDATION_FAILED"),
        ("files?cursor=xyz", 400, "VALIDATION_FAILED"),
        ("files?limit=1001", 400, "VALIDATION_FAILED"),
    ],
)
async def test_what_cannot_be_read_is_refused(site: Site, path: str, status: int, code: str) -> None:
    """With a code that says why."""
    answer = await site.get(f"{await _base(site)}/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("length", "status", "code"),
    [(str(17 * 1024**3), 413, "FILE_TOO_LARGE"), (str(300 * 1024**2), 413, "DISK_FULL")],
)
async def test_what_cannot_fit_is_refused_before_it_is_sent(site: Site, length: str, status: int, code: str) -> None:
    """By the length that the client declares."""
    answer = await site.send("PUT", f"{await _base(site)}/files/a", content=b"x", headers={"Content-Length": length})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_files_need_an_environment_that_runs(site: Site) -> None:
    """One that has ended has none."""
    environment_id = await site.create_environment()
    base: Any = f"{ENVIRONMENTS}/{environment_id}"
    await site.get(f"{base}/files")
    site.runtime.kill(environment_id, "gone")  # type: ignore[arg-type]
    answer = await site.get(f"{base}/files")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "ENVIRONMENT_NOT_RUNNING")


async def test_files_are_searched(site: Site) -> None:
    """By name and content, page by page."""
    base = await _base(site)
    for name in ("a.py", "b.py", "c.txt"):
        await site.send("PUT", f"{base}/files/in/{name}", content=b"one\n# NOTE\n# NOTE\n")
    query = {"path": "in", "name": "*.py", "content": "NOTE", "limit": "3"}
    first = (await site.get(f"{base}/search", params=query)).json()
    assert [(each["path"], each["line_number"], each["line"]) for each in first["matches"]] == [
        ("in/a.py", 2, "# NOTE"), ("in/a.py", 3, "# NOTE"), ("in/b.py", 2, "# NOTE"),
    ]  # fmt: skip
    assert (first["incomplete"], first["files_read"]) == ("limit", 2)
    rest = (await site.get(f"{base}/search", params={**query, "cursor": first["next_cursor"]})).json()
    assert ([each["line_number"] for each in rest["matches"]], rest["incomplete"], rest["next_cursor"]) == (
        [3], None, None,
    )  # fmt: skip
    everything = (await site.get(f"{base}/search")).json()["matches"]
    assert [each["path"] for each in everything] == ["in", "in/a.py", "in/b.py", "in/c.txt"]
    for query, code in (
        ({"content": "(", "regex": "true"}, "PATTERN_INVALID"),
        ({"cursor": "xyz"}, "VALIDATION_FAILED"),
        ({"content": "x" * 1001}, "VALIDATION_FAILED"),
        ({"path": "none"}, "FILE_NOT_FOUND"),
        ({"path": "in/a.py"}, "FILE_CONFLICT"),
    ):
        assert (await site.get(f"{base}/search", params=query)).json()["error"]["code"] == code


async def test_a_watch_says_that_it_has_begun(site: Site, stream_lifetime: StreamLifetime) -> None:
    """One that comes again is told that something may be missing; there are so many and no more."""
    stream_lifetime(0.5)
    base = await _base(site)
    await site.send("PUT", f"{base}/files/in/a", content=b"a")
    first = await site.get(f"{base}/watch", params={"path": "in"})
    assert first.text.count("event:") == 1
    assert 'id: 1\nevent: started\ndata: {"path":"in"}' in first.text
    again = await site.get(f"{base}/watch", headers={"Last-Event-ID": "7"})
    assert [line for line in again.text.split("\n") if line.startswith("event")] == [
        "event: started", "event: overflow",
    ]  # fmt: skip
    for path, status in (("none", 404), ("in/a", 409)):
        assert (await site.get(f"{base}/watch", params={"path": path})).status_code == status
    most = site.settings.max_watches_per_environment
    stream_lifetime(4.0)
    answers = await asyncio.gather(*(site.get(f"{base}/watch") for _ in range(most + 1)))
    assert sorted(answer.status_code for answer in answers) == [200] * most + [429]
    stream_lifetime(0.5)
    assert (await site.get(f"{base}/watch")).status_code == 200
