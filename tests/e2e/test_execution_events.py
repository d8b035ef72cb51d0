"""Executions followed while they run, against a real server over a real network."""

import json
from collections.abc import Iterator

import pytest

from bench.sandgate_server import Server
from sandgate.sdk.client import Client
from sandgate.sdk.errors import ApiError
from tests.e2e.waiting import until

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39]


@pytest.fixture
def client(either: Server) -> Iterator[Client]:
    """A client of a server of each class."""
    with Client(f"http://127.0.0.1:{either.port}", either.token) as made:
        yield made


@pytest.fixture
def environment_id(client: Client) -> Iterator[str]:
    """An environment for one test."""
    made = client.create_environment("events", "python-3.9")
    yield made.environment_id
    client.delete_environment(made.environment_id)


def test_output_comes_when_it_is_written(client: Client, environment_id: str) -> None:
    """While the code goes on, which it does only when its output was seen; the bench tells how quickly."""
    code = (
        "import os, time\nfor n in range(5):\n    print(n)\n"
        "    while not os.path.exists(f'seen-{n}'): time.sleep(0.002)"
    )
    seen: list[str] = []
    for event in client.stream_execution(environment_id, code):
        if event.kind == "stdout":
            seen += json.loads(event.data)["text"].split()
            client.write_file(environment_id, f"seen-{seen[-1]}", b"")
    assert seen == ["0", "1", "2", "3", "4"]


def test_everything_arrives_whole_and_in_order(client: Client, environment_id: str) -> None:
    """Far more than is kept; characters that lie across pieces, and bytes that are none."""
    code = (
        "import sys\nfor i in range(60_000):\n    print(i, '\\u2603\\U0001F600' * 20)\n"
        "sys.stdout.buffer.write(b'\\xff\\n')\nprint('end', file=sys.stderr)"
    )
    events = list(client.stream_execution(environment_id, code))
    texts = {"stdout": "", "stderr": ""}
    for event in events:
        if event.kind in texts:
            texts[event.kind] += json.loads(event.data)["text"]
    signs = "\N{SNOWMAN}\N{GRINNING FACE}" * 20
    assert texts["stdout"] == "".join(f"{i} {signs}\n" for i in range(60_000)) + "\ufffd\n"
    assert texts["stderr"] == "end\n"
    finished = json.loads(events[-1].data)
    assert (events[-1].kind, finished["status"], finished["stdout_truncated"]) == ("finished", "completed", True)


def test_a_client_that_goes_away_cancels(client: Client, environment_id: str) -> None:
    """Unless it has asked for the opposite; then others can follow to the end."""
    code = "import os, time\nprint('begun')\nwhile not os.path.exists('{}'): time.sleep(0.01)\nprint('over')"
    ids = []
    for detach, awaited in ((False, "never"), (True, "go")):
        events = client.stream_execution(environment_id, code.format(awaited), timeout_s=60, detach=detach)
        ids.append(json.loads(next(events).data)["execution_id"])
        first = next(events)
        assert first.kind == "stdout"
        events.close()
    client.write_file(environment_id, "go", b"")
    rest = list(client.follow_execution(environment_id, ids[1], first.event_id))
    assert {event.kind for event in rest[:-1]} == {"stdout"}
    written = json.loads(first.data)["text"] + "".join(json.loads(event.data)["text"] for event in rest[:-1])
    assert (written, json.loads(rest[-1].data)["status"]) == ("begun\nover\n", "completed")
    ended = list(client.follow_execution(environment_id, ids[0]))[-1]
    assert json.loads(ended.data)["status"] == "cancelled"


def test_a_slow_client_makes_the_code_wait(client: Client, environment_id: str) -> None:
    """Nothing is gathered for it: the code has written little more than its client has read."""
    code = "import os\nfor i in range(4096):\n    os.write(1, b'x' * 65536)\n    open('written', 'w').write(str(i))"
    events = client.stream_execution(environment_id, code)
    assert next(events).kind == "started"
    next(events)

    def written() -> int:
        look = "import os\nprint(os.path.exists('written') and open('written').read() or 0)"
        return int(client.execute(environment_id, look).stdout)

    seen = [0]

    def stands_still() -> bool:
        seen.append(written())
        return seen[-1] == seen[-2] > 0

    until(stands_still, "the code waits")
    assert seen[-1] * 65_536 < 32 * 1024**2
    events.close()


def test_environments_and_code_through_the_client(client: Client, environment_id: str) -> None:
    """Each call does what it says, and refusals are errors with their code."""
    ran = client.execute(
        environment_id, "import sys\nprint(sys.argv[1], open('f', 'rb').read())", args=["a"], files={"f": b"\xff"}
    )
    assert (ran.status, ran.stdout) == ("completed", "a b'\\xff'\n")
    begun = client.begin_execution(environment_id, "print('x')", timeout_s=60)
    assert begun.status == "running"
    assert [event.kind for event in client.follow_execution(environment_id, begun.execution_id)][-1] == "finished"
    assert client.get_environment(environment_id).status == "running"
    with pytest.raises(ApiError) as refused:
        next(client.stream_execution("env-000000000000", "pass"))
    assert refused.value.code == "ENVIRONMENT_NOT_FOUND"


def test_files_go_up_and_come_down(client: Client, environment_id: str) -> None:
    """In pieces, with odd names, by all the calls of the client; what code wrote and what it reads."""
    content = bytes(range(256)) * 20_000
    pieces = (content[start : start + 100_000] for start in range(0, len(content), 100_000))
    assert client.write_file(environment_id, "in/a.bin", pieces).size_bytes == len(content)
    ran = client.execute(environment_id, "d = open('in/a.bin', 'rb').read()\nopen('out', 'wb').write(d[::-1])")
    assert ran.status == "completed"
    assert client.read_file(environment_id, "out") == content[::-1]
    client.write_file(environment_id, b"in/\xff?#%", b"odd")
    assert client.read_file(environment_id, b"in/\xff?#%") == b"odd"
    assert [entry.encoded_path for entry in client.list_files(environment_id, "in")] == ["in/a.bin", "in/%FF%3F%23%25"]
    client.make_folder(environment_id, "made")
    client.copy_file(environment_id, "in", "made/copy")
    client.move_file(environment_id, "out", "made/moved")
    assert client.look_at_file(environment_id, "made/moved").size_bytes == len(content)
    client.delete_file(environment_id, "made", recursive=True)
    with pytest.raises(ApiError) as refused:
        client.read_file(environment_id, "made/../made/moved")
    assert (refused.value.status, refused.value.code) == (404, "FILE_NOT_FOUND")
