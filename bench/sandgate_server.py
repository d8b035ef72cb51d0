"""A server of the measurement's own, on a fresh state folder and a free port, and what is asked of it."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from bench.client import Connection, UnexpectedAnswer
from bench.lifeline import Lifeline

READY_PATH = "/readyz"
START_S = 60.0
STOP_S = 60.0
POLL_S = 0.002
ENVIRONMENTS = "/api/v1/sandbox/environments"
HELLO = {"code": "print('Hello, World!')"}


def command() -> str:
    """The installed command, beside the interpreter that runs this."""
    return str(Path(sys.executable).with_name("sandgate"))


def free_port() -> int:
    """A port that nobody listens on now, and that the kernel gives to nobody of its own accord."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """``sandgate serve`` as a child process; a context manager that leaves nothing behind.

    ``prefix`` is a program that starts it in another setting, as ``unshare``; ``common`` are settings of all servers
    that say nothing else.
    """

    common: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        folder: Path | None = None,
        *,
        prefix: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self._own_folder = folder is None
        self.folder = folder or make_folder()
        self.password = "measured-not-guessed"
        self._settings = dict(settings or {})
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None
        self._token = ""

    def __enter__(self) -> Self:
        try:
            self.start()
            self._token = self._log_in()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.folder / "state"

    @property
    def log(self) -> Path:
        """What the server wrote."""
        return self.folder / "log"

    def start(self) -> float:
        """Start it and answer the seconds until it answered for the first time."""
        started = time.perf_counter()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, *self._command()],
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._cut_lifeline()
        self._lifeline = Lifeline(self._process.pid)
        while not self._answers():
            self._check_alive(started)
            time.sleep(POLL_S)
        return time.perf_counter() - started

    def stop(self) -> None:
        """Stop it and remove its folder."""
        self.stop_process()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def stop_process(self) -> None:
        """Stop it as an operator would; its state stays."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._cut_lifeline()

    def _cut_lifeline(self) -> None:
        if self._lifeline is not None:
            self._lifeline.cut()
            self._lifeline = None

    def connect(self) -> Connection:
        """A connection that acts as the admin."""
        return Connection(self.port, self._token)

    @property
    def token(self) -> str:
        """The admin's credential."""
        return self._token

    @property
    def pid(self) -> int:
        """The process that keeps the others running."""
        if self._process is None:
            raise RuntimeError("the server does not run")
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def listeners(self) -> list[int]:
        """The processes that hold the listening socket: the gateway, and whoever keeps it running."""
        wanted = {f"socket:[{inode}]" for inode in _listening_inodes(self.port)}
        folders = (folder for folder in Path("/proc").iterdir() if folder.name.isdigit())
        return [int(folder.name) for folder in folders if wanted & _descriptors(folder)]

    def processor_s(self) -> float:
        """The time that all its processes, with their threads, have had of the processors until now."""
        assert self._process is not None
        return sum(_processor_s(pid) for pid in _descendants(self._process.pid))

    def _command(self) -> list[str]:
        return [command(), "serve"]

    def _environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SANDGATE_")}
        own = {
            "SANDGATE_PORT": str(self.port),
            "SANDGATE_STATE": str(self.state),
            "SANDGATE_ADMIN_PASSWORD": self.password,
            "SANDGATE_LOG_LEVEL": "warning",
        }
        return kept | own | dict(self.common) | self._settings

    def _answers(self) -> bool:
        try:
            with Connection(self.port) as connection:
                return connection.request("GET", READY_PATH).status == 200
        except OSError:
            return False

    def _check_alive(self, started: float) -> None:
        assert self._process is not None
        ended = self._process.poll() is not None
        if ended or time.perf_counter() - started > START_S:
            end = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise UnexpectedAnswer(f"The server {'ended' if ended else 'does not answer'}; its last words:\n{end}")

    def _log_in(self) -> str:
        with Connection(self.port) as connection:
            asked = {"username": "admin", "password": self.password}
            token: str = connection.expect(200, "POST", "/api/v1/auth/token", asked)["access_token"]
            return token


def make_folder() -> Path:
    """A temporary folder that the unprivileged gateway can pass through."""
    folder = Path(tempfile.mkdtemp(prefix="sandgate-bench-"))
    folder.chmod(0o711)
    return folder


def create(connection: Connection, template: str = "python-3.9", **fields: Any) -> str:
    """Ask for an environment and answer its id."""
    wanted = {"name": "bench", "template": template, "timeout": 3600, **fields}
    identity: str = connection.expect(201, "POST", ENVIRONMENTS, wanted)["environment_id"]
    return identity


def execute(connection: Connection, environment_id: str, body: Mapping[str, Any] = HELLO) -> dict[str, Any]:
    """Run code to its end. Raises ``UnexpectedAnswer`` unless it completed."""
    answer: dict[str, Any] = connection.expect(200, "POST", f"{ENVIRONMENTS}/{environment_id}/execute", body)
    if answer["status"] != "completed":
        raise UnexpectedAnswer(f"The code did not complete: {answer}")
    return answer


def delete(connection: Connection, environment_id: str) -> None:
    """End an environment."""
    connection.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")


def _descendants(root: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [root]
    for parent in found:
        found.extend(pid for pid, its_parent in parents.items() if its_parent == parent)
    return found


def _processor_s(pid: int) -> float:
    """By the scheduler's own count, in nanoseconds. Source: the kernel's Documentation/scheduler/sched-stats.rst."""
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
        except OSError:
            continue
    return total / 1e9


def _listening_inodes(port: int) -> set[str]:
    rows = (line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:])
    return {row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}


def _descriptors(process: Path) -> set[str]:
    try:
        return {os.readlink(link) for link in (process / "fd").iterdir()}
    except OSError:
        return set()
