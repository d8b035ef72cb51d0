"""Requests through the proxy: what is let through, how it is sent on, and what is refused for its form."""

import asyncio

import pytest

from sandgate.core.network import NetworkLimits, NetworkRules, Verdict
from tests.unit.sandbox.proxy.conftest import Make

_GET = "GET http://host.test:PORT/a?b HTTP/1.1\r\nHost: host.test:PORT\r\nConnection: close\r\n{}\r\n"


async def test_plain_request(make: Make) -> None:
    """It arrives without the proxy's own headers, for one connection, and is written down with its bytes."""
    inside = await make()
    answer = await inside.ask(_GET.format("Proxy-Authorization: Basic eA==\r\nTE: trailers\r\nX-Own: 1\r\n"))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"hello")
    (head,) = inside.heard
    assert head.startswith(b"GET /a?b HTTP/1.1\r\n")
    lines = head.lower().split(b"\r\n")
    assert f"host: host.test:{inside.host_port}".encode() in lines
    assert b"x-own: 1" in lines
    assert b"proxy-authorization" not in head.lower()
    assert lines.count(b"connection: close") == 1
    last = inside.last()
    assert (last.host, last.port, last.verdict, last.reason) == ("host.test", inside.host_port, "allowed", "closed")
    assert last.sent_bytes == len(head)
    assert last.received_bytes > 5


async def test_several_requests_on_one_connection(make: Make) -> None:
    """Each over a connection of its own to the host, each judged anew."""
    inside = await make()
    first = "GET http://host.test:PORT/ HTTP/1.1\r\nHost: host.test:PORT\r\n\r\n"
    second = "GET http://other.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n"
    answer = await inside.ask(first + second)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"HTTP/1.1 403" in answer
    assert [each.verdict for each in inside.report().connections] == [Verdict.DENIED, Verdict.ALLOWED]


async def test_body_in_chunks(make: Make) -> None:
    """It is sent on in chunks of the proxy's own."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"0\r\n\r\n")
        await answer_hello_now(writer)

    inside = await make(echo)
    head = "POST http://host.test:PORT/ HTTP/1.1\r\nHost: host.test:PORT\r\nTransfer-Encoding: chunked\r\n"
    answer = await inside.ask(head + "Connection: close\r\n\r\n" + "1\r\nx\r\n" * 5000 + "0\r\nTrailer: no\r\n\r\n")
    assert answer.endswith(b"hello")
    sent = b"".join(inside.heard)
    assert sent.count(b"x") >= 5000
    assert b"Trailer" not in sent


async def answer_hello_now(writer: asyncio.StreamWriter) -> None:
    """The answer without waiting for a request."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    await writer.drain()


async def test_tunnel(make: Make) -> None:
    """Bytes go both ways, also those that came with the request, until both have ended."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        await writer.drain()

    inside = await make(echo)
    reader, writer = await inside.connect()
    port = inside.host_port
    writer.write(f"CONNECT host.test:{port} HTTP/1.1\r\nHost: host.test:{port}\r\n\r\nearly ".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert inside.report().totals.open == 1
    writer.write(b"late")
    writer.write_eof()
    assert await reader.read() == b"early late"
    await inside.settle()
    last = inside.last()
    assert (last.sent_bytes, last.received_bytes, last.reason) == (10, 10, "closed")


_BAD = {
    "two lengths": "POST http://host.test:PORT/ HTTP/1.1\r\nHost: host.test:PORT\r\nContent-Length: 3\r\n"
    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "lengths that differ": "POST http://host.test:PORT/ HTTP/1.1\r\nHost: host.test:PORT\r\nContent-Length: 3\r\n"
    "Content-Length: 4\r\n\r\nabcd",
    "chunks and more": "POST http://host.test:PORT/ HTTP/1.1\r\nHost: host.test:PORT\r\n"
    "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": "POST http://host.test:PORT/ HTTP/1.1\r\nHost: host.test:PORT\r\nTransfer-Encoding: chunked\r\n"
    "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "two hosts": "GET http://host.test:PORT/ HTTP/1.1\r\nHost: host.test:PORT\r\nHost: host.test:PORT\r\n\r\n",
    "another host": "GET http://host.test:PORT/ HTTP/1.1\r\nHost: other.test\r\n\r\n",
    "another port": "GET http://host.test:PORT/ HTTP/1.1\r\nHost: host.test\r\n\r\n",
    "no host": "GET http://host.test:PORT/ HTTP/1.1\r\n\r\n",
    "a path only": "GET / HTTP/1.1\r\nHost: host.test:PORT\r\n\r\n",
    "https without a tunnel": "GET https://host.test/ HTTP/1.1\r\nHost: host.test\r\n\r\n",
    "another scheme": "GET ftp://host.test/ HTTP/1.1\r\nHost: host.test\r\n\r\n",
    "a user": "GET http://host.test@evil.test:PORT/ HTTP/1.1\r\nHost: host.test:PORT\r\n\r\n",
    "a backslash": "GET http://evil.test\\@host.test:PORT/ HTTP/1.1\r\nHost: host.test:PORT\r\n\r\n",
    "a tunnel without a port": "CONNECT host.test HTTP/1.1\r\nHost: host.test\r\n\r\n",
    "a tunnel with a body": "CONNECT host.test:PORT HTTP/1.1\r\nHost: host.test:PORT\r\nContent-Length: 1\r\n\r\nx",
    "a tunnel to two hosts": "CONNECT host.test:PORT HTTP/1.1\r\nHost: other.test:PORT\r\n\r\n",
    "a tunnel to a path": "CONNECT host.test:PORT/x HTTP/1.1\r\nHost: host.test:PORT\r\n\r\n",
    "an address in another form": "GET http://2130706433:PORT/ HTTP/1.1\r\nHost: 2130706433:PORT\r\n\r\n",
    "an escaped host": "GET http://host%2etest:PORT/ HTTP/1.1\r\nHost: host%2etest:PORT\r\n\r\n",
    "a space before a colon": "GET http://host.test:PORT/ HTTP/1.1\r\nHost : host.test:PORT\r\n\r\n",
    "a bare line end": "GET http://host.test:PORT/ HTTP/1.1\r\nHost: host.test:PORT\r\nA: b\nHost: c\r\n\r\n",
    "a zero byte": "GET http://host.test:PORT/ HTTP/1.1\r\nHost: host.test:PORT\r\nA: \0\r\n\r\n",
    "http 0.9": "GET http://host.test:PORT/\r\n\r\n",
    "http 2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\r\n" * 4,
    "nothing of the kind": "\r\n\r\n\x00\xff\r\n\r\n",
}


@pytest.mark.parametrize("request_", _BAD.values(), ids=_BAD)
async def test_what_can_be_understood_in_two_ways(make: Make, request_: str) -> None:
    """It is refused, and nothing of it reaches a host."""
    inside = await make(allow=("host.test:PORT", "other.test", "evil.test:PORT"))
    answer = await inside.ask(request_)
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert not inside.heard
    assert (inside.last().verdict, inside.last().reason) == (Verdict.DENIED, "bad_request")


async def test_a_folded_header_is_unfolded(make: Make) -> None:
    """What is sent on has no line that begins with a space."""
    inside = await make()
    await inside.ask(_GET.format("X-Folded: a\r\n Host: evil.test\r\n"))
    assert b"\r\n " not in b"".join(inside.heard)
    assert b"x-folded: a host: evil.test" in b"".join(inside.heard).lower()


async def test_headers_that_connection_names_go(make: Make) -> None:
    """But not those by which a message is understood."""
    inside = await make()
    await inside.ask(_GET.format("X-Hop: 1\r\nConnection: x-hop, host, content-length\r\n"))
    head = b"".join(inside.heard).lower()
    assert b"x-hop" not in head
    assert head.count(b"\r\nhost:") == 1


async def test_a_head_without_end(make: Make) -> None:
    """It is not kept."""
    inside = await make()
    answer = await inside.ask(_GET.format("X: " + "a" * 40_000 + "\r\n"))
    assert answer.startswith(b"HTTP/1.1 431")
    assert inside.last().reason == "head_too_large"


_ANSWERS = {
    "nothing": b"",
    "garbage": b"\x00\xff" * 50 + b"\r\n\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\nA: " + b"a" * 100_000,
    "interim answers only": b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
}


@pytest.mark.parametrize("said", _ANSWERS.values(), ids=_ANSWERS)
async def test_hosts_that_answer_anything(make: Make, said: bytes) -> None:
    """Code is told that it is no answer."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()

    inside = await make(handler)
    assert (await inside.ask(_GET.format(""))).startswith(b"HTTP/1.1 502")
    assert inside.last().reason == "bad_answer"


async def test_an_answer_of_two_lengths(make: Make) -> None:
    """Only that reaches the code which the proxy has followed itself."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nsmuggled")
        await writer.drain()

    inside = await make(handler)
    answer = await inside.ask(_GET.format(""))
    assert b"content-length" not in answer.lower()
    assert b"smuggled" not in answer


async def test_rules_that_change_hold_for_what_is_open(make: Make) -> None:
    """It is cut off, and so is everything when the environment ends."""

    async def hold(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    inside = await make(hold, allow=("host.test:PORT", "127.0.0.1:PORT"))
    readers = []
    for name in ("host.test", "127.0.0.1"):
        reader, writer = await inside.connect()
        writer.write(f"CONNECT {name}:{inside.host_port} HTTP/1.1\r\nHost: {name}:{inside.host_port}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        readers.append(reader)
    inside.server.change("env-1", NetworkRules.parse([f"127.0.0.1:{inside.host_port}"]))
    assert await readers[0].read() == b""
    await inside.settle(1)
    assert {each.reason for each in inside.report().connections} == {"rules_changed", ""}
    await inside.server.close("env-1")
    assert await readers[1].read() == b""
    assert inside.server.report("env-1") is None


async def test_bytes_are_bounded(make: Make) -> None:
    """What an environment may have of the network in all, it has once."""

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 500_000)
        await writer.drain()

    inside = await make(flood, limits=NetworkLimits(total_bytes=100_000))
    assert len(await inside.ask(_GET.format(""))) < 300_000
    assert (inside.last().verdict, inside.last().reason) == (Verdict.ALLOWED, "byte_limit")
    assert (await inside.ask(_GET.format(""))).startswith(b"HTTP/1.1 429")
    assert inside.last().verdict is Verdict.DENIED
