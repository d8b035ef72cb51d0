"""Executions over HTTP."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Scope

from tests.unit.http.site import ENVIRONMENTS, Site


async def _execute(site: Site, code: str, **fields: Any) -> Any:
    environment_id = await site.create_environment()
    return await site.post(f"{ENVIRONMENTS}/{environment_id}/execute", {"code": code, **fields})


async def test_hello_world(site: Site) -> None:
    """The answer has every field of the contract."""
    answer = await _execute(site, "print('Hello, World!')", timeout=30)
    assert answer.status_code == 200
    body = answer.json()
    assert body["execution_id"].startswith("exec-")
    assert body["environment_id"].startswith("env-")
    expected = {
        "status": "completed",
        "stdout": "Hello, World!\n",
        "stderr": "",
        "exit_code": 0,
        "error": None,
        "stdout_truncated": False,
        "stderr_truncated": False,
        "usage": {"cpu_ms": 1, "peak_memory_bytes": 9 * 1024 * 1024},
        "isolation": "standard",
        "timeout": 30.0,
    }
    assert {name: body[name] for name in expected} == expected
    assert isinstance(body["duration_ms"], int)


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("raise ValueError('no')", "failed", 1),
        ("sys.exit(3)", "failed", 3),
        ("x = (", "failed", 1),
        ("bytearray(2**40)", "out_of_memory", None),
    ],
)
async def test_code_that_fails_is_an_answer(site: Site, code: str, status: str, exit_code: int | None) -> None:
    """200, and the answer tells how."""
    answer = await _execute(site, code)
    assert answer.status_code == 200
    assert answer.json()["status"] == status
    if exit_code is not None:
        assert answer.json()["exit_code"] == exit_code
        assert set(answer.json()["error"]) == {"name", "value", "traceback"}


async def test_code_stops_at_its_time_limit(site: Site) -> None:
    """The limit may be a fraction of a second."""
    answer = await _execute(site, "while True: pass", timeout=0.1)
    assert (answer.status_code, answer.json()["status"]) == (200, "timed_out")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "code"),
        ({"code": None}, "code"),
        ({"code": ["print()"]}, "code"),
        ({"code": "", "timeout": 0.05}, "timeout"),
        ({"code": "", "timeout": 3600.5}, "timeout"),
        ({"code": "", "timeout": "1"}, "timeout"),
        ({"code": "", "timeout": False}, "timeout"),
        ({"code": "", "language": ""}, "language"),
        ({"code": "", "lang": "python"}, "lang"),
    ],
)
async def test_wrong_fields_are_named(site: Site, body: dict[str, Any], field: str) -> None:
    """400 with the field."""
    path = f"{ENVIRONMENTS}/{await site.create_environment()}/execute"
    answer = await site.post(path, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["fields"][0]["field"] == field


async def test_an_unknown_language_is_refused_with_those_there_are(site: Site) -> None:
    """Those that the template lists; the one of the interpreter can be named, too."""
    (template,) = [each for each in (await site.get("/api/v1/sandbox/templates")).json()["templates"]
                   if each["name"] == "python-3.9"]  # fmt: skip
    answer = await _execute(site, "print('x')", language="cobol")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "UNKNOWN_LANGUAGE")
    assert answer.json()["error"]["details"] == {"language": "cobol", "known": template["languages"]}
    assert template["languages"][0] == "python"
    assert (await _execute(site, "print('x')", language="python")).json()["stdout"] == "x\n"


async def test_what_comes_with_the_code_is_there(site: Site) -> None:
    """Arguments, variables, standard input, a folder and files of either kind."""
    answer = await _execute(
        site,
        "import os, sys\nprint(sys.argv[1], os.environ['MODE'], sys.stdin.read(), open('a').read(), open('b').read())",
        args=["one"], env={"MODE": "test"}, stdin="line", cwd="in",
        files=[{"path": "in/a", "content": "A"}, {"path": "in/b", "content_base64": "Qg=="}],
    )  # fmt: skip
    assert answer.json()["stdout"] == "one test line A B\n"


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("env", {"1A": "x"}, "env.1A.[key]"),
        ("env", {"A=B": "x"}, "env.A=B.[key]"),
        ("env", {"A": 1}, "env.A"),
        ("env", {f"A{number}": "" for number in range(257)}, "env"),
        ("args", "one", "args"),
        ("args", ["x"] * 257, "args"),
        ("cwd", "", "cwd"),
        ("files", [{"path": "a"}], "files.0"),
        ("files", [{"path": "a", "content": "", "content_base64": ""}], "files.0"),
        ("files", [{"path": "a", "content_base64": "?"}], "files.0"),
        ("files", [{"path": "a/", "content": ""}], "files.0.path"),
        ("files", [{"path": "a", "content": "", "mode": 7}], "files.0.mode"),
        ("stdin", 1, "stdin"),
    ],
)
async def test_what_comes_with_the_code_is_checked(site: Site, field: str, value: Any, named: str) -> None:
    """400 with the very place."""
    answer = await _execute(site, "pass", **{field: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["fields"][0]["field"] == named


async def test_what_comes_with_the_code_is_bounded(site: Site) -> None:
    """In bytes all together, and in files."""
    limit = site.settings.max_execution_input_bytes
    large = await _execute(site, "pass", stdin="x" * (limit // 2), args=["x" * (limit // 2 + 1)])
    assert (large.status_code, large.json()["error"]["code"]) == (413, "EXECUTION_INPUT_TOO_LARGE")
    most = site.settings.max_execution_files
    many = await _execute(site, "pass", files=[{"path": str(n), "content": ""} for n in range(most + 1)])
    assert (many.status_code, many.json()["error"]["code"]) == (400, "TOO_MANY_EXECUTION_FILES")


async def test_sizes_are_bounded(site: Site) -> None:
    """Code beyond its limit, and a body beyond its own, are 413 with different codes."""
    path = f"{ENVIRONMENTS}/{await site.create_environment()}/execute"
    code = await site.post(path, {"code": "#" * (site.settings.max_code_bytes + 1)})
    assert (code.status_code, code.json()["error"]["code"]) == (413, "CODE_TOO_LARGE")
    body = await site.post(path, {"code": "#" * site.settings.max_body_bytes})
    assert (body.status_code, body.json()["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
async def test_only_json_is_read(site: Site, kind: str) -> None:
    """415 names what is read."""
    path = f"{ENVIRONMENTS}/{await site.create_environment()}/execute"
    answer = await site.post(path, content=b'{"code": ""}', headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert answer.json()["error"]["details"]["supported"]


async def test_executions_are_listed_and_got(site: Site) -> None:
    """Newest first, one environment's only."""
    environment_id = await site.create_environment()
    path = f"{ENVIRONMENTS}/{environment_id}"
    done = [(await site.post(f"{path}/execute", {"code": f"print({number})"})).json() for number in range(3)]
    listed = (await site.get(f"{path}/executions", params={"limit": "2"})).json()
    assert listed["executions"] == done[:0:-1]
    rest = (await site.get(f"{path}/executions", params={"cursor": listed["next_cursor"]})).json()
    assert (rest["executions"], rest["next_cursor"]) == ([done[0]], None)
    assert (await site.get(f"{path}/executions/{done[0]['execution_id']}")).json() == done[0]
    other = f"{ENVIRONMENTS}/{await site.create_environment()}/executions/{done[0]['execution_id']}"
    assert (await site.get(other)).json()["error"]["code"] == "EXECUTION_NOT_FOUND"


async def start(site: Site, path: str) -> "tuple[asyncio.Future[Any], str]":
    """A request that runs for ever, and the id of its execution."""
    request = asyncio.ensure_future(site.post(f"{path}/execute", {"code": "while True: pass"}))
    async with asyncio.timeout(30):
        while True:
            for live in site.service._lifecycle.all():
                for execution_id in live.running:
                    return request, execution_id
            await asyncio.sleep(0.001)


async def test_a_running_execution_is_seen_and_cancelled(site: Site) -> None:
    """The cancel and the execute answer the same record."""
    path = f"{ENVIRONMENTS}/{await site.create_environment()}"
    request, execution_id = await start(site, path)
    running = (await site.get(f"{path}/executions/{execution_id}")).json()
    assert (running["status"], running["finished_at"], running["usage"]) == ("running", None, None)
    cancelled = await site.post(f"{path}/executions/{execution_id}/cancel")
    assert cancelled.status_code == 200
    assert cancelled.json() == (await request).json()
    assert cancelled.json()["status"] == "cancelled"
    again = await site.post(f"{path}/executions/{execution_id}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "EXECUTION_NOT_RUNNING")


async def test_an_ended_environment_is_a_conflict(site: Site) -> None:
    """409 says why it ended."""
    environment_id = await site.create_environment()
    assert (await site.post(f"{ENVIRONMENTS}/{environment_id}/execute", {"code": "pass"})).status_code == 200
    site.runtime.kill(next(iter(site.runtime.sandboxes)), "it broke")
    answer = await site.post(f"{ENVIRONMENTS}/{environment_id}/execute", {"code": "pass"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "ENVIRONMENT_NOT_RUNNING")
    assert answer.json()["error"]["details"] == {"status": "failed", "status_reason": "it broke"}


async def test_code_that_is_sent_again_is_not_run_again(site: Site) -> None:
    """With an ``Idempotency-Key`` the first answer comes again, and there is one execution."""
    path = f"{ENVIRONMENTS}/{await site.create_environment()}/execute"
    sent = [await site.post(path, {"code": "print(1)"}, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert sent[0].json() == sent[1].json()
    listed = await site.get(path.replace("execute", "executions"))
    assert [row["execution_id"] for row in listed.json()["executions"]] == [sent[0].json()["execution_id"]]


async def test_a_client_that_goes_away_ends_its_execution(site: Site) -> None:
    """Nobody is answered, the execution is recorded as cancelled, and its key may be used again."""
    environment_id = await site.create_environment()
    path = f"{ENVIRONMENTS}/{environment_id}/execute"
    body = [{"type": "http.request", "body": b'{"code": "while True: pass"}', "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        return body.pop() if body else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [
        (b"authorization", f"Bearer {site.accounts['user'].token}".encode()),
        (b"content-type", b"application/json"),
        (b"idempotency-key", b"k"),
    ]
    scope: Scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    await site.app(scope, receive, send)
    assert not sent
    async with asyncio.timeout(30):
        while not (listed := (await site.get(path.replace("execute", "executions"))).json()["executions"]):
            pass
        while listed[0]["status"] == "running":
            listed = (await site.get(path.replace("execute", "executions"))).json()["executions"]
    assert listed[0]["status"] == "cancelled"
    assert (await site.post(path, {"code": "print(2)"}, headers={"Idempotency-Key": "k"})).json()["stdout"] == "2\n"


async def test_output_of_any_kind_can_be_answered(site: Site) -> None:
    """NUL, broken UTF-8 and all the rest are JSON."""
    answer = await _execute(site, "print('nul \\x00 torn \\udcff')")
    assert answer.json()["stdout"] == "nul \x00 torn \ufffd\n"
