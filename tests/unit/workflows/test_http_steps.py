"""Steps of type ``http`` against a server on loopback."""

import asyncio
import json
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandgate.core.run import StepResult, StepStatus
from sandgate.core.workflow import StepDefinition, StepType
from sandgate.workflows.requests import Egress, HttpSteps
from tests.unit.workflows.web import Web, serving

CHUNK = b"fa\r\n" + b"x" * 250 + b"\r\n"


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """A server."""
    async with serving() as made:
        yield made


@pytest.fixture
async def steps() -> AsyncIterator[HttpSteps]:
    """What makes requests, allowed to reach the server."""
    made = HttpSteps(Egress("127.0.0.1"), most_bytes=1000)
    yield made
    made.close()


def a_request(url: str, **config: Any) -> StepDefinition:
    """A step that makes a request."""
    return StepDefinition("a", StepType.HTTP, (), {"method": "GET", "url": url, **config}, timeout_s=60)


async def _get(steps: HttpSteps, url: str, **config: Any) -> StepResult:
    return await steps.run(a_request(url, **config), {"inputs": {"x": "y z"}})


def _error(result: StepResult) -> str:
    assert result.status is not StepStatus.SUCCEEDED
    assert result.error is not None
    return result.error.name


async def test_a_request_is_sent_as_written(web: Web, steps: HttpSteps) -> None:
    """With its expressions filled in, and nothing of the environment."""
    web.say("/a?q=1", b'{"n": [1]}', headers={"Content-Type": "application/json", "X-A": "1", "x-a": "2"})
    result = await _get(
        steps, web.url + "/${{ 'a' }}?q=1", method="POST",
        headers={"X-Mine": "${{ inputs.x }}"}, body={"k": "${{ inputs.x }}"},
    )  # fmt: skip
    assert result.status is StepStatus.SUCCEEDED
    assert result.outputs is not None
    assert (result.outputs["status"], result.outputs["body"]) == (200, {"n": [1]})
    assert result.outputs["headers"]["x-a"] == "1, 2"
    head, _, body = web.requests[0].partition(b"\r\n\r\n")
    assert json.loads(body) == {"k": "y z"}
    sent = head.decode().lower().split("\r\n")
    assert sent[0] == "post /a?q=1 http/1.1"
    wanted = {
        f"host: 127.0.0.1:{web.port}",
        "x-mine: y z",
        "content-type: application/json",
        "accept-encoding: identity",
    }
    assert wanted <= set(sent)


async def test_proxies_of_the_environment_are_not_used(
    web: Web, steps: HttpSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would go where nobody judged."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    web.say("/", b"hello")
    result = await _get(steps, web.url)
    assert result.outputs is not None
    assert result.outputs["body"] == "hello"


@pytest.mark.parametrize(
    ("kind", "body", "seen"),
    [
        ("text/plain; charset=iso-8859-1", b"\xfc", "\u00fc"),
        ("text/plain; charset=iso-8859-99", b"x", "x"),
        ("text/plain; charset=unicode_escape", b"\\x41", "\\x41"),
        ("text/plain", b"\xff", "\ufffd"),
        ("application/problem+json", b"[1.5]", [1.5]),
        ("application/json", b"{oops", "{oops"),
        ("application/json", b"NaN", "NaN"),
        ("application/json", b"[" * 900, "[" * 900),
        ("nonsense;;;charset*=x", b"x", "x"),
    ],
)
async def test_bodies_become_text_or_json(web: Web, steps: HttpSteps, kind: str, body: bytes, seen: Any) -> None:
    """As the answer says; what it says wrongly stays text."""
    web.say("/", body, headers={"Content-Type": kind})
    result = await _get(steps, web.url)
    assert result.outputs is not None
    assert result.outputs["body"] == seen


async def test_a_bad_status_fails_the_step(web: Web, steps: HttpSteps) -> None:
    """The answer is there for whoever handles it; ``expect`` says what is fine instead."""
    web.say("/", b"gone", 404)
    result = await _get(steps, web.url)
    assert (_error(result), result.reason) == ("HttpStatus", "failed")
    assert result.outputs is not None
    assert result.outputs["status"] == 404
    assert (await _get(steps, web.url, expect=[200, 404])).status is StepStatus.SUCCEEDED
    assert _error(await _get(steps, web.url, expect=[200])) == "HttpStatus"


async def test_redirects_are_followed_and_judged_anew(web: Web, steps: HttpSteps) -> None:
    """To where the step may go, with what may be told there; a few of them."""
    web.say("/a", status=302, headers={"Location": "/b"})
    web.say("/b", b"there")
    web.say("/round", status=307, headers={"Location": "/round"})
    web.say("/inside", status=302, headers={"Location": "http://127.0.0.2:1/"})
    web.say("/file", status=302, headers={"Location": "file:///etc/passwd"})
    result = await _get(steps, f"{web.url}/a", method="POST", body="secret", headers={"X-Key": "k"})
    assert result.outputs is not None
    assert result.outputs["body"] == "there"
    assert web.requests[1].startswith(b"GET /b ")
    assert (b"secret" in web.requests[1], b"x-key" in web.requests[1].lower()) == (False, True)
    assert _error(await _get(steps, f"{web.url}/round")) == "TooManyRedirects"
    assert _error(await _get(steps, f"{web.url}/inside")) == "AddressRefused"
    assert _error(await _get(steps, f"{web.url}/file")) == "BadUrl"
    seen = await _get(steps, f"{web.url}/a", expect=[302])
    assert seen.outputs is not None
    assert seen.outputs["headers"]["location"] == "/b"


async def test_another_host_is_told_no_secrets(web: Web) -> None:
    """Neither headers of the step nor its body."""
    steps = HttpSteps(Egress("127.0.0.0/8"))
    async with serving() as other:
        other.say("/x", b"ok")
        web.say("/a", status=302, headers={"Location": f"{other.url}/x"})
        web.say("/b", status=307, headers={"Location": f"{other.url}/x"})
        assert (await _get(steps, f"{web.url}/a", headers={"X-Key": "hush"})).status is StepStatus.SUCCEEDED
        assert b"hush" not in other.requests[0]
        assert _error(await _get(steps, f"{web.url}/b", method="POST", body="hush")) == "RedirectRefused"
        assert len(other.requests) == 1
    steps.close()


async def test_addresses_inside_are_refused(web: Web) -> None:
    """In every way to write one; nothing is sent."""
    steps = HttpSteps()
    for host in ("127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]"):
        assert _error(await _get(steps, f"http://{host}:{web.port}/")) == "AddressRefused", host
    assert web.requests == []
    steps.close()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 X\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000, "ReplyTooLarge"),
        (
            b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"fa\r\n" + b"x" * 250 + b"\r\n") * 9,
            "ReplyTooLarge",
        ),
        (b"HTTP/1.1 200 X\r\n" + b"X-A: " + b"x" * 40_000, "BadReply"),
        (b"HTTP/1.1 200 X\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", "BadReply"),
        (
            b"HTTP/1.1 200 X\r\nContent-Encoding: identity\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
            "BadReply",
        ),
        (b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\nx", "BadReply"),
        (b"SSH-2.0-x\r\n\r\n", "BadReply"),
        (b"HTTP/1.1 102 X\r\n\r\n" * 1000 + b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n", "BadReply"),
        (b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n", "BadReply"),
        (b"", "BadReply"),
    ],
)
async def test_hostile_answers_end_the_step(web: Web, steps: HttpSteps, answer: bytes, error: str) -> None:
    """With a name, and no more than the cap in memory."""
    web.answers["/"] = answer
    result = await _get(steps, web.url)
    assert _error(result) == error
    assert result.reason == ("output_limit" if error == "ReplyTooLarge" else "failed")


async def test_a_kind_that_is_long_to_read_is_cut(web: Web) -> None:
    """Nothing else runs while it is read."""
    web.say("/", b"x", headers={"Content-Type": 'a/b; x="' + ";" * 30_000})
    steps = HttpSteps(Egress("127.0.0.1"))
    started = time.process_time()
    assert (await steps.run(a_request(web.url), {})).status is StepStatus.SUCCEEDED
    assert time.process_time() - started < 0.3
    steps.close()


async def test_one_owner_takes_only_a_share(web: Web) -> None:
    """Others get through, and what waits goes on once there is room."""
    steps = HttpSteps(Egress("127.0.0.1"), most=3, most_of_one=2)
    web.say("/", b"x")
    never = a_request(f"{web.url}/never")
    tasks = [asyncio.ensure_future(steps.run(never, {}, owner="greedy")) for _ in range(5)]
    waiting = asyncio.ensure_future(steps.run(a_request(web.url), {}, owner="greedy"))
    async with asyncio.timeout(30):
        assert (await steps.run(a_request(web.url), {}, owner="modest")).status is StepStatus.SUCCEEDED
        assert not waiting.done()
        for task in tasks:
            task.cancel()
        assert (await waiting).status is StepStatus.SUCCEEDED
    await asyncio.gather(*tasks, return_exceptions=True)
    steps.close()


async def test_an_answer_that_grows_as_json_is_refused(web: Web) -> None:
    """What is kept has a bound of its own."""
    steps = HttpSteps(Egress("127.0.0.1"))
    web.say("/", b"\x01" * 60_000)
    assert _error(await _get(steps, web.url)) == "ReplyTooLarge"
    steps.close()


async def test_time_limits_hold_and_cancelling_closes(web: Web, steps: HttpSteps) -> None:
    """A server that never answers is left in time; a cancelled request is gone from the server's side too."""
    late = replace(a_request(f"{web.url}/never"), timeout_s=0.05)
    result = await steps.run(late, {})
    assert (result.status, result.reason) == (StepStatus.TIMED_OUT, "timed_out")
    web.came.clear()
    web.gone.clear()
    task = asyncio.ensure_future(steps.run(a_request(f"{web.url}/never"), {}))
    async with asyncio.timeout(30):
        await web.came.wait()
        task.cancel()
        await web.gone.wait()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nobody_listens(steps: HttpSteps) -> None:
    """That is a failure, and says where."""
    async with serving() as web:
        url = web.url
    result = await _get(steps, f"{url}/?token=hush")
    assert _error(result) == "ConnectionFailed"
    assert result.error is not None
    assert url in result.error.value
    assert "hush" not in result.error.value


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"headers": {"X-A": "${{ inputs.bad }}"}}, "BadHeader"),
        ({"headers": {"X-A": "${{ inputs.none }}"}}, "ExpressionError"),
        ({"url": "http://${{ inputs.bad }}/"}, "BadUrl"),
        ({"body": "${{ inputs.none.x }}"}, "ExpressionError"),
    ],
)
async def test_what_cannot_be_sent_fails_the_step(steps: HttpSteps, config: dict[str, Any], error: str) -> None:
    """A value never becomes another header or another host."""
    step = a_request(config.pop("url", "http://127.0.0.1:9/"), **config)
    result = await steps.run(step, {"inputs": {"bad": "a\r\nX-B: c"}})
    assert _error(result) == error


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost that nobody has signed, with its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl to make a certificate with")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    made = [program, "req", "-x509", "-nodes", "-days", "2", *curve, *names, *files]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


async def test_servers_have_to_prove_their_name(certificate: Path) -> None:
    """A certificate that nobody signed counts for nothing, and one of another name neither."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    trusting = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    async with serving(ssl=server) as web:
        web.say("/", b"hello")
        expected = [
            ("localhost", None, "TlsFailed"),
            ("127.0.0.1", trusting, "TlsFailed"),
            ("localhost", trusting, None),
        ]
        for host, tls, error in expected:
            steps = HttpSteps(Egress("127.0.0.1,::1"), tls=tls)
            result = await _get(steps, f"https://{host}:{web.port}/")
            assert (result.error and result.error.name) == error, (host, result.error)
            steps.close()
