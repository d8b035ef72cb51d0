"""Many environments made, used and deleted on one server, with a look at what it holds in between: R2.

Each look is taken when nothing is live: then whatever is more than before is what the environments have left.
"""

import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, create, delete, execute
from bench.timing import together
from sandgate.config.paths import run_folder, state_name
from sandgate.config.settings import Settings
from tests.crash.growth import Growth, judge
from tests.crash.server_process import GATEWAY, LAUNCHER, SUPERVISOR, CrashServer, until
from tests.runtime.hosts import descendants

_CLIENTS = 4
_LOOKS = 24
_SPARES = 2
_SETTINGS = {
    "SANDGATE_SPARE_SANDBOXES": f"{_SPARES}",
    "SANDGATE_MOST_SPARE_SANDBOXES": f"{_SPARES}",
    # What is removed when its time is over is to be removed while this looks.
    "SANDGATE_EXECUTION_RETENTION_S": "60",
    "SANDGATE_RUN_RETENTION_S": "60",
    "SANDGATE_IDEMPOTENCY_RETENTION_S": "60",
    # What shares an entry of the audit log is held until its minute is over, and that is as much as was done in it.
    "SANDGATE_AUDIT_ALIKE_PER_MINUTE": "1000000",
    # A day's worth takes longer than a token lasts.
    "SANDGATE_TOKEN_LIFETIME_S": "86400",
}
#: The smallest object of Python's: what is less for each environment is nothing that one of them left.
_LEAST_BYTES = 48.0
_KIB = 1024
#: Below this no growth is told from what the allocator of a process does for itself.
_LEAST_MEMORY_KIB = 256.0
#: Nor of the gateway below this: what waits for the collector of cycles comes and goes by some MiB, and an allocator
#: keeps the most that there ever was. New highs become ever more seldom, and a long run tells them from a small leak.
_LEAST_GATEWAY_KIB = 2_048.0
#: By how much the space of a row may be more at the end: pages are filled and emptied in turn.
_LEAST_ROW = 0.1


def _plain(connection: Connection, environment: str) -> None:
    execute(connection, environment)


def _much(connection: Connection, environment: str) -> None:
    execute(connection, environment, {"code": "import sys\nsys.stdout.write('x' * 300_000)"})


def _failing(connection: Connection, environment: str) -> None:
    body = {"code": "open('f', 'w').write('x' * 100_000)\nraise ValueError('no')"}
    assert connection.expect(200, "POST", f"{ENVIRONMENTS}/{environment}/execute", body)["status"] == "failed"


def _late(connection: Connection, environment: str) -> None:
    body = {"code": "while True: pass", "timeout": 0.1}
    assert connection.expect(200, "POST", f"{ENVIRONMENTS}/{environment}/execute", body)["status"] == "timed_out"


def _detached(connection: Connection, environment: str) -> None:
    """Deleted while it runs."""
    body = {"code": "print('begun', flush=True)\nwhile True: pass", "detach": True}
    connection.expect(200, "POST", f"{ENVIRONMENTS}/{environment}/execute", body)


def _unused(_connection: Connection, _environment: str) -> None:
    """Deleted at once, perhaps before it was made."""


_USES: Sequence[Callable[[Connection, str], None]] = (_plain, _much, _failing, _late, _detached, _unused)
_OFTEN = (20, 2, 2, 1, 1, 4)
_MUCH_ONLY = (0, 1, 0, 0, 0, 0)
_MUCH_AT_FIRST = 100


@dataclass
class Wear:
    """One server, and what was seen of it after so many environments."""

    server: CrashServer
    seed: int = 0
    made: int = 0
    work: list[float] = field(default_factory=list)
    seen: dict[str, list[float]] = field(default_factory=dict)

    def run(self, count: int, looks: int = _LOOKS, say: Callable[[str], None] = lambda _text: None) -> None:
        """Make so many and delete them, and look so often."""
        # An allocator keeps what much output of all clients at once has taken; else that comes by chance, late, once.
        self._use(min(_MUCH_AT_FIRST, count // 4), _MUCH_ONLY)
        self._use(max(_CLIENTS, count // looks // 4))
        started = time.monotonic()
        for number in range(looks):
            self._use(count // looks)
            self.work.append(float(self.made))
            for name, value in self.look().items():
                self.seen.setdefault(name, []).append(value)
            rate = self.made / (time.monotonic() - started)
            say(f"{self.made:>7,} environments, {rate:.0f} a second ({number + 1} of {looks} looks)")

    def _use(self, count: int, often: Sequence[int] = _OFTEN) -> None:
        connections = [self.server.connect() for _ in range(_CLIENTS)]
        works = [self._work(connection, count // _CLIENTS, often) for connection in connections]
        together(works)
        for connection in connections:
            connection.close()
        self.made += count // _CLIENTS * _CLIENTS

    def _work(self, connection: Connection, count: int, often: Sequence[int]) -> Callable[[], list[float]]:
        self.seed += 1
        choose = random.Random(self.seed)

        def live() -> list[float]:
            for use in choose.choices(_USES, often, k=count):
                environment = create(connection, "python")
                use(connection, environment)
                delete(connection, environment)
            return []

        return live

    def look(self) -> Mapping[str, float]:
        """What the server holds now that nobody wants anything of it."""
        until(self._is_quiet, "nothing is live", 60)
        found = Counter(dict(self._of_processes()))
        found["mounts of the launcher"] = len(
            Path(f"/proc/{self.server.process(LAUNCHER)}/mountinfo").read_text().splitlines()
        )
        found["control groups"] = sum(1 for _group in self._groups())
        found["files but the database"] = sum(1 for _file in self._files())
        return {name: float(value) for name, value in found.items()} | self._database()

    def _is_quiet(self) -> bool:
        """The zygote is there, the spares, and in each of these a child that waits."""
        return self.server.sandboxes() == _SPARES and len(descendants(self.server.process(LAUNCHER))) == 1 + 2 * _SPARES

    def _of_processes(self) -> Iterator[tuple[str, int]]:
        launcher = self.server.process(LAUNCHER)
        below = descendants(launcher)
        zygotes = [pid for pid, (_name, parent) in below.items() if parent == launcher]
        parts = {
            "gateway": [self.server.process(GATEWAY)],
            "launcher": [launcher],
            "supervisor": [self.server.process(SUPERVISOR)],
        }
        for part, pids in (parts | {"zygotes": zygotes}).items():
            yield f"memory of the {part} (KiB)", sum(map(_memory_kib, pids))
            yield f"descriptors of the {part}", sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
        yield "threads of the gateway", len(os.listdir(f"/proc/{self.server.process(GATEWAY)}/task"))
        yield "processes", len(below) + len(parts)

    def _groups(self) -> Iterator[Path]:
        tree = f"sandgate-{state_name(Settings(state=self.server.state))}"
        for top in (*Path("/sys/fs/cgroup").glob(f"*/{tree}"), Path("/sys/fs/cgroup", tree)):
            if top.exists():
                yield from (path for path in top.rglob("*") if path.is_dir())

    def _files(self) -> Iterator[Path]:
        for top in (self.server.state, run_folder(Settings(state=self.server.state))):
            for folder, _folders, names in os.walk(top):
                yield from (Path(folder, name) for name in names if not name.startswith("sandgate.db"))

    def _database(self) -> dict[str, float]:
        with closing(sqlite3.connect(f"{self.server.database.as_uri()}?mode=ro", uri=True)) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            rows = sum(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in names)
            pages, free, size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        log = 0
        with suppress(FileNotFoundError):
            log = self.server.database.with_name("sandgate.db-wal").stat().st_size
        return {
            "rows": float(rows),
            "database, used bytes a row": (pages - free) * size / max(rows, 1),
            "database, log (KiB)": log / _KIB,
        }

    def verdicts(self) -> Mapping[str, Growth]:
        """What became of each figure; the number of rows grows with the work, and is no verdict."""
        return {
            name: judge(self.work, values, self._least(name, values))
            for name, values in self.seen.items()
            if name != "rows"
        }

    def _least(self, name: str, values: Sequence[float]) -> float:
        if name.startswith("memory"):
            least = _LEAST_GATEWAY_KIB if "gateway" in name else _LEAST_MEMORY_KIB
            return max(least, _LEAST_BYTES * self.made / _KIB)
        if name.startswith("database, used"):
            return _LEAST_ROW * values[0]
        # The log is emptied beyond its limit, and one more of anything else, once, is none that each has left.
        return 65_536.0 if name.startswith("database") else 1.0

    def table(self) -> str:
        """All figures, one a line."""
        lines = [f"{'':32} {'before':>12} {'warmed up':>12} {'after':>12} {'of 100,000':>12}"]
        for name, growth in self.verdicts().items():
            values = f"{growth.first:>12,.0f} {growth.settled:>12,.0f} {growth.last:>12,.0f}"
            verdict = "GROWS" if growth.grows else ""
            lines.append(f"{name:32} {values} {growth.slope * 100_000:>+12,.0f} {verdict}".rstrip())
            if growth.grows:
                # A step or two are something else than a slope.
                lines.append("  " + " ".join(f"{value:,.0f}" for value in self.seen[name]))
        rows = self.seen["rows"]
        lines.append(f"{'rows of the database':32} {rows[0]:>12,.0f} {'':12} {rows[-1]:>12,.0f}")
        return "\n".join(lines)


def _memory_kib(pid: int) -> int:
    """What a process has written to and shares with nobody but those that it was forked from or has forked."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    return 0


def wear(count: int, say: Callable[[str], None], *, looks: int = _LOOKS, seed: int = 0) -> Wear:
    """A whole round on a fresh server."""
    with CrashServer(_SETTINGS) as server:
        worn = Wear(server, seed)
        worn.run(count, looks, say)
    return worn
