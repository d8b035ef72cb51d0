"""A PostgreSQL of the tests' own, from the binaries of the machine, in a temporary folder."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.abilities import find_postgresql

_START_TIMEOUT_S = 60
_PR_SET_PDEATHSIG = 1

# Becomes the user and then the server, which ends when the tests do, however they end: a signal at the death of the
# parent, set after the change of user, which would clear it.
_LAUNCH = f"""
import ctypes, os, sys
user, group = int(sys.argv[1]), int(sys.argv[2])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGQUIT)})
os.execv(sys.argv[3], sys.argv[3:])
"""


def _system_user() -> pwd.struct_passwd:
    """Who runs the server: it refuses to be root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid: int) -> bool:
    """Whether it has not ended, though nobody may have asked yet how."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(") ")[2][0] not in "ZX"


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait_for_stop(pid: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "TZX":
        assert time.monotonic() < deadline, f"{pid} does not stop"
        time.sleep(0.001)  # waits: a signal is acted on by the process itself, in its own time


class PostgresServer:
    """One server, on a unix socket only. ``durable`` makes it flush at every commit, as in production."""

    def __init__(self, *, durable: bool = False) -> None:
        programs = find_postgresql()
        assert programs is not None, "mark the test with needs_postgresql"
        self._programs = programs
        self._durable = durable
        self._user = _system_user()
        self._process: subprocess.Popen[bytes] | None = None
        self._orphans: list[int] = []
        self._folder = Path(tempfile.mkdtemp(prefix="sgpg-"))
        # Servers of the product run as other users, and connect to the socket in there.
        self._folder.chmod(0o711)
        os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        try:
            self._initialise()
        except BaseException:
            self.remove()
            raise

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        log = (self._folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                self._launch([str(self._programs / "postgres"), "-D", str(self._folder / "data"), *self._options()]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"PostgreSQL did not start: {(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)  # waits: the server tells nobody when it takes connections

    def crash(self) -> None:
        """``kill -9``: its processes find out in their own time, so that the next start may have to be tried again."""
        self._orphans = self._children()
        self._end(signal.SIGKILL)

    def until_dead(self) -> None:
        """Wait until what a crash has left is gone: until then a connection may still be served."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while any(map(_is_alive, self._orphans)):
            if time.monotonic() > deadline:
                raise RuntimeError(f"these processes of PostgreSQL outlive it: {self._orphans}")
            time.sleep(0.01)  # waits: they are no children of this process

    def start_again(self) -> None:
        """Start it as soon as what is left of the last one is gone."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                return self.start()
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)  # waits: its orphans end by themselves

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """None of its processes does anything during the block, as on a machine whose disk hangs."""
        assert self._process is not None
        pids = [self._process.pid]
        try:
            _send(pids[0], signal.SIGSTOP)
            # Until it stands still it may have another child, which would not be among those that are found.
            _wait_for_stop(pids[0])
            pids += self._children()
            for pid in pids[1:]:
                _send(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                _send(pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it in good order, ending its connections."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash does: nothing is finished, and the next start recovers."""
        self._end(signal.SIGQUIT)

    def remove(self) -> None:
        """End it and delete its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """Where to connect to."""
        return f"postgresql://sandgate@/{database}?host={self._folder}"

    def create_database(self, name: str) -> str:
        """Make an empty database, and answer its URL."""
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Delete a database, ending its connections."""
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def execute(self, statement: sql.SQL | sql.Composed, database: str = "postgres") -> Sequence[tuple[object, ...]]:
        """Run a statement by itself, and answer its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _children(self) -> list[int]:
        assert self._process is not None
        return _children_of(self._process.pid)

    def _initialise(self) -> None:
        command = [
            str(self._programs / "initdb"),
            *("-D", str(self._folder / "data")),
            *("-U", "sandgate", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"),
        ]
        done = subprocess.run(self._launch(command), cwd=self._folder, capture_output=True, check=False, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed: {done.stderr.decode(errors='replace')}")

    def _launch(self, command: list[str]) -> list[str]:
        return [sys.executable, "-c", _LAUNCH, str(self._user.pw_uid), str(self._user.pw_gid), *command]

    def _options(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._folder),
            "fsync": "on" if self._durable else "off",
            "full_page_writes": "on" if self._durable else "off",
            "max_connections": "60",
            "shared_buffers": "32MB",
            "autovacuum": "off",
            "max_worker_processes": "0",
            "max_logical_replication_workers": "0",
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _end(self, signal_number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal_number)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running server that all tests of a run share; a test that asks for it is marked ``needs_postgresql``."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()
