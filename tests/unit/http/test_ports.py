"""What listens in environments, over HTTP: passed in and out, and what of it stays on its side."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from sandgate.core.ids import EnvironmentId
from sandgate.http.connection import AnswerCutOff
from sandgate.http.port_passage import Passage, PortLimits
from sandgate.http.rate import RequestRate
from sandgate.http.upgraded import offer_upgrade
from tests.unit.http.inner import Inner, saying
from tests.unit.http.site import ENVIRONMENTS, Site

_PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 2\r\n\r\nok"


async def test_a_request_is_passed_in(site: Site, inner: Inner) -> None:
    """Byte for byte behind the port, under a name that servers take, and without what is the caller's own."""

    async def echo(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await reader.readexactly(5)
        writer.write(b"HTTP/1.1 201 Made\r\nX-Own: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    base = await inner.serve(echo)
    headers = {"Cookie": "a=b", "X-Forwarded-For": "1.2.3.4", "X-Own": "c", "Connection": "x-hop", "X-Hop": "d"}
    answer = await site.post(f"{base}/a%2Fb//c?d=%20&e", None, content=b"hello", headers=headers)
    assert (answer.status_code, answer.content, answer.headers["x-own"]) == (201, b"hello", "a")
    lines = inner.heard[0].split(b"\r\n")
    assert lines[0] == b"POST /a%2Fb//c?d=%20&e HTTP/1.1"
    names = {line.partition(b":")[0] for line in lines[1:]}
    assert not names & {b"authorization", b"cookie", b"x-forwarded-for", b"x-hop"}
    assert {b"host: localhost:8000", b"x-own: c", b"connection: close", b"content-length: 5"} <= set(lines)
    assert f"x-forwarded-prefix: {base}".encode() in lines


async def test_every_method_and_an_empty_path(site: Site, inner: Inner) -> None:
    """HEAD among them, whose answer has a length and no body."""
    base = await inner.serve(saying(_PLAIN))
    for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"):
        assert (await site.send(method, f"{base}/")).status_code == 200
    assert [head.split(b" ")[0] for head in inner.heard] == [b"GET", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"HEAD"]
    assert {head.split(b" ")[1] for head in inner.heard} == {b"/"}


async def test_a_page_stands_apart(site: Site, inner: Inner) -> None:
    """In an address of the API it has no origin, sets nothing for the host, and stays below its prefix."""
    head = (
        b"HTTP/1.1 302 Found\r\nLocation: /login\r\nSet-Cookie: a=b; Domain=example.com\r\nContent-Length: 0\r\n"
        b"Content-Security-Policy: script-src 'self'\r\nStrict-Transport-Security: max-age=1\r\nServer: x\r\n"
        b"Service-Worker-Allowed: /\r\nClear-Site-Data: *\r\nX-Content-Type-Options: none\r\n\r\n"
    )
    base = await inner.serve(saying(head))
    answer = await site.get(f"{base}/")
    assert answer.headers["location"] == f"{base}/login"
    policies = answer.headers.get_list("content-security-policy")
    assert "script-src 'self'" in policies[0]
    assert policies[-1].startswith("sandbox ")
    assert "allow-same-origin" not in " ".join(policies)
    assert answer.headers["x-content-type-options"] == "nosniff"
    gone = {"set-cookie", "strict-transport-security", "service-worker-allowed", "clear-site-data", "server"}
    assert not gone & set(answer.headers)


async def test_an_answer_from_inside_says_so(site: Site, inner: Inner) -> None:
    """The server does, whatever stands in it; what the service refuses itself never looks like one."""
    forged = b"HTTP/1.1 500 Oh\r\nX-Sandgate-Port: 1, 2\r\nContent-Length: 0\r\n\r\n"
    base = await inner.serve(saying(forged))
    answer = await site.get(f"{base}/")
    assert (answer.status_code, answer.headers.get_list("x-sandgate-port")) == (500, ["8000"])
    broken = await inner.serve(saying(b""))
    refused = await site.get(f"{broken}/")
    assert (refused.status_code, "x-sandgate-port" in refused.headers) == (502, False)


_GARBAGE = {
    "nothing": b"",
    "no http": b"\x00\xff" * 60 + b"\r\n\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\nA: " + b"a" * 200_000,
    "interim answers only": b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "a split header": b"HTTP/1.1 200 OK\r\nA: b\nSet-Cookie: c\r\nContent-Length: -1\r\n\r\n",
    "a status that there is none of": b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
    "a byte that stands in no header": b"HTTP/1.1 200 OK\r\nA: b\x01c\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
}


@pytest.mark.parametrize("said", _GARBAGE.values(), ids=_GARBAGE)
async def test_servers_that_answer_anything(site: Site, inner: Inner, said: bytes) -> None:
    """It is told from an answer of the service's own, and the next request finds everything in order."""
    base = await inner.serve(saying(said))
    answer = await site.get(f"{base}/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "PORT_ANSWER_INVALID")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert site.service.ports.open_count == 0


@pytest.mark.parametrize("status", [204, 304])
async def test_the_length_of_what_is_not_sent(site: Site, inner: Inner, status: int) -> None:
    """Servers may tell it; to this one's client it would be a promise."""
    base = await inner.serve(saying(b"HTTP/1.1 %d Odd\r\nETag: a\r\nContent-Length: 5\r\n\r\n" % status))
    answer = await site.get(f"{base}/")
    assert (answer.status_code, answer.headers["etag"]) == (status, "a")
    assert "content-length" not in answer.headers


async def test_an_answer_that_is_smuggled_behind_another(site: Site, inner: Inner) -> None:
    """Each connection is for one request: what comes behind its answer is nobody's."""
    base = await inner.serve(saying(_PLAIN + b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"))
    assert (await site.get(f"{base}/")).content == b"ok"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1"
    base = await inner.serve(saying(chunked))
    answer = await site.get(f"{base}/")
    assert (answer.content, answer.headers.get("content-length")) == (b"ok", None)


async def test_a_request_in_a_request(site: Site, inner: Inner) -> None:
    """What looks like another request stays the body of the first."""

    async def read(_head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner.heard.append(await reader.readuntil(b"\r\n0\r\n\r\n"))
        inner.heard.append(await reader.readuntil(b"\r\n0\r\n\r\n"))
        writer.write(_PLAIN)

    base = await inner.serve(read)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"0\r\n\r\nGET /evil HTTP/1.1\r\n"
        yield b"Host: x\r\n\r\n"

    assert (await site.post(f"{base}/", None, content=pieces())).content == b"ok"
    # In chunks of the service's own: the end that the body shows is none.
    assert inner.heard[1:] == [b"19\r\n0\r\n\r\n", b"GET /evil HTTP/1.1\r\n\r\nb\r\nHost: x\r\n\r\n\r\n0\r\n\r\n"]


async def test_chunks_of_one_byte(site: Site, inner: Inner) -> None:
    """They are passed on together, and others get their turn meanwhile."""
    base = await inner.serve(
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")
    )
    assert (await site.get(f"{base}/")).content == b"x" * 20_000


async def test_an_answer_that_breaks_off(site: Site, inner: Inner) -> None:
    """Its client sees that it is not whole."""
    base = await inner.serve(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"))
    with pytest.raises(AnswerCutOff, match="broke off"):
        await site.get(f"{base}/")
    assert site.service.ports.open_count == 0


async def test_a_server_that_hangs(site: Site, inner: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before an answer it is 504; in the middle of one the client sees that it is not whole."""

    async def hang(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/half" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await reader.read()

    base = await inner.serve(hang)
    begin = Passage.__init__

    def begin_impatient(passage: Passage, stream: Any, target: Any, limits: PortLimits, exchange: Any) -> None:
        begin(passage, stream, target, replace(limits, answer_timeout_s=2.0), exchange)

    monkeypatch.setattr(Passage, "__init__", begin_impatient)
    answer = await site.get(f"{base}/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "PORT_TIMEOUT")
    with pytest.raises(AnswerCutOff, match="broke off"):
        await site.get(f"{base}/half")
    assert site.service.ports.open_count == 0


@pytest.mark.parametrize("headers", [{}, {"Connection": "Upgrade", "Upgrade": "websocket"}], ids=["http", "socket"])
async def test_a_credential_that_ends(
    site: Site, inner: Inner, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    """An answer without end does not outlive the token that it was asked for with, whatever else it was asked for."""
    application = site.app

    async def offering(scope: Scope, receive: Receive, send: Send) -> None:
        offer_upgrade(scope, lambda _head: pytest.fail("nobody has agreed"))
        await application(scope, receive, send)

    site.app = offering
    monkeypatch.setattr("sandgate.http.port_passage._CHECK_EVERY_S", 0.02)

    async def drip(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.005)

    base = await inner.serve(drip)
    asked = asyncio.create_task(site.get(f"{base}/", headers=headers))
    while not inner.heard:  # noqa: ASYNC110 - it is seen from outside
        await asyncio.sleep(0.001)
    assert (b"upgrade: websocket" in inner.heard[0]) == bool(headers)
    await site.post("/api/v1/auth/revoke", None)
    with pytest.raises(AnswerCutOff, match="credential"):
        await asked


async def test_as_many_as_may_be(site: Site, inner: Inner) -> None:
    """Further ones are refused at once, and others go on; whoever goes makes room."""

    async def hold(_head: bytes, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    base = await inner.serve(hold)
    service = site.service.ports
    most = site.settings.max_port_connections_per_environment
    service._open[EnvironmentId(inner.environment_id)] = most - 1
    asked = asyncio.create_task(site.get(f"{base}/"))
    while not inner.heard:  # noqa: ASYNC110 - it is seen from outside
        await asyncio.sleep(0.001)
    answer = await site.get(f"{base}/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "TOO_MANY_PORT_CONNECTIONS")
    asked.cancel()
    with suppress(asyncio.CancelledError):
        await asked
    assert service._open[EnvironmentId(inner.environment_id)] == most - 1
    del service._open[EnvironmentId(inner.environment_id)]
    owner_id = site.accounts["user"].principal.user_id
    service._open_of_users[owner_id] = site.settings.max_port_connections_per_user
    answer = await site.get(f"{base}/")
    assert (answer.status_code, answer.json()["error"]["details"]) == (429, {"limit": 128})
    assert service._open_of_users[owner_id] == 128


async def test_nobody_listens(site: Site, inner: Inner) -> None:
    """And ports that are none."""
    base = (await inner.serve(saying(_PLAIN))).removesuffix("8000")
    answer = await site.get(f"{base}8001/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "PORT_NOT_SERVED")
    for port in ("0", "65536", "-1", "1e3", "8000000", "x", "²"):
        assert (await site.get(f"{base}{port}/")).status_code == 400


async def test_links(site: Site, inner: Inner) -> None:
    """Whoever has one needs nothing else, for this port and no other, and until it expires."""
    base = await inner.serve(saying(_PLAIN))
    making = base.replace("/ports/", "/port-links/")
    made = (await site.post(making, {"expires_in": 60})).json()
    assert made["port"] == 8000
    link = made["link_path"]
    assert (await site.get(f"{link}a?b=c", None, headers={"Referer": f"http://x{link}"})).content == b"ok"
    assert inner.heard[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert b"referer" not in inner.heard[0].lower()
    token = link.split("/")[-2]
    body, _, signature = token.partition(".")
    for spoilt in (body, f"{body}.", f".{signature}", f"{body}.{signature[::-1]}", f"{body[:-4]}AAAA.{signature}"):
        answer = await site.get(f"/api/v1/port-links/{spoilt}/", None)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "PORT_LINK_NOT_FOUND")
    files = (await site.post(f"{ENVIRONMENTS}/{inner.environment_id}/links", {"path": "f"})).json()["link_path"]
    assert (await site.get(f"/api/v1/port-links/{files.rpartition('/')[2]}/", None)).status_code == 404
    site.clock.advance(61)
    assert (await site.get(link, None)).status_code == 404
    assert (await site.post(making, {"expires_in": 366 * 86_400})).status_code == 400


async def _ask_host(site: Site, method: str, url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url=url) as client:
        return await client.request(
            method, url, headers={key.replace("_", "-"): value for key, value in headers.items()}
        )


async def _link(site: Site, base: str) -> str:
    made = (await site.post(base.replace("/ports/", "/port-links/"), {})).json()
    return str(made["link_path"]).split("/")[-2]


async def test_opening_a_link_counts(site: Site, inner: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a request of who has made it."""
    base = await inner.serve(saying(_PLAIN))
    made = (await site.post(base.replace("/ports/", "/port-links/"), {})).json()
    taken: list[str] = []
    monkeypatch.setattr(RequestRate, "take", lambda _rate, user_id: taken.append(user_id))
    assert (await _ask_host(site, "GET", made["link_url"])).status_code == 303
    assert taken == [site.accounts["user"].principal.user_id]


async def test_a_link_is_where_the_server_was_asked(site: Site, inner: Inner) -> None:
    """With the port, if it has one; what leads there is fetched as it is printed."""
    base = await inner.serve(saying(_PLAIN))
    making = base.replace("/ports/", "/port-links/")
    for host, port in (("api.test:8443", ":8443"), ("api.test", ""), ("[::1]:80", ":80"), ('"', ""), ("a:b", "")):
        made = (await site.post(making, {}, headers={"Host": host})).json()
        assert made["link_url"].startswith(f"http://8000-{inner.environment_id}.ports.test{port}/?sandgate-link=")
        assert (await _ask_host(site, "GET", made["link_url"])).status_code == 303


async def test_names_of_their_own(site: Site) -> None:
    """A link becomes a cookie, which is not passed in; pages of others cannot use it."""
    inner = Inner(site)
    base = await inner.serve(
        saying(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Domain=ports.test\r\nSet-Cookie: sandgate-port=x\r\n" + _PLAIN[17:]
        )
    )
    made = (await site.post(base.replace("/ports/", "/port-links/"), {})).json()
    url = f"http://8000-{inner.environment_id}.ports.test"
    assert made["link_url"].startswith(f"{url}/?sandgate-link=")
    assert (await _ask_host(site, "GET", f"{url}/")).status_code == 401
    first = await _ask_host(site, "GET", made["link_url"] + "&x=1")
    assert (first.status_code, first.headers["location"]) == (303, "/?x=1")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    own = cookie.partition(";")[0]
    answer = await _ask_host(site, "GET", f"{url}/a?x=1", cookie=f"{own}; theirs=1")
    assert (answer.status_code, answer.content) == (200, b"ok")
    assert answer.headers.get_list("set-cookie") == ["a=b"]
    assert "content-security-policy" not in answer.headers
    assert b"cookie: theirs=1\r\n" in inner.heard[-1]
    heard = len(inner.heard)
    for headers in (
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"}, {"origin": "http://8001-env-x.ports.test"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
    ):  # fmt: skip
        assert (await _ask_host(site, "POST", f"{url}/", cookie=own, **headers)).status_code == 403
    assert (await _ask_host(site, "GET", f"{url.replace('//8000', '//8001')}/", cookie=own)).status_code == 404
    for name in ("ports.test", "x.ports.test", "8000-env-short.ports.test", f"0-{inner.environment_id}.ports.test"):
        assert (await _ask_host(site, "GET", f"http://{name}/healthz", cookie=own)).status_code == 404
    assert len(inner.heard) == heard
    token = site.accounts["user"].token
    assert (await _ask_host(site, "GET", f"{url}/", authorization=f"Bearer {token}")).status_code == 200
    assert token.encode() not in b"".join(inner.heard)
    for method in ("CONNECT", "PROPFIND"):
        refused = await _ask_host(site, method, f"{url}/", authorization=f"Bearer {token}")
        assert (refused.status_code, refused.headers["allow"].split(", ")[0]) == (405, "GET")
    tossed = f"sandgate-port=x; sandgate-port={(await _link(site, base.removesuffix('8000') + '8001'))}"
    assert (await _ask_host(site, "GET", f"{url}/", cookie=f"{tossed}; {own}")).status_code == 200
    assert (await _ask_host(site, "GET", f"{url}/", cookie=tossed)).status_code == 404
    stranger = site.accounts["stranger"].token
    assert (await _ask_host(site, "GET", f"{url}/", authorization=f"Bearer {stranger}")).status_code == 404
    for server in inner.servers:
        server.close()
