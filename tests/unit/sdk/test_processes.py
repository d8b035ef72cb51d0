"""The client's calls about processes, against a server that is played."""

import json
from typing import Any

import httpx

from tests.unit.sdk.test_client import TIME, Played

PROCESS: dict[str, Any] = {
    "process_id": "proc-1", "environment_id": "env-1", "status": "running", "command": ["sh"], "name": None,
    "metadata": {}, "cwd": None, "stdin": True, "pty": None, "timeout": None, "started_at": TIME, "ended_at": None,
    "exit_code": None, "signal": None, "error": None, "usage": None,
}  # fmt: skip
OUTPUT = {"stdout": "x", "stderr": "", "position": "0-1.0", "skipped": {"stdout": 0, "stderr": None}}


def test_a_process_is_started_with_what_was_given() -> None:
    """A line or words; what was not given is not sent."""
    played = Played([httpx.Response(201, json=PROCESS) for _time in range(2)])
    with played.client() as client:
        client.start_process("env-1", "echo x", pty=(24, 80), key="k")
        made = client.start_process("env-1", ["sh"], env={"A": "b"}, stdin=True, timeout_s=5)
    assert (made.process_id, made.command) == ("proc-1", ("sh",))
    bodies = [json.loads(request.content) for request in played.asked]
    assert bodies == [
        {"command": "echo x", "pty": {"rows": 24, "cols": 80}},
        {"argv": ["sh"], "env": {"A": "b"}, "stdin": True, "timeout": 5},
    ]
    assert played.asked[0].headers["idempotency-key"] == "k"


def test_a_process_is_read_fed_and_told() -> None:
    """Each by its own path."""
    answers: list[Any] = [{"processes": [PROCESS]}, PROCESS, OUTPUT, {"taken": 3}, PROCESS, PROCESS, PROCESS, PROCESS]
    played = Played([httpx.Response(200, json=answer) for answer in answers])
    with played.client() as client:
        assert [row.process_id for row in client.list_processes("env-1")] == ["proc-1"]
        client.get_process("env-1", "proc-1")
        assert client.read_output("env-1", "proc-1", "0-0.0").skipped == {"stdout": 0, "stderr": None}
        assert client.write_input("env-1", "proc-1", b"abc", eof=True) == 3
        client.resize_process("env-1", "proc-1", 3, 4)
        client.signal_process("env-1", "proc-1", "SIGINT")
        client.wait_for_process("env-1", "proc-1", 1)
        client.kill_process("env-1", "proc-1")
    ends = [request.url.raw_path.decode().rpartition("/processes")[2] for request in played.asked]
    assert ends == [
        "", "/proc-1", "/proc-1/output?after=0-0.0", "/proc-1/stdin?eof=true", "/proc-1/resize", "/proc-1/signal",
        "/proc-1/wait", "/proc-1",
    ]  # fmt: skip
    assert played.asked[3].content == b"abc"
    assert json.loads(played.asked[4].content) == {"rows": 3, "cols": 4}


def test_a_process_is_followed() -> None:
    """From where it was left."""
    text = "retry: 1000\n\nid: 0-1.0\nevent: stdout\ndata: {}\n\n"
    played = Played([httpx.Response(200, text=text, headers={"Content-Type": "text/event-stream"})])
    with played.client() as client:
        events = list(client.follow_process("env-1", "proc-1", "0-0.0"))
    assert [(event.kind, event.event_id) for event in events] == [("stdout", "0-1.0")]
    assert played.asked[0].headers["last-event-id"] == "0-0.0"


def test_a_terminal_is_asked_for() -> None:
    """Of a process, or of a new shell."""
    ticket = {"process_id": "proc-1", "url": "/t?ticket=x", "ticket": "x", "expires_in": 30, "protocol": "p"}
    played = Played([httpx.Response(201, json=ticket) for _time in range(2)])
    with played.client() as client:
        assert client.ask_for_terminal("env-1", process_id="proc-1").url == "/t?ticket=x"
        client.ask_for_terminal("env-1", rows=5, columns=6)
    bodies = [json.loads(request.content) for request in played.asked]
    assert bodies == [{"rows": 24, "cols": 80, "process_id": "proc-1"}, {"rows": 5, "cols": 6}]
