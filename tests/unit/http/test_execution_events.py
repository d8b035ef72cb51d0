"""Executions as server-sent events."""

import json
from typing import Any

import pytest

from tests.unit.http.site import ENVIRONMENTS, Site

Event = tuple[str, str, dict[str, Any]]


def _events(text: str) -> list[Event]:
    """Id, name and data of each event."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if "event" in fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


async def _execute(site: Site, code: str, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    environment_id = await site.create_environment()
    return await site.post(f"{ENVIRONMENTS}/{environment_id}/execute", {"code": code, **fields}, headers=headers or {})


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {"stream": True}),
        ({"Accept": "text/html, text/event-stream;q=0.9"}, {}),
        ({}, {"stream": True, "detach": True}),
    ],
)
async def test_events_come_in_order(site: Site, headers: dict[str, str], fields: dict[str, Any]) -> None:
    """By field or by header; the last one is the record without the output."""
    answer = await _execute(site, "print('a')\nraise ValueError('no')", headers, **fields)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = _events(answer.text)
    assert [name for _, name, _ in events] == ["started", "stdout", "stderr", "finished"]
    assert events[1] == ("2.0", "stdout", {"text": "a\n"})
    started, finished = events[0][2], events[-1][2]
    assert set(started) == {"execution_id", "environment_id", "isolation", "timeout", "started_at"}
    assert (finished["status"], finished["exit_code"], finished["error"]["name"]) == ("failed", 1, "ValueError")
    assert finished["execution_id"] == started["execution_id"]
    assert "stdout" not in finished


@pytest.mark.parametrize("accepted", ["application/json, text/event-stream; q=0", "text/event-stream;Q=0.000", "*/*"])
async def test_who_wants_no_events_gets_none(site: Site, accepted: str) -> None:
    """Naming them with no weight at all is a way to say so."""
    answer = await _execute(site, "print('a')", {"Accept": accepted})
    assert answer.json()["stdout"] == "a\n"


async def test_what_has_ended_is_told_again(site: Site) -> None:
    """All of it, or after the last event that was read."""
    done = (await _execute(site, "print('hello')\nprint('oops', file=sys.stderr)")).json()
    path = f"{ENVIRONMENTS}/{done['environment_id']}/executions/{done['execution_id']}/events"
    whole = _events((await site.get(path)).text)
    assert [(at, name, data.get("text")) for at, name, data in whole] == [
        ("0.0", "started", None), ("6.0", "stdout", "hello\n"), ("6.5", "stderr", "oops\n"), ("6.5", "finished", None),
    ]  # fmt: skip
    rest = _events((await site.get(path, headers={"Last-Event-ID": "4.0"})).text)
    assert [data.get("text") for _, _, data in rest] == ["o\n", "oops\n", None]
    assert _events((await site.get(path, params={"after": "6.5"})).text) == whole[-1:]


@pytest.mark.parametrize("position", ["x", "1", "1.2.3.4", "1.2.", "-1.0", "01.0", "9" * 40 + ".0"])
async def test_positions_are_checked(site: Site, position: str) -> None:
    """400, with the name of what was wrong."""
    done = (await _execute(site, "pass")).json()
    path = f"{ENVIRONMENTS}/{done['environment_id']}/executions/{done['execution_id']}/events"
    answer = await site.get(path, params={"after": position})
    assert (answer.status_code, answer.json()["error"]["details"]["fields"][0]["field"]) == (400, "after")


async def test_detached_without_a_stream_answers_at_once(site: Site) -> None:
    """With the same execution for the same key."""
    environment_id = await site.create_environment()
    asked = {"code": "print('x')\ntime.sleep(0.01)", "detach": True}
    path = f"{ENVIRONMENTS}/{environment_id}/execute"
    first = (await site.post(path, asked, headers={"Idempotency-Key": "k"})).json()
    again = (await site.post(path, asked, headers={"Idempotency-Key": "k"})).json()
    assert (first["status"], first["finished_at"], again) == ("running", None, first)
    events = _events(
        (await site.get(f"{ENVIRONMENTS}/{environment_id}/executions/{first['execution_id']}/events")).text
    )
    assert [name for _, name, _ in events] == ["started", "stdout", "finished"]


async def test_a_stream_has_no_key(site: Site) -> None:
    """Refused before anything runs."""
    answer = await _execute(site, "pass", {"Idempotency-Key": "k"}, stream=True)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["fields"][0]["field"] == "Idempotency-Key"
    assert site.service.running_count == 0


async def test_refusals_are_answers_not_events(site: Site) -> None:
    """With their status, before a stream begins."""
    answer = await site.post(f"{ENVIRONMENTS}/env-000000000000/execute", {"code": "", "stream": True})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ENVIRONMENT_NOT_FOUND")
    large = await _execute(site, "#" * (site.settings.max_code_bytes + 1), stream=True)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "CODE_TOO_LARGE")
