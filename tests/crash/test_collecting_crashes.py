"""``kill -9`` while what a step left is being collected: the step is not run again, and what it left is kept once."""

from collections.abc import Iterator

import pytest

from tests.crash.faults import FaultyServer
from tests.crash.invariants import check_rows
from tests.crash.server_process import until
from tests.crash.workload import RUNS, WORKFLOWS, Client, step

pytestmark = pytest.mark.needs_root_namespaces
CASES = [
    ("packs.create.before", "own"), ("packs.write.after", "workspace"), ("packs.write.after", "named"),
    ("packs.finish.after", "own"), ("packs.finish.after", "named"), ("runs.apply.step_succeeded.before", "workspace"),
    ("runs.apply.step_succeeded.before", "own"),
]  # fmt: skip
LEAVE = """
import os
print("once")
for n in range(3): open(os.environ["SANDGATE_ARTIFACTS"] + f"/{n}", "w").write(str(n) * 300_000)
outputs["attempt"] = os.environ["SANDGATE_ATTEMPT"]
"""
LOOK = "import os\nprint(os.listdir(os.environ.get('TMPDIR', '/tmp')))"


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    """One for all: the supervisor starts the gateway again after every kill."""
    with FaultyServer({"SANDGATE_DRAIN_GRACE_S": "0.3"}) as running:
        yield running


@pytest.mark.parametrize(("point", "place"), CASES)
def test_killed_at(point: str, place: str, server: FaultyServer) -> None:
    """Its code has ended and is not begun again; the next gateway collects it all."""
    client = Client(server)
    config = {"environment_id": client.create()} if place == "named" else {}
    more = {"workspace": "run"} if place == "workspace" else {}
    answer = client.ask("POST", WORKFLOWS, {"name": "w", "steps": [step("leave", LEAVE, config=config)], **more})
    server.arm(f"{point}=kill")
    run_id = client.start(answer.json()["workflow_id"])
    server.until_fired()
    server.until_ready().close()
    run = client.until_over(run_id)
    (leave,) = run["steps"]
    assert (run["status"], leave["attempts"]) == ("succeeded", 1)
    assert (leave["stdout"], leave["outputs"]) == ("once\n", {"attempt": "1"})
    found = client.ask("GET", f"{RUNS}/{run_id}/artifacts").json()["artifacts"]
    assert sorted(row["path"] for row in found) == ["0", "1", "2"]
    for row in found:
        body = client.ask("GET", f"{RUNS}/{run_id}/artifacts/{row['artifact_id']}").body
        assert body == row["path"].encode() * 300_000
    if place == "named":
        # Nothing of it stays; what is removed is removed after the result is written.
        until(lambda: client.execute(config["environment_id"], LOOK)["stdout"] == "[]\n", "its files are gone")
    check_rows(server.database, client.said)
    client.close()
