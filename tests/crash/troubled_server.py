"""A server whose disk, clock and processes can be troubled while it runs, and what is under way on it meanwhile."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, Self, TypeVar

from bench.client import Answer
from bench.sandgate_server import ENVIRONMENTS
from sandgate_agent import system
from tests.crash.faults import FaultyServer
from tests.crash.faulty_server import CLOCK_FILE, LAUNCHER_PATIENCE
from tests.crash.invariants import check_rows
from tests.crash.server_process import GATEWAY, until
from tests.crash.workload import Client
from tests.postgres import PostgresServer

ResultT = TypeVar("ResultT")

#: How long the server of a trouble waits for its database.
PATIENCE_S = 1.5
# What it says when that is over, whatever it has waited for.
_LATE = ("The database did not answer within", "The database was busy for")
#: Beyond which no answer may be late, on a busy machine too.
LATEST_S = 15.0
LEASE_S = 2.0
_DISK_MB = 128
_CLONE_FS = 0x00000200
_SETTINGS = {
    "SANDGATE_DATABASE_TIMEOUT_S": f"{PATIENCE_S:g}",
    "SANDGATE_RUN_LEASE_S": f"{LEASE_S:g}",
    "SANDGATE_DRAIN_GRACE_S": "0.3",
    "SANDGATE_SPARE_SANDBOXES": "1",
    "SANDGATE_MOST_SPARE_SANDBOXES": "1",
}
# In a mount namespace of its own, so that the file system goes with the server, however it ends. What it says goes to
# the same disk, as it does where state and logs are in one file system.
_OWN_DISK = f'mount -t tmpfs -o size={_DISK_MB}m,mode=0711 sandgate-state "$0" && exec "$@" >> "$0/said" 2>&1'


class TroubledServer(FaultyServer):
    """``sandgate serve`` on a small disk of its own. ``more`` is added to its settings."""

    def __init__(self, more: Mapping[str, str] | None = None) -> None:
        super().__init__(_SETTINGS | dict(more or {}))
        self._has_key = False
        self.state.mkdir(mode=0o711)
        self._prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _OWN_DISK, str(self.state)]

    def _environ(self) -> dict[str, str]:
        clock = str(self.state / "clock")
        return super()._environ() | {CLOCK_FILE: clock, LAUNCHER_PATIENCE: "4"}

    @property
    def disk(self) -> Path:
        """The state folder, as the server sees it."""
        return Path(f"/proc/{self.pid}/root{self.state}")

    def inside(self, do: Callable[[], ResultT]) -> ResultT:
        """Do something where the paths are the server's: SQLite follows no links into another namespace."""

        def enter() -> ResultT:
            system.unshare(_CLONE_FS)
            namespace = os.open(f"/proc/{self.pid}/ns/mnt", os.O_RDONLY)
            try:
                system.enter_namespace(namespace)
            finally:
                os.close(namespace)
            return do()

        # A thread may be in a namespace of its own.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(enter).result()

    def use_key(self) -> None:
        """Ask with a credential that no clock ends."""
        if not self._has_key:
            with self.connect() as connection:
                self._token = connection.expect(201, "POST", "/api/v1/auth/api-keys", {"label": "trouble"})["api_key"]
            self._has_key = True

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Not one byte fits on its disk during the block."""
        filler = self.disk / "filler"
        try:
            with filler.open("wb", buffering=0) as file, (self.disk / "said").open("ab", buffering=0) as log:
                for size in (1024 * 1024, 4096, 1):
                    _write_until_full(file, b"\n" * size)
                # Its last page has some room left.
                _write_until_full(log, b"\n")
            yield
        finally:
            filler.unlink(missing_ok=True)

    def set_clock(self, seconds: float) -> None:
        """Let its wall clock be wrong by so much from now on."""
        draft = self.disk / "clock.new"
        draft.write_text(f"{seconds}", encoding="ascii")
        draft.chmod(0o644)
        draft.rename(self.disk / "clock")

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """A process of it stands still during the block."""
        pid = self.process(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _write_until_full(file: FileIO, piece: bytes) -> None:
    with suppress(OSError):
        while True:
            file.write(piece)


def _is_late(answer: Answer) -> bool:
    return answer.status == 503 and any(words in answer.json()["error"]["message"] for words in _LATE)


@dataclass
class Work:
    """What was acknowledged and what was under way when the trouble began."""

    server: TroubledServer
    client: Client
    postgres: PostgresServer | None = None
    environment_id: str = ""
    runs: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    @classmethod
    def begin(cls, server: TroubledServer, location: PostgresServer | None = None) -> Self:
        """Make an environment, run code in it, and start workflows that have some way to go."""
        server.use_key()
        work = cls(server, Client(server), location)
        work.environment_id = work.client.create()
        for number in range(3):
            work.client.execute(work.environment_id, f"print({number})")
        work.runs = [work.client.start(work.client.make(kind)) for kind in ("workspace", "nap", "sequence")]
        return work

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """The very answer to one request, which must not be late."""
        started = time.monotonic()
        with self.server.connect() as connection:
            answer = connection.request(method, path, body)
        self.slowest_s = max(self.slowest_s, time.monotonic() - started)
        assert self.slowest_s < LATEST_S, f"{method} {path} was answered after {self.slowest_s:.1f} s"
        return answer

    def execute(self, code: str = "print('here')") -> Answer:
        """Ask once for code to be run."""
        return self.ask("POST", f"{ENVIRONMENTS}/{self.environment_id}/execute", {"code": code, "timeout": 30})

    def look(self) -> Answer:
        """Ask once for what only the database knows."""
        return self.ask("GET", f"{ENVIRONMENTS}/{self.environment_id}/executions")

    def prompt(self, ask: Callable[[], Answer]) -> Answer:
        """The first answer to a question that is not about a database which was late.

        A gateway that the machine stops for as long as this one is patient has no patience left when it goes on.
        """
        answer: Answer = until(lambda: None if _is_late(found := ask()) else found, "an answer in time")
        return answer

    def assert_refused(self, *reasons: str) -> None:
        """Whoever needs the database is told that it cannot be used, and why.

        Who was told that it is late asks again: see ``prompt``.
        """

        def told() -> bool:
            answer = self.execute()
            assert answer.status == 503, answer
            error = answer.json()["error"]
            assert error["code"] == "STORE_UNAVAILABLE", error
            is_told = any(reason in error["message"] for reason in reasons)
            assert is_told or _is_late(answer), error
            return is_told

        until(told, lambda: f"it is told why: {reasons}")

    def assert_probe_names(self, part: str) -> None:
        """The readiness probe tells which part is in trouble."""

        def named() -> bool:
            answer = self.ask("GET", "/readyz")
            return answer.status == 503 and part in answer.json()["error"]["details"]["missing"]

        until(named, f"the probe names the {part}")

    def check(self) -> None:
        """All is as it was, without a hand: everything answers, what was begun ends, nothing acknowledged is lost."""
        self.server.until_ready().close()
        assert self.client.execute(self.environment_id, "print('after')")["stdout"] == "after\n"
        for run_id in self.runs:
            run = self.client.until_over(run_id)
            assert run["status"] == "succeeded", run
        location = self.server.database if self.postgres is None else self.postgres.url("trouble")
        self.server.inside(lambda: check_rows(location, self.client.said, lease_s=LEASE_S))
        log = (self.server.disk / "said").read_text(encoding="utf-8", errors="replace")
        assert "Traceback" not in log, log[-4000:]

    def close(self) -> None:
        """Leave the server as it was found, but for its records."""
        try:
            self.client.ask("DELETE", f"{ENVIRONMENTS}/{self.environment_id}")
            self.server.until_few_sandboxes(1)
        finally:
            self.client.close()

    def gateway(self) -> list[int]:
        """The process of the gateway."""
        return self.server.processes(GATEWAY)
