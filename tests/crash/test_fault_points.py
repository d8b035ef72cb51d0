"""``kill -9`` at every boundary of a durable write, by its name: nothing is lost, nothing twice, everything ends."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from bench.sandgate_server import ENVIRONMENTS
from sandgate.testing.faulty_store import FAULT_POINTS
from tests.crash.faults import FaultyServer
from tests.crash.invariants import check_rows
from tests.crash.server_process import GATEWAY, until
from tests.crash.workload import EXPECTED, RUNS, SCHEDULES, WEBHOOKS, WORKFLOWS, Client, definition_of

pytestmark = pytest.mark.needs_root_namespaces
SPARES = 1
# What a server does when it starts.
AT_START = ("runs.claim.own", "executions.mark_lost", "executions.prune", "idempotency.release_unanswered",
            "idempotency.prune", "credentials.prune_revoked", "retention.prune_runs", "retention.prune_workflows",
            "retention.prune_versions", "retention.prune_environments")  # fmt: skip
# Boundaries that no crash test goes through, with the reason.
ELSEWHERE = {
    "users": "tests/crash/test_making_crashes.py makes some; the rest of accounts is one write each",
    "credentials": "tests/crash/test_making_crashes.py makes some; the rest of accounts is one write each",
    "servers": "only where several servers share a database; tests/e2e/test_servers_apart.py lets some die",
    "secrets": "tests/crash/test_kept_crashes.py kills there",
    "audit": "entries are added in one write, and handed in again until they are there",
    "quotas": "each is one write; executions that were not added to their day when a server dies are not counted",
    "snapshots": "each is one write about a file that is whole; tests/e2e/test_snapshots.py kills before it",
    "volumes": "each is one write; tests/unit/environments/test_volumes.py goes on with what was begun before a crash",
    "templates": "each is one write; tests/e2e/test_templates.py kills a gateway that builds",
    "artifacts": "what is removed is removed again; tests/crash/test_run_crashes.py has those that are kept with a run",
}
UNREACHED = {
    "runs.apply.nothing": "no rule changes a run without a word in its history",
    "runs.claim.free": "only where servers share a database; tests/crash/test_points_of_two_servers.py kills there",
    "executions.prune_oldest": "only of users with too much output; tests/crash/test_kept_crashes.py kills there",
    "retention.prune_oldest_runs": "only of users with too many runs; tests/crash/test_kept_crashes.py kills there",
    "runs.release": "only where servers share a database; tests/crash/test_points_of_two_servers.py kills there",
    "signals.insert": "only where servers share a database; tests/crash/test_points_of_two_servers.py kills there",
}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    """One for all: the supervisor starts the gateway again after every kill."""
    settings = {
        "SANDGATE_DRAIN_GRACE_S": "0.3",
        "SANDGATE_SPARE_SANDBOXES": str(SPARES),
        "SANDGATE_MOST_SPARE_SANDBOXES": str(SPARES),
        "SANDGATE_RUN_LEASE_S": "2",
    }
    with FaultyServer(settings) as running:
        yield running
        with closing(Client(running)) as client:
            assert client.live_runs() == []
            # Made for requests whose answers got lost.
            for row in client.ask("GET", f"{ENVIRONMENTS}?limit=200").json()["environments"]:
                assert client.ask("DELETE", f"{ENVIRONMENTS}/{row['environment_id']}").status in (200, 404)
        running.until_few_sandboxes(SPARES)


def _name(point: str) -> str:
    return point.rpartition(".")[0]


def _writes() -> list[str]:
    wanted = dict.fromkeys(name for name in map(_name, FAULT_POINTS) if name not in UNREACHED)
    return [name for name in wanted if name.split(".")[0] not in ELSEWHERE or name in AT_START]


def _all_kinds(client: Client) -> dict[str, str]:
    """Every kind of workflow, started, and what people do to them done."""
    started = {kind: client.start(client.make(kind)) for kind in EXPECTED}
    client.until_step(started["cancel"], "stubborn", "running", "cancelled")
    client.cancel(started["cancel"])
    client.approve(started["approval"])
    return started


def _use_environments(client: Client, server: FaultyServer) -> None:
    """One that is used, changed, paused, used again and deleted, one that expires, one that fails."""
    used, short, broken = client.create(), client.create(1), client.create()
    client.execute(used)
    client.execute(used, "import time; time.sleep(0.1); print('slow')")
    assert client.ask("PATCH", f"{ENVIRONMENTS}/{used}", {"name": "new"}).status == 200
    assert client.ask("POST", f"{ENVIRONMENTS}/{used}/pause").status == 200
    client.execute(used)
    client.execute(broken, f"open('{broken}', 'w').close()")
    server.kill_holders_of(broken)
    for environment_id, status in ((short, "expired"), (broken, "failed")):
        _until_status(client, environment_id, status)
    assert client.ask("DELETE", f"{ENVIRONMENTS}/{used}").status in (200, 404)


def _until_status(client: Client, environment_id: str, status: str) -> None:
    def seen() -> bool:
        return bool(client.ask("GET", f"{ENVIRONMENTS}/{environment_id}").json()["status"] == status)

    until(seen, f"{environment_id} is {status}")


def _take_turns(client: Client) -> None:
    """Three that may only run one after the other."""
    workflow_id = client.make("nap")
    runs = [client.start(workflow_id) for _ in range(3)]

    def over() -> bool:
        client.check_turns()
        return all(client.look(run_id)["status"] == "succeeded" for run_id in runs)

    until(over, "each has had its turn", 60)


def _start_with_keys(client: Client, times: int = 1) -> None:
    """A start that is carried out once, however often it was asked for, and one that is refused."""
    if times > 1:
        _start_with_keys(client, times - 1)
    workflow_id, key = client.make("nap"), os.urandom(8).hex()
    runs = {client.start(workflow_id, key) for _again in range(2)}
    assert len(runs) == 1
    listed = client.ask("GET", f"{RUNS}?workflow_id={workflow_id}").json()["runs"]
    assert {run["run_id"] for run in listed} == runs
    waited = client.ask("POST", f"{WORKFLOWS}/{workflow_id}/start?wait=20", {}, os.urandom(8).hex())
    assert (waited.status, waited.json()["status"] in ("pending", "running", "waiting", "succeeded")) == (200, True)
    refused = client.ask("POST", f"{WORKFLOWS}/{workflow_id}/start", {"inputs": {"unknown": 1}}, os.urandom(8).hex())
    assert refused.status == 400


def _change_workflow(client: Client) -> None:
    workflow_id = client.make("approval")
    again = client.ask("PUT", f"{WORKFLOWS}/{workflow_id}", definition_of("approval"))
    assert again.status in (200, 409)
    run_id = client.start(workflow_id)
    assert client.ask("DELETE", f"{WORKFLOWS}/{workflow_id}?force=true").status in (200, 404)
    # Deleted implies cancelled, though nobody else would ever end it.
    assert client.until_over(run_id)["status"] == "cancelled"


def _use_schedule(client: Client) -> None:
    """One that is made, changed, run by hand and deleted."""
    wanted = {"workflow_id": client.make("hooked"), "interval": 86_400}
    made = client.ask("POST", SCHEDULES, wanted)
    assert made.status == 201
    path = f"{SCHEDULES}/{made.json()['schedule_id']}"
    assert client.ask("PATCH", path, {"name": "new"}).status in (200, 409)
    started = client.ask("POST", f"{path}/trigger")
    assert started.status == 200
    client.said.runs.add(started.json()["run_id"])
    assert client.ask("DELETE", path).status in (200, 404)


def _use_webhook(client: Client) -> None:
    """One that is made, changed, called and deleted; a call that comes again is answered with the same run."""
    made = client.ask("POST", WEBHOOKS, {"workflow_id": client.make("hooked"), "filter": "inputs.event.body.go"})
    assert made.status == 201
    path, hook = f"{WEBHOOKS}/{made.json()['webhook_id']}", made.json()["hook_path"]
    assert client.ask("PATCH", path, {"name": "new"}).status in (200, 409)
    assert client.ask("POST", hook, {"go": False}).json()["status"] == "ignored"
    key = os.urandom(8).hex()
    runs = {client.ask("POST", hook, {"go": True}, key).json()["run_id"] for _again in range(2)}
    assert len(runs) == 1
    client.said.runs |= runs
    assert client.ask("DELETE", path).status in (200, 404)


def _hold(client: Client, server: FaultyServer) -> None:
    """A run that waits until its lease has been renewed."""
    run_id = client.start(client.make("approval"))
    server.until_fired()
    client.approve(run_id)


def _retry(client: Client) -> None:
    """A run that has failed is tried again, and fails again."""
    run_id = client.start(client.make("retry"))
    assert client.until_over(run_id)["status"] == "failed"
    client.said.ends.pop(run_id)
    while client.ask("POST", f"{RUNS}/{run_id}/retry").status != 200 and client.look(run_id)["status"] != "failed":
        client.said.ends.pop(run_id, None)
    client.said.ends.pop(run_id, None)


def _trigger(write: str) -> Callable[[Client, FaultyServer], object]:
    match write.split(".")[0], write:
        case _, name if name in AT_START:
            return lambda _client, server: server.kill_one(GATEWAY)
        case (("environments" | "executions"), _):
            return _use_environments
        case _, "runs.renew":
            return lambda client, server: _hold(client, server)
        case _, "runs.enter":
            return lambda client, _server: _take_turns(client)
        case _, ("runs.reopen" | "runs.apply.run_retried"):
            return lambda client, _server: _retry(client)
        case "idempotency", _:
            # An answer that was not kept is found, and not made, when it is asked for again.
            return lambda client, _server: _start_with_keys(client, times=2)
        case "schedules", _:
            return lambda client, _server: _use_schedule(client)
        case "webhooks", _:
            return lambda client, _server: _use_webhook(client)
        case "workflows", _:
            return lambda client, _server: _change_workflow(client)
        case _:
            return lambda _client, _server: None


@pytest.mark.parametrize("write", _writes())
def test_killed_around(write: str, server: FaultyServer) -> None:
    """Before the write, and, once it is tried again, after it: runs of every kind go on, and end as they would have."""
    with closing(Client(server)) as client:
        at_start = write in AT_START
        started = _all_kinds(client) if at_start else {}
        server.arm(*(point + "=kill" for point in FAULT_POINTS if _name(point) == write))
        started = started or _all_kinds(client)
        _trigger(write)(client, server)
        server.until_fired()
        server.until_ready().close()
        ended = {kind: client.until_over(run_id)["status"] for kind, run_id in started.items()}
        for run_id in client.live_runs():
            client.cancel(run_id)
        until(lambda: client.live_runs() == [], "every run is over")
        assert ended == EXPECTED
        check_rows(server.database, client.said)


def test_every_point_is_gone_through() -> None:
    """A new write is hit by the test above, or is on one of its lists with a reason."""
    areas = {point.split(".")[0] for point in FAULT_POINTS}
    assert set(ELSEWHERE) <= areas
    gone_through = {"environments", "executions", "idempotency", "workflows", "runs", "signals", "retention"}
    assert areas - set(ELSEWHERE) == gone_through | {"schedules", "webhooks"}
    assert set(UNREACHED) <= {_name(point) for point in FAULT_POINTS}
