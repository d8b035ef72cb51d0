"""What is told live of a step's output is what is recorded of it: no part of a secret goes out first."""

from collections.abc import Iterator
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import Server
from tests.e2e.event_client import Event, EventClient, texts
from tests.e2e.test_run_events import RUNS, begin, code, follow

pytestmark = [pytest.mark.needs_root_namespaces]
SECRET = 'hunter2-"é\\-9876543210'

# Everything in pieces of a few bytes, each of which is seen by itself; bytes, so that characters are cut as well.
DRIP = """
import os, time
def drip(descriptor, text, size=3):
    data = text.encode()
    for start in range(0, len(data), size):
        os.write(descriptor, data[start : start + size])
        time.sleep(0.012)
"""
WHOLE = (
    DRIP
    + """
import json
secret = os.environ["TOKEN"]
drip(1, f"one {secret} two {secret}{secret} {secret[:9]}, {json.dumps([secret])} é end\\n")
drip(2, f"{secret[:-1]} {secret}", 7)
"""
)
KILLED = DRIP + "drip(1, 'so far ' + os.environ['TOKEN'][:-2])\ndrip(2, 'x')\ntime.sleep(600)"


@pytest.fixture(autouse=True)
def secret(server: Server) -> Iterator[None]:
    """A secret of whoever starts the runs."""
    path = "/api/v1/orchestrator/secrets/LIVE_TOKEN"
    with server.connect() as connection:
        connection.expect(200, "PUT", path, {"value": SECRET})
        yield
        connection.expect(200, "DELETE", path)


def dripping(name: str, text: str, **more: Any) -> dict[str, Any]:
    """A step that is given the secret."""
    return code(name, text, env={"TOKEN": "${{ secrets.LIVE_TOKEN }}"}, **more)


def recorded(connection: Connection, run_id: str, name: str) -> tuple[str, str]:
    """What is kept of a step's output."""
    run = connection.expect(200, "GET", f"{RUNS}/{run_id}")
    step = next(step for step in run["steps"] if step["name"] == name)
    return step["stdout"], step["stderr"]


def told(client: EventClient, name: str) -> tuple[str, str, list[str]]:
    """What followers got of a step's output, and in which parts."""
    events = client.all()
    found = texts(events)
    parts = [event.data["text"] for event in events if event.name in ("stdout", "stderr")]
    assert not any(SECRET[:4] in part for part in parts if part.count(SECRET[:9]) == 0), parts
    return found.get((name, None, 1, "stdout"), ""), found.get((name, None, 1, "stderr"), ""), parts


def test_a_secret_in_pieces_does_not_go_out_live(server: Server) -> None:
    """Its beginning waits until it is known to be none; what is told is what is recorded, in many parts."""
    with server.connect() as connection:
        for _attempt in range(5):
            run_id = begin(connection, dripping("a", WHOLE))
            with follow(server, run_id) as client:
                stdout, stderr, parts = told(client, "a")
            if len(parts) > 3:
                # Otherwise it was over before anybody looked, on a busy machine.
                break
        assert stdout == f'one *** two *** {SECRET[:9]}, ["***"] é end\n'
        assert stderr == f"{SECRET[:-1]} ***"
        assert (stdout, stderr) == recorded(connection, run_id, "a")
        assert len(parts) > 3, parts


@pytest.mark.parametrize("how", ["timed_out", "cancelled"])
def test_a_step_that_is_killed_within_a_secret(server: Server, how: str) -> None:
    """What was written of it is masked, live as in the record."""
    with server.connect() as connection:
        for timeout in (3, 20):
            run_id = begin(connection, dripping("a", KILLED, **({"timeout": timeout} if how == "timed_out" else {})))
            events: list[Event] = []
            with follow(server, run_id) as client:
                while (event := client.next()) is not None:
                    events.append(event)
                    if event.name == "stderr" and how == "cancelled":
                        connection.expect(200, "POST", f"{RUNS}/{run_id}/cancel")
            found = texts(events)
            if ("a", None, 1, "stderr") in found:
                # Otherwise its time was over before it had come so far, on a busy machine.
                break
        stdout, stderr = found["a", None, 1, "stdout"], found["a", None, 1, "stderr"]
        assert (stdout, stderr) == ("so far ***", "x")
        assert (stdout, stderr) == recorded(connection, run_id, "a")


def test_followers_that_come_and_go_count_the_masked_text(server: Server) -> None:
    """Positions are in characters of what is shown, before and after the end of the step."""
    with server.connect() as connection:
        run_id = begin(connection, dripping("a", WHOLE))
        events: list[Event] = []
        while not (events and events[-1].name == "end"):
            with follow(server, run_id, events[-1].event_id if events else None) as client:
                for _ in range(4):
                    event = client.next()
                    assert event is not None
                    events.append(event)
                    if event.name == "end":
                        break
        found = texts(events)
        assert (found["a", None, 1, "stdout"], found["a", None, 1, "stderr"]) == recorded(connection, run_id, "a")


def test_a_workflow_without_the_secret_shows_what_it_prints(server: Server) -> None:
    """Only secrets that a workflow names are masked in it."""
    with server.connect() as connection:
        run_id = begin(connection, code("a", f"print({SECRET!r})"))
        with follow(server, run_id) as client:
            assert texts(client.all())["a", None, 1, "stdout"] == SECRET + "\n"
