"""``kill -9`` around the write that makes something: who asks again with the key has one of it, and its answer."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from bench.sandgate_server import ENVIRONMENTS
from tests.crash.faults import FaultyServer
from tests.crash.workload import RUNS, SCHEDULES, WEBHOOKS, WORKFLOWS, Client, definition_of

pytestmark = pytest.mark.needs_root_namespaces
USERS, KEYS = "/api/v1/users", "/api/v1/auth/api-keys"
SECRETS = ("api_key", "hook_path", "signing_secret")

Ask = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    """One for all: the supervisor starts the gateway again after every kill."""
    settings = {"SANDGATE_DRAIN_GRACE_S": "0.3", "SANDGATE_SPARE_SANDBOXES": "0"}
    with FaultyServer(settings) as running:
        yield running
        with closing(Client(running)) as client:
            for run_id in client.live_runs():
                client.cancel(run_id)


def _ended_run(client: Client) -> Ask:
    run_id = client.start(client.make("approval"))
    client.cancel(run_id)
    return f"{RUNS}/{run_id}/retry", {}


def _schedule(client: Client) -> Ask:
    body = {"workflow_id": client.make("hooked"), "interval": 86_400}
    made = client.ask("POST", SCHEDULES, body).json()["schedule_id"]
    return f"{SCHEDULES}/{made}/trigger", {}


MAKING: dict[str, Callable[[Client], Ask]] = {
    "environments.insert": lambda _client: (ENVIRONMENTS, {"name": "e", "template": "python"}),
    "workflows.insert": lambda _client: (WORKFLOWS, definition_of("nap")),
    "users.insert": lambda _client: (USERS, {"username": f"u-{os.urandom(4).hex()}", "password": "long enough 123"}),
    "credentials.insert_api_key": lambda _client: (KEYS, {"label": "x"}),
    "schedules.insert": lambda client: (SCHEDULES, {"workflow_id": client.make("hooked"), "interval": 86_400}),
    "webhooks.insert": lambda client: (WEBHOOKS, {"workflow_id": client.make("hooked")}),
    "runs.insert": lambda client: (f"{WORKFLOWS}/{client.make('approval')}/start", {}),
    "runs.reopen": _ended_run,
    "schedules.fire": _schedule,
}
LISTS = {
    "environments": (ENVIRONMENTS, "environments", "environment_id"),
    "workflows": (WORKFLOWS, "workflows", "workflow_id"),
    "users": (USERS, "users", "user_id"),
    "credentials": (KEYS, "api_keys", "api_key_id"),
    "schedules": (SCHEDULES, "schedules", "schedule_id"),
    "webhooks": (WEBHOOKS, "webhooks", "webhook_id"),
    "runs": (RUNS, "runs", "run_id"),
}


def _ids(client: Client, kind: str) -> set[str]:
    path, rows, name = LISTS[kind]
    return {row[name] for row in client.ask("GET", f"{path}?limit=200").json()[rows]}


# Before the write nothing has been done, whatever was to be made.
POINTS = ["runs.insert.before", "environments.insert.before", *(f"{name}.after" for name in MAKING)]


@pytest.mark.parametrize("point", POINTS)
def test_killed_while_it_is_made(point: str, server: FaultyServer) -> None:
    """One, whose answer is the same whenever it is asked for; before the write as well as after it."""
    point, side = point.rsplit(".", maxsplit=1)
    kind = "runs" if point == "schedules.fire" else point.split(".", maxsplit=1)[0]
    with closing(Client(server)) as client:
        path, body = MAKING[point](client)
        before, key = _ids(client, kind), os.urandom(8).hex()
        server.arm(f"{point}.{side}=kill")
        made = client.ask("POST", path, body, key)
        server.until_fired()
        assert made.status in (200, 201), made
        again = client.ask("POST", path, body, key)
        shown = {name: None for name in SECRETS if name in made.json()}
        assert (again.status, again.json()) == (made.status, made.json() | shown)
        new = _ids(client, kind) - before
        assert new == (set() if point == "runs.reopen" else {made.json()[LISTS[kind][2]]})


def test_killed_while_somebody_waits_for_the_end(server: FaultyServer) -> None:
    """The run goes on under the next process, and the request that is sent again waits for its end with it."""
    with closing(Client(server)) as client:
        path, key = f"{WORKFLOWS}/{client.make('sequence')}/start?wait=30", os.urandom(8).hex()
        before = _ids(client, "runs")
        server.arm("runs.apply.step_succeeded.before=kill")
        ended = client.ask("POST", path, {}, key)
        server.until_fired()
        assert ended.status == 200
        assert _ids(client, "runs") - before == {ended.json()["run_id"]}
        assert client.until_over(ended.json()["run_id"])["status"] == "succeeded"
