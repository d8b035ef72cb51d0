"""What a request costs in the gateway beyond the sandbox: CPU time of the server's process for each execute.

    python -m bench.http_overhead [--requests 5000] [--store null|sqlite] [--profile]

The runtime is the fake one, which answers at once; authentication, HTTP, parsing, the use case and rendering are real.
With ``--store null`` nothing is written, so that what is left is the gateway alone. The client is another process.
"""

import argparse
import asyncio
import contextlib
import cProfile
import gc
import multiprocessing
import pstats
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from sandgate.auth.accounts import Accounts
from sandgate.auth.derived_secrets import DerivedSecrets
from sandgate.auth.file_links import FileLinks
from sandgate.auth.keys import KeyRing
from sandgate.auth.passwords import Passwords
from sandgate.auth.port_links import SignedPortLinks
from sandgate.auth.sealing import Sealer
from sandgate.auth.service import AuthService
from sandgate.auth.throttle import LoginThrottle
from sandgate.auth.tokens import Tokens
from sandgate.auth.users import UserService, make_user
from sandgate.config.settings import Settings
from sandgate.core.audit import AuditChain
from sandgate.core.clock import SystemClock
from sandgate.core.execution import Execution
from sandgate.core.principal import Principal, Role
from sandgate.environments.base import NewEnvironment
from sandgate.environments.builds.all_templates import AllTemplates
from sandgate.environments.service import EnvironmentService
from sandgate.http.app import create_app
from sandgate.http.server import serve
from sandgate.store.artifact_files import ArtifactFiles
from sandgate.store.audit_trail import AuditTrail
from sandgate.store.base import ExecutionStore
from sandgate.store.snapshot_files import SnapshotFiles
from sandgate.store.sql_store import SqlStore
from sandgate.telemetry.log import set_up_logging
from sandgate.testing.builds import make_builds
from sandgate.testing.fake_runtime import FakeRuntime
from sandgate.testing.fake_templates import FakeTemplates
from sandgate.workflows.artifacts import ArtifactService
from sandgate.workflows.engine import Engine
from sandgate.workflows.sandboxes import RuntimeStepSandboxes
from sandgate.workflows.schedules import ScheduleService
from sandgate.workflows.secrets import SecretService
from sandgate.workflows.service import WorkflowService
from sandgate.workflows.webhooks import WebhookService

_WARM_UP = 500
_BLOCK = 100
_BODY = b'{"code": "pass", "timeout": 30}'


class _Unwritten:
    """A store of executions that keeps nothing new; the rest is the real one's."""

    def __init__(self, real: ExecutionStore) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def finish(self, execution: Execution) -> None:
        """Forget it."""

    async def insert_running(self, execution: Execution) -> None:
        """Forget it."""


def _send_requests(port: int, path: str, token: str, count: int, pipe: Any) -> None:
    """The client: one keep-alive connection, one request after the other; tells the times to the pipe."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n\r\n"
    request = head.encode() + _BODY
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for requests in (_WARM_UP, *[_BLOCK] * (count // _BLOCK)):
            pipe.send("ready")
            pipe.recv()
            times = []
            for _ in range(requests):
                start = time.perf_counter()
                connection.sendall(request)
                answer = _receive(connection)
                times.append(time.perf_counter() - start)
                assert answer.startswith(b"HTTP/1.1 200"), answer
            pipe.send(times)


def _receive(connection: socket.socket) -> bytes:
    """One whole answer."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    missing = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]) - len(body)
    while missing > 0:
        missing -= len(connection.recv(65536))
    return answer


def _authenticator(
    store: SqlStore, accounts: Accounts, passwords: Passwords, tokens: Tokens, clock: SystemClock
) -> AuthService:
    return AuthService(
        accounts=accounts,
        credentials=store.credentials,
        passwords=passwords,
        tokens=tokens,
        throttle=LoginThrottle(clock, attempts=10, window_s=60),
        clock=clock,
    )


async def _measure(arguments: argparse.Namespace, folder: Path) -> None:
    clock, settings = SystemClock(), Settings()
    store = SqlStore(folder / "sandgate.db")
    await store.open()
    passwords, accounts, keys = Passwords(), Accounts(store.users, clock), KeyRing(folder / "keys", clock)
    keys.open()
    tokens = Tokens(keys, clock, lifetime_s=3600)
    auth = _authenticator(store, accounts, passwords, tokens, clock)
    user = make_user("bench", "", Role.USER, clock)
    await store.users.insert(user)
    token = tokens.issue(user.user_id, clock.now()).access_token
    if arguments.store == "null":
        store.executions = _Unwritten(store.executions)
    shelf, runtime = AllTemplates(FakeTemplates()), FakeRuntime()
    files = SnapshotFiles(folder / "snapshots")
    service = EnvironmentService(store, runtime, shelf, clock, settings, snapshot_files=files)
    await service.start()
    row = await service.create(Principal(user.user_id, user.name, user.role), NewEnvironment("bench", "python"))
    sandboxes = RuntimeStepSandboxes(FakeRuntime(), FakeTemplates())
    workflows = WorkflowService(store, Engine(store, sandboxes, clock, "bench"), sandboxes, clock, settings)
    trail = AuditTrail(store.audit, AuditChain(b"measured"), store.users.find_by_name, clock)
    app = create_app(
        authenticator=auth,
        users=UserService(store.users, accounts, passwords, clock),
        environments=service,
        files=service.files,
        sessions=service.sessions,
        processes=service.processes,
        links=FileLinks(lambda purpose: purpose.encode(), accounts, clock),
        networks=service.network,
        ports=service.ports,
        port_links=SignedPortLinks(lambda purpose: purpose.encode(), accounts, clock),
        quotas=service.quotas,
        snapshots=service.snapshots,
        volumes=service.volumes,
        templates=make_builds(store, runtime, shelf, service, clock, settings, folder).service,
        secrets=SecretService(store.secrets, Sealer(keys), clock, settings),
        artifacts=ArtifactService(store, ArtifactFiles(folder / "artifacts"), clock, settings),
        workflows=workflows,
        schedules=ScheduleService(store, workflows, workflows, clock, settings, wake=lambda: None),
        webhooks=WebhookService(store, workflows, workflows, DerivedSecrets(folder / "keys"), clock, settings),
        idempotency=store.idempotency,
        audit=trail,
        audit_rows=store.audit,
        checks={},
        clock=clock,
        settings=settings,
    )
    sock, stop, started = socket.create_server(("127.0.0.1", 0)), asyncio.Event(), asyncio.Event()
    telling = asyncio.create_task(trail.run())
    serving = asyncio.create_task(serve(app, settings, sock, started=started.set, stop=stop, drain=service.stop))
    await started.wait()
    _collect_seldom()
    await _drive(arguments, sock.getsockname()[1], f"/api/v1/sandbox/environments/{row.environment_id}/execute", token)
    stop.set()
    telling.cancel()
    await serving
    passwords.close()
    await store.close()


def _collect_seldom() -> None:
    """As the server itself does."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def _drive(arguments: argparse.Namespace, port: int, path: str, token: str) -> None:
    ours, theirs = multiprocessing.Pipe()
    client = multiprocessing.Process(target=_send_requests, args=(port, path, token, arguments.requests, theirs))
    client.start()
    theirs.close()
    receive: Callable[[], Any] = ours.recv
    loop = asyncio.get_running_loop()
    profile = cProfile.Profile() if arguments.profile else None
    costs, answers = [], []
    for block in range(1 + arguments.requests // _BLOCK):
        await loop.run_in_executor(None, receive)
        before = time.process_time()
        with profile if profile is not None and block else contextlib.nullcontext():
            ours.send("go")
            times = await loop.run_in_executor(None, receive)
        if block:
            costs.append((time.process_time() - before) / _BLOCK * 1e6)
            answers += times
    client.join()
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)
    answers.sort()
    print(
        f"store {arguments.store}: {statistics.median(costs):.0f} us of the gateway's CPU for each execute "
        f"(best block {min(costs):.0f}); answer p50 {answers[len(answers) // 2] * 1e6:.0f} us, "
        f"p99 {answers[len(answers) * 99 // 100] * 1e6:.0f} us"
    )


def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--store", choices=["null", "sqlite"], default="null")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    set_up_logging("warning", "console")
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measure(arguments, Path(folder)))


if __name__ == "__main__":
    main()
