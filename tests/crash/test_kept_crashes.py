"""``kill -9`` around what goes where a user keeps too much, and around a secret: the newest stays, the rest goes."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from bench.sandgate_server import ENVIRONMENTS
from sandgate.core.limits import MIB
from tests.crash.faults import FaultyServer
from tests.crash.invariants import check_rows
from tests.crash.server_process import GATEWAY, until
from tests.crash.workload import RUNS, WORKFLOWS, Client, step

pytestmark = pytest.mark.needs_root_namespaces
SECRETS = "/api/v1/orchestrator/secrets"
# Two of them are more than a user may keep, one is not.
MUCH = f"print('x' * {MIB * 3 // 4})"


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    """One for all: the supervisor starts the gateway again after every kill."""
    settings = {
        "SANDGATE_DRAIN_GRACE_S": "0.3",
        "SANDGATE_SPARE_SANDBOXES": "0",
        "SANDGATE_MAX_KEPT_OUTPUT_BYTES_PER_USER": str(MIB),
        "SANDGATE_MAX_KEPT_RUN_BYTES_PER_USER": str(MIB),
    }
    with FaultyServer(settings) as running:
        yield running


def _arm(server: FaultyServer, write: str) -> None:
    # Before there is too much: a look that comes by itself may be the one that is hit.
    server.arm(f"{write}.before=kill", f"{write}.after=kill")


def _look_again(server: FaultyServer) -> None:
    """A gateway that starts looks at what is kept; so does the one after it, which is killed at the second point."""
    server.kill_one(GATEWAY)
    server.until_fired()
    server.until_ready().close()


def test_killed_around_the_oldest_output(server: FaultyServer) -> None:
    """It goes; the newest stays as it was answered."""
    with closing(Client(server)) as client:
        environment_id = client.create()
        path = f"{ENVIRONMENTS}/{environment_id}/executions"
        _arm(server, "executions.prune_oldest")
        newest = [client.execute(environment_id, MUCH)["execution_id"] for _each in range(2)][-1]
        _look_again(server)

        def kept() -> list[str]:
            return [row["execution_id"] for row in client.ask("GET", path).json()["executions"]]

        until(lambda: kept() == [newest], "only the newest output is kept")
        assert len(client.ask("GET", f"{path}/{newest}").json()["stdout"]) == MIB * 3 // 4 + 1
        assert client.ask("DELETE", f"{ENVIRONMENTS}/{environment_id}").status in (200, 404)


def test_killed_around_the_oldest_runs(server: FaultyServer) -> None:
    """They go, whole; the newest stays, and so does one that lives."""
    with closing(Client(server)) as client:
        much = client.ask("POST", WORKFLOWS, {"name": "much", "steps": [step("print", MUCH)]}).json()["workflow_id"]
        live = client.start(client.make("approval"))
        _arm(server, "retention.prune_oldest_runs")
        ended = []
        for key in ("first", "second"):
            # With a key: one that was asked for again after a kill would be a third run, which ends who knows when.
            ended.append(client.ask("POST", f"{WORKFLOWS}/{much}/start", key=key).json()["run_id"])
            assert client.until_over(ended[-1])["status"] == "succeeded"
        _look_again(server)
        until(lambda: _runs_of(client, much) == ended[-1:], "only the newest run is kept")
        assert client.ask("GET", f"{RUNS}/{ended[0]}").status == 404
        client.approve(live)
        assert client.until_over(live)["status"] == "succeeded"
        client.said.ends.pop(ended[0])
        check_rows(server.database, client.said)


def _runs_of(client: Client, workflow_id: str) -> list[str]:
    rows = client.ask("GET", f"{RUNS}?workflow_id={workflow_id}").json()["runs"]
    return [row["run_id"] for row in rows]


@pytest.mark.parametrize("write", ["secrets.put", "secrets.delete"])
def test_killed_around_a_secret(server: FaultyServer, write: str) -> None:
    """Asked again, it is there with the new value, or gone, and a step is given what it is."""
    path = f"{SECRETS}/WORD"
    with closing(Client(server)) as client:
        assert client.ask("PUT", path, {"value": "first-value"}).status == 200
        server.arm(f"{write}.before=kill", f"{write}.after=kill")
        for _again in range(2):
            if write == "secrets.put":
                assert client.ask("PUT", path, {"value": "second-value"}).status == 200
            else:
                assert client.ask("DELETE", path).status in (200, 404)
        server.until_fired()
        names = [row["name"] for row in client.ask("GET", SECRETS).json()["secrets"]]
        if write == "secrets.delete":
            assert names == []
            return
        assert names == ["WORD"]
        code = "import os\noutputs['length'] = len(os.environ['W'])"
        read = {"name": "read", "env": {"W": "${{ secrets.WORD }}"}, "steps": [step("read", code)]}
        workflow_id = client.ask("POST", WORKFLOWS, read).json()["workflow_id"]
        ran = client.until_over(client.start(workflow_id))
        assert (ran["status"], ran["steps"][0]["outputs"]) == ("succeeded", {"length": len("second-value")})
