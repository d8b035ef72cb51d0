"""Addresses in what servers in environments answer: where clients are led by them."""

import asyncio

import pytest

from tests.unit.http.inner import Inner, saying
from tests.unit.http.site import Site


@pytest.mark.parametrize(
    ("location", "outside"),
    [
        ("http://localhost:8000/a?b", "{base}/a?b"), ("http://127.0.0.1:8000", "{base}/"),
        ("http://localhost:9000/a", "http://localhost:9000/a"), ("//evil.test/", "//evil.test/"),
        ("https://other.test/", "https://other.test/"), ("next", "next"),
    ],
)  # fmt: skip
async def test_where_redirections_lead(site: Site, inner: Inner, location: str, outside: str) -> None:
    """What the server calls its own is below the port outside."""
    base = await inner.serve(
        saying(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
    )
    assert (await site.get(f"{base}/")).headers["location"] == outside.format(base=base)


@pytest.mark.parametrize(
    "location",
    [
        "../../../env-other", "/../../../env-other", "/%2e%2E/x", "/..%2f..%2fx", "a/../../b", "//sandgate.test/api",
        "http://sandgate.test/", "https://SANDGATE.test.:8443/api/x", "http://a@sandgate.test/x", "/\\sandgate.test/",
        "http:/api/v1/x", "///sandgate.test/x", "http://sandgate%2etest/x", "http://[x/", "/a//../../b",
        "/a%5c../../b", "http://evil.test\\@sandgate.test/x",
    ],
)  # fmt: skip
async def test_addresses_that_lead_out(site: Site, inner: Inner, location: str) -> None:
    """Code inside does not lead a client, with its token, to other addresses of the API."""
    named = f"Location: {location}\r\nContent-Location: {location}\r\nLink: <{location}>; rel=next\r\nRefresh: 0\r\n"
    base = await inner.serve(saying(f"HTTP/1.1 302 Found\r\n{named}Content-Length: 0\r\n\r\n".encode()))
    answer = await site.get(f"{base}/")
    assert answer.status_code == 302
    assert not {"location", "content-location", "link", "refresh"} & set(answer.headers)


async def test_addresses_below_the_port(site: Site, inner: Inner) -> None:
    """They are no way out, however they are written."""
    answer = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"
    shown: list[bytes] = []

    async def show(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(shown[-1])

    base = await inner.serve(show)
    shown.append(answer % b"http://localhost:8000/../x")
    assert "location" not in (await site.get(f"{base}/a/b")).headers
    for location in ("../b", "?c", "/d/../e", "//sandgate.test{base}/f", "http://sandgate.test{base}/g/%2e"):
        shown.append(answer % location.format(base=base).encode())
        assert "location" in (await site.get(f"{base}/a/b")).headers, location
