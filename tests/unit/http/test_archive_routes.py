"""Whole folders of environments over HTTP."""

import pytest

from tests.archive_files import FORMS, TREE, read_archive, tar
from tests.unit.http.site import ENVIRONMENTS, Site

TYPES = {"tar": "application/x-tar", "tar.gz": "application/gzip", "zip": "application/zip"}


@pytest.mark.parametrize("form", FORMS)
async def test_a_folder_goes_up_and_comes_down(site: Site, form: str) -> None:
    """With the headers that a browser goes by, and a name of its own."""
    base = f"{ENVIRONMENTS}/{await site.create_environment()}"
    query = {"path": "in/tree", "format": form}
    put = await site.send("PUT", f"{base}/archive", params=query, content=FORMS[form](*TREE.items()))
    size = sum(map(len, TREE.values()))
    assert put.json() == {"path": "in/tree", "files": 4, "folders": 0, "links": 0, "size_bytes": size}
    got = await site.get(f"{base}/archive", params=query)
    assert read_archive(form, got.content) == TREE
    assert (got.headers["content-type"], got.headers["x-skipped-entries"]) == (TYPES[form], "0")
    assert f'filename="tree.{form}"' in got.headers["content-disposition"]
    assert "sandbox" in got.headers["content-security-policy"]
    head = await site.send("HEAD", f"{base}/archive", params=query)
    assert (head.status_code, head.content) == (200, b"")


async def test_what_cannot_be_unpacked_says_why(site: Site) -> None:
    """With the entry; the work folder is meant where no path is given."""
    base = f"{ENVIRONMENTS}/{await site.create_environment()}"
    refused = await site.send("PUT", f"{base}/archive", content=tar(("good", b"g"), ("../x", b"x")))
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["details"]) == (400, "ARCHIVE_INVALID", {"path": "../x"})
    for query, code in (({"format": "rar"}, "VALIDATION_FAILED"), ({"path": "\ud7ff" * 1400}, "PATH_INVALID")):
        answer = await site.send("PUT", f"{base}/archive", params=query, content=b"")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    long = {"Content-Length": str(17 * 1024**3)}
    answer = await site.send("PUT", f"{base}/archive", content=b"x", headers=long)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "ARCHIVE_TOO_LARGE")
    await site.send("PUT", f"{base}/files/a", content=b"a")
    for path, status in (("a", 409), ("none", 404)):
        assert (await site.get(f"{base}/archive", params={"path": path})).status_code == status
    assert [entry["name"] for entry in (await site.get(f"{base}/files")).json()["files"]] == ["a"]
