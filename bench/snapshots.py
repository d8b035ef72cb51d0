"""Snapshots and copies: how long one takes, and how long it takes to begin with one."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.client import Connection
from bench.context import Bench, refer
from bench.figures import Figure, Samples, Target, figure_of
from bench.sandgate_server import ENVIRONMENTS, Server, create, delete, execute
from bench.timing import milliseconds

FILES, FILE_BYTES = 200, 100_000
COPIES = 4
_MADE = f"""
import os
for number in range({FILES}):
    os.makedirs(f"folder-{{number % 20}}", exist_ok=True)
    open(f"folder-{{number % 20}}/file-{{number}}", "wb").write(os.urandom({FILE_BYTES}))
"""


def measure(bench: Bench) -> list[Figure]:
    """Each round: a snapshot, an environment that begins with it, copies, one that begins with nothing; ``cp -a``."""
    what = f"{FILES} files, {FILES * FILE_BYTES // 1_000_000} MB"
    ours: dict[str, list[float]] = {"snapshot": [], "start": [], "fork": []}
    copied: list[float] = []
    plain: list[float] = []
    with Server() as server, server.connect() as connection, tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        source = create(connection)
        execute(connection, source, {"code": _MADE})
        folder = _same_tree(Path(name))

        def alternate() -> float:
            for _ in range(bench.count(15, 2)):
                copied.append(milliseconds(lambda: _copy(folder)))
                shutil.rmtree(folder / "copy")
                plain.append(_until_used(connection, lambda: [create(connection)]))
                _one_round(connection, source, ours)
            return Samples.of(copied).median

        reference = refer("cp -a of the same files in memory", alternate)
        both = refer("cp -a, create and first execute", lambda: Samples.of(copied).median + Samples.of(plain).median)
    return [
        figure_of("Snapshot", f"of {what}, p50", "ms", Samples.of(ours["snapshot"]), Target(), reference),
        figure_of("Snapshot start", f"and first execute, {what}, p50", "ms", Samples.of(ours["start"]), Target(), both),
        figure_of("Fork", f"each of {COPIES}, and first execute, p50", "ms", Samples.of(ours["fork"]), Target(), both),
    ]


def _one_round(connection: Connection, source: str, times: dict[str, list[float]]) -> None:
    path = f"{ENVIRONMENTS}/{source}"
    kept: list[str] = []
    make = lambda: kept.append(connection.expect(201, "POST", f"{path}/snapshots", {})["snapshot_id"])  # noqa: E731
    times["snapshot"].append(milliseconds(make))
    body = {"name": "bench", "snapshot_id": kept[0]}

    def start() -> list[str]:
        return [connection.expect(201, "POST", ENVIRONMENTS, body)["environment_id"]]

    def fork() -> list[str]:
        copies = connection.expect(201, "POST", f"{path}/fork", {"count": COPIES})["environments"]
        return [row["environment_id"] for row in copies]

    times["start"].append(_until_used(connection, start))
    times["fork"].append(_until_used(connection, fork) / COPIES)
    connection.expect(200, "DELETE", f"/api/v1/sandbox/snapshots/{kept[0]}")


def _until_used(connection: Connection, begin: Callable[[], list[str]]) -> float:
    """Milliseconds until each environment that is begun has executed once; they are deleted afterwards."""
    made: list[str] = []

    def use() -> None:
        made.extend(begin())
        for environment_id in made:
            execute(connection, environment_id)

    taken_ms = milliseconds(use)
    for environment_id in made:
        delete(connection, environment_id)
    return taken_ms


def _same_tree(folder: Path) -> Path:
    for number in range(FILES):
        place = folder / "tree" / f"folder-{number % 20}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"file-{number}").write_bytes(os.urandom(FILE_BYTES))
    return folder


def _copy(folder: Path) -> None:
    subprocess.run(["cp", "-a", str(folder / "tree"), str(folder / "copy")], check=True)
