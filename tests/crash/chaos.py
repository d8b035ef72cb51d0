"""Kills parts of servers at random instants under load, then looks whether everything that has to hold does: R1.

The same seed makes the same choices, at other instants.
"""

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from tests.crash.invariants import Acknowledged, check_rows
from tests.crash.server_process import GATEWAY, LAUNCHER, CrashServer, until
from tests.crash.workload import DEFINITIONS, EXPECTED, EXPECTED_SLOW, SLOW_DEFINITIONS, Client
from tests.postgres import PostgresServer

LEASE_S = 2.0
# Between two kills: long enough that something is begun, short enough that little ends.
_PAUSE_S = (0.05, 1.5)
_STOPPED_S = (2.5, 5.0)
_SETTINGS = {
    "SANDGATE_DRAIN_GRACE_S": "0.3",
    "SANDGATE_RUN_LEASE_S": f"{LEASE_S:g}",
    "SANDGATE_SPARE_SANDBOXES": "1",
    "SANDGATE_MOST_SPARE_SANDBOXES": "1",
}


class ChaosServer(CrashServer):
    """Every test's ``sandgate serve``, which may be killed more often in a row than an operator would bear."""

    def _command(self) -> list[str]:
        return [sys.executable, "-c", _SERVE, "serve"]


_SERVE = "import sys; from sandgate.cli import main, supervisor; supervisor._MOST_QUICK_DEATHS = 10**9; main.main()"


@dataclass
class Load:
    """A client that starts one run after another until it is told to stop, and waits for the end of each."""

    servers: Sequence[CrashServer]
    seed: int
    stop: threading.Event
    client: Client = field(init=False)
    ended: Counter[str] = field(default_factory=Counter)
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self.client = Client(*self.servers)
        self._choose = random.Random(self.seed)
        self._thread = threading.Thread(target=self._run, name=f"load {self.seed}")
        self._thread.start()

    def join(self) -> None:
        """Wait for its last runs. Raises what went wrong in it."""
        self._thread.join(300)
        assert not self._thread.is_alive(), "a client still waits for its runs"
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            with closing(self.client):
                made = {kind: self.client.make(kind) for kind in (*DEFINITIONS, *SLOW_DEFINITIONS)}
                while not self.stop.is_set():
                    kinds = self._choose.sample(sorted(made), 3)
                    self._play({kind: self.client.start(made[kind]) for kind in kinds})
        except BaseException as failure:
            self.failure = failure

    def _play(self, started: Mapping[str, str]) -> None:
        self.client.check_turns()
        if "cancel" in started:
            self.client.cancel(started["cancel"])
        if "approval" in started:
            self.client.approve(started["approval"])
        for kind, run_id in started.items():
            run = self.client.until_over(run_id)
            status = run["status"]
            assert status == (EXPECTED | EXPECTED_SLOW)[kind], f"{run_id}, a {kind}, is {status}: {run['error']}"
            self.ended[kind] += 1


class Chaos:
    """One or two servers on a database, clients at work, and somebody who kills."""

    def __init__(self, servers: Sequence[ChaosServer], postgres: PostgresServer | None, seed: int) -> None:
        self.servers = servers
        self.kills: Counter[str] = Counter()
        self._postgres = postgres
        self._choose = random.Random(seed)
        self._seed = seed
        self._hits: Mapping[str, Callable[[], None]] = {
            "gateway": lambda: self._one().kill_one(GATEWAY),
            "launcher": lambda: self._one().kill_one(LAUNCHER),
            "server": self._kill_server,
            "stop": self._stop_gateway,
            **({} if postgres is None else {"database": self._kill_database}),
        }

    def run(self, kills: int, *, clients: int = 3, only: Sequence[str] = ()) -> Sequence[Load]:
        """Kill so often, then let everything come to its end; answers what the clients saw."""
        stop = threading.Event()
        loads = [Load(self.servers, self._seed * 100 + number, stop) for number in range(clients)]
        try:
            for _kill in range(kills):
                time.sleep(self._choose.uniform(*_PAUSE_S))  # waits: a random instant is the point
                name = self._choose.choice(sorted(only or self._hits))
                self._hits[name]()
                self.kills[name] += 1
        finally:
            stop.set()
            for load in loads:
                load.join()
        return loads

    def check(self, loads: Sequence[Load], database: str) -> None:
        """Nothing runs any more, and the rows are as they have to be. Fails with all that is not."""
        for server in self.servers:
            server.until_ready().close()
        with closing(Client(*self.servers)) as client:
            for run_id in client.live_runs():
                # Started, but never answered for: nobody approves or cancels these.
                client.cancel(run_id)
            until(lambda: client.live_runs() == [], "every run is over", 60)
            said = [client.said, *(load.client.said for load in loads)]
        check_rows(database if self._postgres else self.servers[0].database, _together(said), lease_s=LEASE_S)
        for server in self.servers:
            server.until_few_sandboxes(1)

    def _one(self) -> ChaosServer:
        return self._choose.choice(self.servers)

    def _kill_server(self) -> None:
        server = self._one()
        server.kill_all()
        until(lambda: not server.listeners(), "the port is free")
        server.start()

    def _stop_gateway(self) -> None:
        """Longer than its lease: another one takes its runs, or nobody; what it writes afterwards must not count."""
        pids = self._one().processes(GATEWAY)
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        time.sleep(self._choose.uniform(*_STOPPED_S))  # waits: longer than a lease
        for pid in pids:
            _send(pid, signal.SIGCONT)

    def _kill_database(self) -> None:
        assert self._postgres is not None
        self._postgres.crash()
        time.sleep(self._choose.uniform(0, 1))  # waits: the servers have to see that it is away
        self._postgres.start_again()


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _together(said: Sequence[Acknowledged]) -> Acknowledged:
    whole = Acknowledged()
    for part in said:
        whole.workflows |= part.workflows
        whole.runs |= part.runs
        whole.ends |= part.ends
        whole.cancelled |= part.cancelled
        whole.decided |= part.decided
    return whole


def play(kills: int, seed: int, *, servers: int = 1, on_postgresql: bool = False, only: Sequence[str] = ()) -> Chaos:
    """A whole round on fresh servers. Fails when anything does not hold."""
    with ExitStack() as stack:
        postgres, database = None, ""
        if on_postgresql:
            postgres = PostgresServer(durable=True)
            stack.callback(postgres.remove)
            postgres.start()
            database = postgres.create_database("chaos")
        settings = _SETTINGS | ({"SANDGATE_DATABASE_URL": database} if database else {})
        running = [stack.enter_context(ChaosServer(settings)) for _each in range(servers)]
        chaos = Chaos(running, postgres, seed)
        chaos.check(chaos.run(kills, only=only), database)
    return chaos
