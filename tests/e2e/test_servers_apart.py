"""Servers on one PostgreSQL leave alone what is another one's while it lives, and clear up after one that died."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from bench.client import Answer
from bench.sandgate_server import ENVIRONMENTS, execute
from tests.crash.faults import FaultyServer
from tests.crash.server_process import GATEWAY, LIMIT_S, BackgroundExecution, CrashServer, until
from tests.crash.workload import KeyedConnection
from tests.postgres import PostgresServer, postgres_server

__all__ = ["postgres_server"]
pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_postgresql]
LEASE_S = 4
BODY = {"name": "e", "template": "python"}
# By its name its sandbox is found, whatever else is at work on this machine.
BEGUN = f"begun-{os.urandom(4).hex()}"
LONG = f"import time\nopen('{BEGUN}', 'w').close()\nwhile True: time.sleep(0.01)"


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of the test's own."""
    yield postgres_server.create_database("apart")
    postgres_server.drop_database("apart")


def _settings(database: str, **more: Any) -> dict[str, str]:
    return {"SANDGATE_DATABASE_URL": database, "SANDGATE_DRAIN_GRACE_S": "0.3", "SANDGATE_SPARE_SANDBOXES": "0"} | more


def _ask(server: CrashServer, method: str, path: str, body: Any = None, key: str = "") -> Answer:
    with server.connect() as connection:
        used = KeyedConnection(connection, key) if key else connection
        return used.request(method, path, body)


def _make(server: CrashServer) -> str:
    made = _ask(server, "POST", ENVIRONMENTS, BODY)
    assert made.status == 201
    environment_id: str = made.json()["environment_id"]
    with server.connect() as connection:
        assert execute(connection, environment_id, {"code": "print(1)"})["stdout"] == "1\n"
    return environment_id


def _executions(server: CrashServer, environment_id: str) -> int:
    return len(_ask(server, "GET", f"{ENVIRONMENTS}/{environment_id}/executions").json()["executions"])


def _status(server: CrashServer, environment_id: str) -> str:
    return str(_ask(server, "GET", f"{ENVIRONMENTS}/{environment_id}").json()["status"])


def _code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["error"]["code"]


def test_what_lives_on_another_server_is_left_alone(database: str) -> None:
    """A server that starts takes nothing of a live one: no environment, no execution, no key of a request under way."""
    with CrashServer(_settings(database)) as one, CrashServer(_settings(database)) as two:
        ours, theirs = _make(one), _make(two)
        path = f"{ENVIRONMENTS}/{ours}/execute"
        running = BackgroundExecution(one, ours, LONG)
        until(lambda: _ask(one, "GET", f"{ENVIRONMENTS}/{ours}/executions").json()["executions"], "it is recorded")
        taken = BackgroundExecution(one, ours, LONG)
        until(lambda: _executions(one, ours) == 3, "both are recorded")
        taken_body = {"code": LONG, "timeout": 60}
        keyed = [_Keyed(one, path, taken_body, "key-1")]
        two.kill(GATEWAY)
        two.until_ready().close()
        assert [_status(two, name) for name in (ours, theirs)] == ["running", "running"]
        with two.connect() as connection:
            assert execute(connection, theirs, {"code": "print(2)"})["stdout"] == "2\n"
        for method, elsewhere, body in (("POST", path, {"code": "1"}), ("DELETE", f"{ENVIRONMENTS}/{ours}", None)):
            assert _code(_ask(two, method, elsewhere, body)) == (409, "ENVIRONMENT_ELSEWHERE")
        # The same client, whom a balancer has sent to the other server.
        assert _code(_ask(two, "POST", path, taken_body, "key-1")) == (409, "IDEMPOTENCY_IN_PROGRESS")
        assert _ask(one, "DELETE", f"{ENVIRONMENTS}/{ours}").status == 200
        for execution in (running, taken):
            answer = execution.join()
            assert answer is not None
            assert answer["status"] == "cancelled"
        assert [request.join().status for request in keyed] == [200]


class _Keyed(BackgroundExecution):
    """An execution with a key, that has taken it when this is made."""

    def __init__(self, server: CrashServer, path: str, body: dict[str, Any], key: str) -> None:
        self._key, self._full = key, body
        self.full: Answer | None = None
        environment_id = path.split("/")[-2]
        before = _executions(server, environment_id)
        super().__init__(server, environment_id, body["code"])
        # Whoever asks first has the key, and waits for the end.
        until(lambda: _executions(server, environment_id) > before, "it is recorded")
        until(lambda: _ask(server, "POST", path, body, key).status == 409, "the key is taken")

    def _run(self) -> None:
        with self._connection as connection:
            self.full = KeyedConnection(connection, self._key).request("POST", self._path, self._full)

    def join(self) -> Any:
        """The whole answer."""
        super().join()
        return self.full


def test_a_dead_servers_environments_end(database: str) -> None:
    """Within some leases, also those that its launcher still holds; what it was asked with a key may be asked anew."""
    settings = _settings(database, SANDGATE_SERVER_LEASE_S=str(LEASE_S))
    with CrashServer(settings) as one, CrashServer(settings) as two:
        environment_id, kept = _make(one), _make(two)
        running = BackgroundExecution(one, environment_id, LONG)
        until(lambda: one.holders_of(BEGUN), "it runs")
        one.kill_all()
        assert running.join() is None
        until(lambda: _status(two, environment_id) == "failed", "its environment has failed", 10 * LEASE_S)
        row = _ask(two, "GET", f"{ENVIRONMENTS}/{environment_id}").json()
        assert row["status_reason"] == "the server that it was on is gone"
        assert _status(two, kept) == "running"
        assert _ask(two, "DELETE", f"{ENVIRONMENTS}/{environment_id}").status == 200
        one.start()
        until(lambda: not one.holders_of(BEGUN), "nothing of it runs any more")
        assert _status(one, kept) == "running"


def test_a_server_that_was_taken_for_dead_ends_what_it_has(database: str) -> None:
    """Stopped for longer than its lease and awake again: its environments have failed, and so it kills them."""
    settings = _settings(database, SANDGATE_SERVER_LEASE_S=str(LEASE_S))
    with CrashServer(settings) as one, CrashServer(settings) as two:
        environment_id = _make(one)
        running = BackgroundExecution(one, environment_id, LONG)
        until(lambda: one.holders_of(BEGUN), "it runs")
        gateway = one.process(GATEWAY)
        os.kill(gateway, signal.SIGSTOP)
        try:
            until(lambda: _status(two, environment_id) == "failed", "its environment has failed", 10 * LEASE_S)
        finally:
            os.kill(gateway, signal.SIGCONT)
        until(lambda: not one.holders_of(BEGUN), "nothing of it runs any more")
        answer = running.join()
        assert answer is not None
        assert answer["status"] == "lost"
        # It is told of the ends of executions before it has written the environment's own.
        until(lambda: _status(one, environment_id) == "failed", "it knows, too")
        assert _status(one, _make(one)) == "running"


def test_a_server_that_takes_long_to_start_is_no_dead_one(database: str) -> None:
    """From its first word on it says that it lives, also while it looks through what an earlier process left."""
    settings = _settings(database, SANDGATE_SERVER_LEASE_S=str(LEASE_S))
    with FaultyServer(settings) as slow, CrashServer(settings) as other:
        ours = _make(slow)
        # After the list of its environments was read, and before they are taken over.
        slow.arm(f"idempotency.release_unanswered.before=stall:{1.6 * LEASE_S}")
        slow.kill(GATEWAY)
        slow.until_ready().close()
        assert slow.has_fired
        assert [_status(server, ours) for server in (slow, other)] == ["running", "running"]


def test_what_a_user_may_have_is_counted_on_all_servers(database: str) -> None:
    """However many are asked for at once; what is refused leaves no sandbox, what goes makes room anywhere."""
    settings = _settings(database, SANDGATE_MAX_ENVIRONMENTS_PER_USER="4")
    with CrashServer(settings) as one, CrashServer(settings) as two:
        servers = (one, two)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(_ask_for_environment, servers * 6))
        made = [answer.json() for answer in answers if answer.status == 201]
        assert len(made) == 4
        refused = [answer for answer in answers if answer.status != 201]
        assert {_code(answer) for answer in refused} == {(429, "TOO_MANY_ENVIRONMENTS")}
        assert {answer.json()["error"]["details"]["scope"] for answer in refused} == {"user"}
        until(lambda: one.sandboxes() + two.sandboxes() == 4, "what was refused has no sandbox")
        for server in servers:
            until(partial(_uses_environments, server, 4), "those of the other one are known")
            listed = _ask(server, "GET", ENVIRONMENTS).json()["environments"]
            assert {row["environment_id"] for row in listed} == {row["environment_id"] for row in made}
        path = f"{ENVIRONMENTS}/{made[0]['environment_id']}"
        gone = next(server for server in servers if _ask(server, "DELETE", path).status == 200)
        other = two if gone is one else one
        until(lambda: _ask(other, "POST", ENVIRONMENTS, BODY).status == 201, "there is room again")


def _ask_for_environment(server: CrashServer) -> Answer:
    """Ask again as long as nothing was done because the other server was stopped in the middle of its turn."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        answer = _ask(server, "POST", ENVIRONMENTS, BODY)
        if answer.status != 503 or time.monotonic() > deadline:
            return answer
        assert _code(answer) == (503, "STORE_UNAVAILABLE")


def _uses_environments(server: CrashServer, count: int) -> bool:
    """Whether the server says that its user has so many."""
    told = _ask(server, "GET", "/api/v1/me").json()["quota"]
    return bool(told["environments"]["used"] == count)
