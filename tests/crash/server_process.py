"""A server whose processes can be found and killed one by one."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.client import Answer, Connection
from bench.sandgate_server import ENVIRONMENTS, Server
from sandgate.config.paths import run_folder, state_name
from sandgate.config.settings import Settings

GATEWAY, LAUNCHER, SUPERVISOR = "sg-gateway", "sg-launcher", "sandgate"
LIMIT_S = 60.0


def until(seen: Callable[[], Any], what: str | Callable[[], str], limit_s: float = LIMIT_S) -> Any:
    """Wait until ``seen()`` is true and answer it; fail with ``what`` was waited for, or what that says then."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = seen()
        if found:
            return found
        time.sleep(0.005)  # waits: other processes act in their own time
    raise AssertionError(f"not within {limit_s} s: {what if isinstance(what, str) else what()}")


class CrashServer(Server):
    """``sandgate serve`` with the means to hurt it."""

    def processes(self, name: str) -> list[int]:
        """Its processes of this name: those whose session or parents lead to the server, and its launcher."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with suppress(OSError):
                if (folder / "comm").read_text().strip() == name and self._is_own(int(folder.name)):
                    found.append(int(folder.name))
        return found

    def _is_own(self, pid: int) -> bool:
        state = str(self.state).encode()
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        return state in environ or self._has_socket_of(pid)

    def _has_socket_of(self, pid: int) -> bool:
        """A launcher has nothing of the server's environment; it listens below the folder of the state's name."""
        wanted = str(run_folder(Settings(state=self.state)))
        with suppress(OSError):
            return any(wanted in os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
        return False

    @property
    def database(self) -> Path:
        """The file of its database."""
        return self.state / "sandgate.db"

    def sandboxes(self) -> int:
        """How many sandboxes its launcher has, those included that nobody has asked for yet."""
        tree = f"sandgate-{state_name(Settings(state=self.state))}"
        found: set[str] = set()
        for top in [*Path("/sys/fs/cgroup").glob(f"*/{tree}"), Path("/sys/fs/cgroup", tree)]:
            with suppress(OSError):
                found |= {name for name in os.listdir(top) if name.startswith("s")}
        return len(found)

    def runs_live(self) -> float:
        """How many runs it works on."""
        with self.connect() as connection:
            text = connection.request("GET", "/metrics").body.decode()
        line = next(line for line in text.splitlines() if line.startswith("sandgate_runs_live "))
        return float(line.split()[1])

    def until_few_sandboxes(self, most: int) -> None:
        """Wait until what was made for steps that never came is given up."""
        until(lambda: self.sandboxes() <= most, "the sandboxes are gone")

    @staticmethod
    def holders_of(file: str) -> list[int]:
        """The processes of the sandboxes that have a file of this name in their work folder."""
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                if folder.name.isdigit() and (folder / "root" / "workspace" / file).exists():
                    found.append(int(folder.name))
        return found

    def own_holders_of(self, file: str) -> list[int]:
        """Those of them that are in sandboxes of this server."""
        tree = f"/sandgate-{state_name(Settings(state=self.state))}/"
        found = []
        for pid in self.holders_of(file):
            with suppress(OSError):
                if tree in Path(f"/proc/{pid}/cgroup").read_text():
                    found.append(pid)
        return found

    @staticmethod
    def users_of(file: str) -> list[int]:
        """The processes that have a file of this name open."""
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                if folder.name.isdigit() and any(
                    os.readlink(link).endswith(f"/{file}") for link in (folder / "fd").iterdir()
                ):
                    found.append(int(folder.name))
        return found

    def kill_holders_of(self, file: str) -> None:
        """End an environment from outside, as a machine in trouble would."""
        for pid in self.holders_of(file):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def process(self, name: str) -> int:
        """Its process of this name: one that has just been forked bears the name of its parent for a moment."""
        (pid,) = until(lambda: len(found := self.processes(name)) == 1 and found, f"there is one {name}")
        return int(pid)

    def kill_one(self, name: str) -> None:
        """End one of its processes at once, if it is there; what comes in its place may already be."""
        for pid in self.processes(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill(self, name: str) -> None:
        """End one of its processes at once, and wait until it is gone."""
        pid = self.process(name)
        os.kill(pid, signal.SIGKILL)
        until(lambda: pid not in self.processes(name), f"{name} is gone")

    def release(self, file: str) -> None:
        """Take a file away from the work folders that have it, for code that waits until it is gone."""
        for pid in self.holders_of(file):
            with suppress(OSError):
                Path(f"/proc/{pid}/root/workspace/{file}").unlink()

    def revive(self) -> None:
        """Start it, where it does not run."""
        if self._process is None or self._process.poll() is not None:
            until(lambda: not self.listeners(), "the port is free")
            self.start()

    def kill_all(self) -> None:
        """``kill -9`` of what the operator started; the rest of it has to cope."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def reconnect(self) -> Connection:
        """A connection, as soon as the server answers again."""
        until(self._answers, "the server answers")
        return self.connect()

    def until_ready(self) -> Connection:
        """A connection to a server whose every part answers."""

        def ready() -> bool:
            with suppress(OSError, AssertionError), self.connect() as connection:
                return connection.request("GET", "/readyz").status == 200
            return False

        until(ready, "the server is ready")
        return self.connect()


class BackgroundRequest:
    """A request that a thread waits for; ``answer`` is None when the connection broke."""

    def __init__(self, server: CrashServer, path: str, body: dict[str, Any], *, patience_s: float = 60) -> None:
        self.answer: Answer | None = None
        self._path = path
        self._body = body
        self._connection = server.connect()
        self._connection._socket.settimeout(patience_s)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError, AssertionError, ConnectionError), self._connection as connection:
            self.answer = connection.request("POST", self._path, self._body)

    def wait(self) -> Answer | None:
        """The answer."""
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), f"{self._path} was neither answered nor broken off"
        return self.answer


class BackgroundExecution(BackgroundRequest):
    """An execution that a thread waits for."""

    def __init__(
        self, server: CrashServer, environment_id: str, code: str, timeout: float = 60, *, patience_s: float = 60
    ) -> None:
        body = {"code": code, "timeout": timeout}
        super().__init__(server, f"{ENVIRONMENTS}/{environment_id}/execute", body, patience_s=patience_s)

    def join(self) -> dict[str, Any] | None:
        """What the execution was answered with."""
        answer = self.wait()
        return None if answer is None else answer.json()
