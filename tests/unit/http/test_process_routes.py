"""Processes over HTTP; the commands are real ones, in a folder of this machine."""

import asyncio
import json
from typing import Any

import pytest

from sandgate.core.process import Process
from sandgate.environments.active_process import ActiveProcess
from tests.unit.http.site import ENVIRONMENTS, Site


async def _start(site: Site, line: str = "", **fields: Any) -> tuple[str, dict[str, Any]]:
    """A process's address, and what was answered."""
    environment_id = await site.create_environment()
    path = f"{ENVIRONMENTS}/{environment_id}/processes"
    answer = await site.post(path, {**({"command": line} if line else {}), **fields})
    assert answer.status_code == 201, answer.text
    return f"{path}/{answer.json()['process_id']}", answer.json()


async def _written(site: Site, path: str, text: str) -> None:
    """Wait until it has written something."""
    async with asyncio.timeout(30):
        while text not in (await site.get(f"{path}/output")).json()["stdout"]:  # noqa: ASYNC110 - see below
            # Not for a change: one that came since it was looked at would be the last.
            await asyncio.sleep(0.001)


async def _end(site: Site, path: str) -> dict[str, Any]:
    answer = await site.post(f"{path}/wait", {"timeout": 60})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_process_is_started_and_ends(site: Site) -> None:
    """Its record says what was asked for, and how it went."""
    fields: dict[str, Any] = {
        "name": "mine",
        "metadata": {"a": "b"},
        "env": {"X": "1"},
        "timeout": 20,
        "argv": ["sh", "-c", "exit $X"],
    }
    path, begun = await _start(site, **fields)
    expected = {"name": "mine", "metadata": {"a": "b"}, "timeout": 20.0, "stdin": False, "pty": None}
    assert {name: begun[name] for name in expected} == expected
    assert begun["command"] == ["sh", "-c", "exit $X"]
    assert "env" not in begun
    ended = await _end(site, path)
    assert (ended["status"], ended["exit_code"], ended["signal"], ended["error"]) == ("exited", 1, None, None)
    assert ended["ended_at"] >= ended["started_at"]
    listed = (await site.get(path.rpartition("/")[0])).json()["processes"]
    assert listed == [ended] == [(await site.get(path)).json()]


async def test_it_finds_the_variables_of_its_environment(site: Site) -> None:
    """What comes with the command is stronger."""
    environment_id = await site.create_environment(env={"A": "1", "B": "1"})
    path = f"{ENVIRONMENTS}/{environment_id}/processes"
    answer = await site.post(path, {"command": "echo $A $B", "env": {"B": "2"}})
    path = f"{path}/{answer.json()['process_id']}"
    await _end(site, path)
    assert (await site.get(f"{path}/output")).json()["stdout"] == "1 2\n"


async def test_output_is_kept_and_read_on_from_a_position(site: Site) -> None:
    """Each stream by itself; behind the last position there is nothing."""
    path, _begun = await _start(site, "echo out; echo err >&2")
    await _end(site, path)
    kept = (await site.get(f"{path}/output")).json()
    assert kept == {"stdout": "out\n", "stderr": "err\n", "position": "0-4.4", "skipped": {"stdout": 0, "stderr": 0}}
    rest = (await site.get(f"{path}/output", params={"after": "0-2.4"})).json()
    assert (rest["stdout"], rest["stderr"], rest["position"]) == ("t\n", "", "0-4.4")
    # Of another time: nobody knows what was missed.
    other = (await site.get(f"{path}/output", params={"after": "7-2.4"})).json()
    assert (other["stdout"], other["skipped"]) == ("out\n", {"stdout": None, "stderr": None})


@pytest.mark.parametrize("after", ["x", "1", "0-1", "-1-1.1", "0-1.1.1", "0-01.1"])
async def test_what_is_no_position_is_refused(site: Site, after: str) -> None:
    """By its name."""
    path, _begun = await _start(site, "true")
    answer = await site.get(f"{path}/output", params={"after": after})
    assert (answer.status_code, answer.json()["error"]["details"]["fields"][0]["field"]) == (400, "after")


async def test_of_much_output_the_newest_is_kept(site: Site) -> None:
    """With how much is missing."""
    path, _begun = await _start(site, "head -c 2000000 /dev/zero | tr '\\0' x; echo end")
    await _end(site, path)
    kept = (await site.get(f"{path}/output")).json()
    assert kept["stdout"].endswith("xend\n")
    assert len(kept["stdout"]) + kept["skipped"]["stdout"] == 2_000_004
    assert len(kept["stdout"]) <= site.settings.process_output_bytes + 128 * 1024


async def test_a_process_is_followed(site: Site) -> None:
    """From its beginning, or behind what was read."""
    path, _begun = await _start(site, "echo one; echo two")
    await _end(site, path)
    text = (await site.get(f"{path}/events")).text
    events = [dict(line.split(": ", 1) for line in part.split("\n")) for part in text.split("\n\n") if "event" in part]
    assert [event["event"] for event in events] == ["started", "stdout", "finished"]
    assert json.loads(events[1]["data"]) == {"text": "one\ntwo\n"}
    assert json.loads(events[2]["data"])["status"] == "exited"
    again = (await site.get(f"{path}/events", headers={"Last-Event-ID": "0-4.0"})).text
    assert 'id: 0-8.0\nevent: stdout\ndata: {"text":"two\\n"}' in again
    assert "event: started" not in again


async def test_input_is_given_until_its_end(site: Site) -> None:
    """As bytes."""
    path, _begun = await _start(site, "cat", stdin=True)
    answer = await site.post(f"{path}/stdin", content="sn\N{SNOWMAN}w".encode())
    assert (answer.status_code, answer.json()) == (200, {"taken": 6})
    assert (await site.post(f"{path}/stdin?eof=true", content=b"!")).json() == {"taken": 1}
    assert (await _end(site, path))["exit_code"] == 0
    assert (await site.get(f"{path}/output")).json()["stdout"] == "sn\N{SNOWMAN}w!"
    refused = await site.post(f"{path}/stdin", content=b"x")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "PROCESS_NOT_RUNNING")


async def test_a_terminal_is_resized_and_signalled(site: Site) -> None:
    """The size is in the record; what a signal does is the program's affair."""
    line = 'trap "stty size; exit 3" INT; echo ready; while :; do sleep 0.01; done'
    path, begun = await _start(site, line, pty={"rows": 24, "cols": 80})
    assert begun["pty"] == {"rows": 24, "cols": 80}
    await _written(site, path, "ready")
    assert (await site.post(f"{path}/resize", {"rows": 30, "cols": 100})).json()["pty"] == {"rows": 30, "cols": 100}
    assert (await site.post(f"{path}/signal", {"signal": "SIGINT"})).status_code == 200
    assert (await _end(site, path))["exit_code"] == 3
    assert "30 100\r\n" in (await site.get(f"{path}/output")).json()["stdout"]


async def test_a_process_is_killed(site: Site) -> None:
    """Whatever it ignores; twice is as good as once."""
    path, _begun = await _start(site, 'trap "" HUP TERM INT; while :; do sleep 0.01; done')
    killed = await site.send("DELETE", path)
    assert (killed.status_code, killed.json()["status"]) == (200, "killed")
    assert (await site.send("DELETE", path)).json() == killed.json()


async def test_what_cannot_be_done_with_it_is_refused(site: Site) -> None:
    """Each with its own code."""
    path, _begun = await _start(site, "sleep 100")
    for end, body, code in (
        ("stdin", None, "PROCESS_TAKES_NO_INPUT"),
        ("resize", {"rows": 1, "cols": 1}, "PROCESS_HAS_NO_TERMINAL"),
    ):
        answer = await site.post(f"{path}/{end}", body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, code)
    waited = await site.post(f"{path}/wait", {"timeout": 0})
    assert waited.json()["status"] == "running"
    await site.send("DELETE", path)


async def test_a_command_that_cannot_be_started_is_an_answer(site: Site) -> None:
    """With the reason."""
    path, begun = await _start(site, argv=["no-such-program"])
    ended = await _end(site, path)
    assert (ended["status"], ended["exit_code"]) == ("not_started", None)
    assert "no-such-program" in ended["error"]
    assert begun["status"] in ("starting", "not_started")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"argv": ["a"], "command": "b"}, "body"),
        ({"argv": []}, "argv"),
        ({"argv": [""]}, "body"),
        ({"command": "x", "pty": {"rows": 0, "cols": 80}}, "pty.rows"),
        ({"command": "x", "pty": {"rows": 24, "cols": 1001}}, "pty.cols"),
        ({"command": "x", "timeout": 0}, "timeout"),
        ({"command": "x", "shell": True}, "shell"),
        ({"command": "x", "env": {"1": "x"}}, "env.1.[key]"),
    ],
)
async def test_wrong_fields_are_named(site: Site, body: dict[str, Any], field: str) -> None:
    """400, and nothing is started."""
    path = f"{ENVIRONMENTS}/{await site.create_environment()}/processes"
    answer = await site.post(path, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["fields"][0]["field"] == field
    assert (await site.get(path)).json()["processes"] == []


@pytest.mark.parametrize("name", ["SIGSEGV", "9", "KILL", "SIGWINCH", "SIGRTMIN"])
async def test_odd_signals_are_refused(site: Site, name: str) -> None:
    """Only what people send to programs can be sent."""
    path, _begun = await _start(site, "sleep 100")
    assert (await site.post(f"{path}/signal", {"signal": name})).status_code == 400
    await site.send("DELETE", path)


async def test_an_environment_has_so_many(site: Site) -> None:
    """Beyond them 429, until one has ended."""
    path, _begun = await _start(site, "sleep 100")
    processes = path.rpartition("/")[0]
    for _number in range(site.settings.max_processes_per_environment - 1):
        assert (await site.post(processes, {"argv": ["sleep", "100"]})).status_code == 201
    refused = await site.post(processes, {"argv": ["sleep", "100"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "TOO_MANY_PROCESSES")
    assert refused.json()["error"]["details"] == {"limit": 8, "scope": "environment"}
    await site.send("DELETE", path)
    assert (await site.post(processes, {"argv": ["true"]})).status_code == 201


async def test_the_end_of_an_environment_is_that_of_its_processes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is told, and nothing is left of them."""
    path, _begun = await _start(site, "sleep 100", stdin=True)
    waits, wait = asyncio.Event(), ActiveProcess.wait

    async def wait_and_tell(active: ActiveProcess, limit_s: float) -> Process:
        waits.set()
        return await wait(active, limit_s)

    monkeypatch.setattr(ActiveProcess, "wait", wait_and_tell)
    waiting = asyncio.create_task(site.post(f"{path}/wait", {"timeout": 20}))
    async with asyncio.timeout(30):
        await waits.wait()
    environment = path.split("/processes")[0]
    assert (await site.send("DELETE", environment)).status_code == 200
    assert (await waiting).json()["status"] == "lost"
    assert (await site.get(path)).status_code in (404, 409)
    assert site.service.processes.live_count == 0


async def test_others_do_not_see_it(site: Site) -> None:
    """A stranger finds nothing, a viewer of another environment neither, an admin does."""
    path, begun = await _start(site, "sleep 100")
    assert (await site.get(path, "stranger")).status_code == 404
    assert (await site.get(path, "admin")).json()["process_id"] == begun["process_id"]
    elsewhere = f"{ENVIRONMENTS}/{await site.create_environment()}/processes/{begun['process_id']}"
    assert (await site.get(elsewhere)).json()["error"]["code"] == "PROCESS_NOT_FOUND"
    assert (await site.send("DELETE", path, "stranger")).status_code == 404
    await site.send("DELETE", path)


async def test_the_same_key_starts_one(site: Site) -> None:
    """And answers the same."""
    path = f"{ENVIRONMENTS}/{await site.create_environment()}/processes"
    answers = [await site.post(path, {"argv": ["true"]}, headers={"Idempotency-Key": "one"}) for _time in range(2)]
    assert answers[0].json()["process_id"] == answers[1].json()["process_id"]
    assert len((await site.get(path)).json()["processes"]) == 1
