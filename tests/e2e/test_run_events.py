"""Runs are followed on a real server: live, to the end, and from wherever a client left off."""

import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import Server
from tests.e2e.event_client import Event, EventClient, texts

pytestmark = [pytest.mark.needs_root_namespaces]
WORKFLOWS = "/api/v1/orchestrator/workflows"
RUNS = "/api/v1/orchestrator/runs"

# Writes in small and large parts, to both streams, with characters that are cut anywhere.
CHATTY = """
import sys, time
for number in range(60):
    sys.stdout.write(f"{number} grüße\\n" * (40 if number % 7 == 0 else 1)); sys.stdout.flush()
    sys.stderr.write(f"e{number}\\n"); sys.stderr.flush()
    time.sleep(0.01)
"""
EXPECTED = "".join(f"{number} grüße\n" * (40 if number % 7 == 0 else 1) for number in range(60))
EXPECTED_ERRORS = "".join(f"e{number}\n" for number in range(60))


def code(name: str, text: str, **more: Any) -> dict[str, Any]:
    """A step with code."""
    return {"name": name, "type": "code_execution", "config": {"code": text}, **more}


def begin(connection: Connection, *steps: dict[str, Any], **more: Any) -> str:
    """A run of a new workflow."""
    made = connection.expect(201, "POST", WORKFLOWS, {"name": "w", "steps": list(steps), **more})
    return str(connection.expect(200, "POST", f"{WORKFLOWS}/{made['workflow_id']}/start")["run_id"])


def follow(server: Server, run_id: str, after: str | None = None) -> EventClient:
    """An open stream of a run."""
    return EventClient(server.port, server.token, f"{RUNS}/{run_id}/events", after)


def test_output_comes_while_it_is_written(server: Server) -> None:
    """Long before the step ends, and a few milliseconds after it was written."""
    text = "import time\nfor n in range(100):\n    print(time.time(), flush=True); time.sleep(0.02)"
    for _attempt in range(5):
        with server.connect() as connection:
            run_id = begin(connection, code("clock", text))
        offset_s = time.time() - time.monotonic()
        delays_s = []
        with follow(server, run_id) as client:
            events = client.all()
        for event in events:
            if event.name == "stdout" and "." in event.data["text"]:
                last = event.data["text"].strip().split("\n")[-1]
                delays_s.append(event.at + offset_s - float(last))
        if len(delays_s) >= 5 and sorted(delays_s)[len(delays_s) // 3] < 0.5:
            # Otherwise the machine had no time for it just then.
            break
    assert [event.name for event in events[:2]] == ["run_started", "step_started"]
    assert [event.name for event in events][-2:] == ["run_succeeded", "end"]
    # What the first shows is old where the stream was opened late.
    assert len(delays_s) >= 5
    assert sorted(delays_s)[len(delays_s) // 3] < 0.5


def test_a_client_that_comes_and_goes_gets_everything_once(server: Server) -> None:
    """It disconnects at random places and says where it was, while steps run side by side and after they have ended."""
    draw = random.Random(7)
    steps = [code(name, CHATTY, needs=[]) for name in ("a", "b")]
    steps.append(code("bad", "print('once')\n1 / 0", needs=[], retry={"max_attempts": 3, "delay": 0.2}))
    steps.append(code("each", "print(inputs['x'])", foreach=[1, 2, 3], needs=["a", "b"]))
    steps[-1]["config"]["inputs"] = {"x": "${{ item }}"}
    with server.connect() as connection:
        run_id = begin(connection, *steps)
    read: list[Event] = []
    connections = 0
    while not (read and read[-1].name == "end"):
        connections += 1
        with follow(server, run_id, read[-1].event_id if read else None) as client:
            for _ in range(draw.randint(1, 12)):
                event = client.next()
                assert event is not None
                read.append(event)
                if event.name == "end":
                    break
    assert connections > 5
    written = texts(read)
    for name in ("a", "b"):
        assert written[name, None, 1, "stdout"] == EXPECTED
        assert written[name, None, 1, "stderr"] == EXPECTED_ERRORS
    assert [written["each", item, 1, "stdout"] for item in range(3)] == ["1\n", "2\n", "3\n"]
    assert written["bad", None, 3, "stdout"] == "once\n"
    with server.connect() as connection:
        history = connection.expect(200, "GET", f"{RUNS}/{run_id}/history?limit=200")["events"]
    told = [event.data for event in read if event.name not in ("stdout", "stderr", "end")]
    assert told == history
    with follow(server, run_id) as client:
        again = client.all()
    recorded = texts(again)
    assert {key: recorded[key] for key in recorded if key[0] != "bad"} == {
        key: written[key] for key in written if key[0] != "bad"
    }


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server of the test's own, with few streams and quick signs of life."""
    settings = {
        "SANDGATE_MAX_STREAMS_PER_USER": "2",
        "SANDGATE_STREAM_HEARTBEAT_S": "0.1",
        "SANDGATE_DRAIN_GRACE_S": "0.3",
    }
    with Server(settings) as running:
        yield running


def test_streams_are_bounded_and_alive_and_end_with_the_server(own_server: Server) -> None:
    """Beyond the limit is 429; a quiet stream says that it is alive; SIGTERM ends it as it should be ended."""
    with own_server.connect() as connection:
        run_id = begin(connection, {"name": "ask", "type": "approval"})
    with follow(own_server, run_id) as first:
        with follow(own_server, run_id) as second, follow(own_server, run_id) as third:
            assert (first.status, second.status, third.status) == (200, 200, 429)
            assert "text/event-stream" in first.head
        # A place is free once the server has noticed that the client is gone.
        deadline = time.monotonic() + 60
        while True:
            with follow(own_server, run_id) as fourth:
                if fourth.status == 200 or time.monotonic() > deadline:
                    assert fourth.status == 200
                    break
        for name in ("run_started", "step_waiting"):
            event = first.next()
            assert event is not None
            assert event.name == name
        first.until_alive()
        _ends_with_its_key(own_server, run_id)
        own_server.signal(signal.SIGTERM)
        assert first.next() is None


def _ends_with_its_key(server: Server, run_id: str) -> None:
    """A stream whose API key is deleted ends by itself, without the event that would end it."""
    with server.connect() as connection:
        key = connection.expect(201, "POST", "/api/v1/auth/api-keys", {"label": "stream"})
        deadline = time.monotonic() + 60
        while True:
            with EventClient(server.port, key["api_key"], f"{RUNS}/{run_id}/events") as client:
                if client.status != 200 and time.monotonic() < deadline:
                    # The place of the one before is free once its end was noticed.
                    continue
                assert client.status == 200
                connection.expect(200, "DELETE", f"/api/v1/auth/api-keys/{key['api_key_id']}")
                assert "end" not in [event.name for event in client.all()]
                return


def test_a_client_that_reads_nothing_holds_nothing(server: Server) -> None:
    """Neither the run nor other followers wait for it, and the gateway does not keep what it does not read."""
    flood = "import sys\nfor n in range(64): sys.stdout.write('x' * 16000 + chr(10)); sys.stdout.flush()"
    with server.connect() as connection:
        run_id = begin(connection, *[code(f"s{number}", flood) for number in range(8)])
        with follow(server, run_id), follow(server, run_id) as reader:
            events = reader.all()
        assert connection.expect(200, "GET", f"{RUNS}/{run_id}")["status"] == "succeeded"
        # All at once would be more than the answer about a run holds.
        steps = [connection.expect(200, "GET", f"{RUNS}/{run_id}/steps/s{number}") for number in range(8)]
    written = texts(events)
    assert [written[f"s{number}", None, 1, "stdout"] for number in range(8)] == [step["stdout"] for step in steps]
