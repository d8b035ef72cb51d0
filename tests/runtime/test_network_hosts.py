"""Which of the hosts that are named are reached, by what their names mean, and for how long."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sandgate.core.network import NetworkReport, NetworkRules, Verdict
from sandgate.sandbox import proxy_process
from sandgate.sandbox.base import Sandbox
from tests.runtime.conftest import WALLED
from tests.runtime.hosts import Bench
from tests.runtime.worlds import HOST, OTHER, joined_to, serving

pytestmark = pytest.mark.needs_root_namespaces

_ASK = r"""
import os, socket
def connect(*sent):
    host, port = os.environ['http_proxy'].rpartition('/')[2].split(':')
    connection = socket.create_connection((host, int(port)), 30)
    connection.sendall(sent[0].encode())
    for data in sent[1:]:
        assert connection.recv(65536).startswith(b'HTTP/1.1 200')
        connection.sendall(data.encode())
    return connection
def tunnel(host):
    return f'CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n'
def get(host, path, before=''):
    return f'GET {before}{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n'
def ask(sent):
    with connect(sent) as connection:
        answer = b''.join(iter(lambda: connection.recv(65536), b'')).decode()
    head = answer.lower().split('\r\n')
    reasons = [line.split(': ')[1] for line in head if line.startswith('x-sandgate-reason: ')]
    return [int(answer.split()[1]), *reasons]
"""
Write = Callable[[str], None]
# Put in the place of the machine's own in what the proxy sees.
_WITH_HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'


@pytest.fixture(params=WALLED)
async def joined(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A runtime of each class that puts up walls, in turn."""
    async with joined_to(request.getfixturevalue(f"{request.param}_host")) as bench:
        yield bench


@pytest.fixture
def write_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Says what the proxy's own resolver finds in ``/etc/hosts`` from now on."""
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n")

    def start(arguments: list[str], **options: Any) -> subprocess.Popen[bytes]:
        apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _WITH_HOSTS, str(path)]
        return subprocess.Popen([*apart, *arguments], **options)

    patched = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr(proxy_process, "subprocess", patched)

    def write(text: str) -> None:
        path.write_text(text)

    return write


async def test_addresses_that_are_not_of_the_public_network(joined: Bench, write_hosts: Write) -> None:
    """A rule for one, or for a name that has one, is of no use: it is refused once it is known, and written down."""
    write_hosts("127.0.0.1 localhost name.test\n169.254.169.254 metadata.test\n::1 six.test\n")
    names = ["localhost", "name.test", "metadata.test", "six.test"]
    hosts = [*names, "127.0.0.1", "169.254.169.254", "10.0.0.1", "[::1]", "[::ffff:127.0.0.1]"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = [f"{host}:{listener.getsockname()[1]}" for host in hosts]
        sandbox = await joined.make()
        await sandbox.network.allow(NetworkRules.parse(asked), "user-1")
        ways = "(tunnel(host), get(host, '/', 'http://' + host))"
        code = f"{_ASK}answer = [ask(way) for host in {asked} for way in {ways}]"
        assert await joined.ask(sandbox, code) == [[403, "address_refused"]] * 2 * len(asked)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    report = await sandbox.network.report()
    assert {(each.verdict, each.reason) for each in report.connections} == {(Verdict.DENIED, "address_refused")}
    assert {each.host for each in report.connections} >= {"127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", *names}
    assert (report.totals.denied, report.totals.allowed, report.totals.failed) == (2 * len(asked), 0, 0)


async def test_name_that_means_another_address_later(joined: Bench, write_hosts: Write) -> None:
    """It is judged anew by what it means now, for every connection."""
    sandbox = await joined.make()
    with serving() as world:
        host = f"moving.test:{world.port}"
        await sandbox.network.allow(NetworkRules.parse([host]), "user-1")
        asking = f"{_ASK}answer = ask(get({host!r}, '/', 'http://{host}'))"
        write_hosts(f"{HOST} moving.test\n")
        assert await joined.ask(sandbox, asking) == [200]
        for address in ("169.254.169.254", "127.0.0.1"):
            write_hosts(f"{address} moving.test\n")
            assert await joined.ask(sandbox, asking) == [403, "address_refused"]
    reasons = [each.reason for each in (await sandbox.network.report()).connections]
    assert reasons == ["address_refused", "address_refused", "closed"]


async def _report_when(sandbox: Sandbox, holds: Callable[[NetworkReport], bool]) -> NetworkReport:
    async with asyncio.timeout(60):
        while not holds(report := await sandbox.network.report()):  # noqa: ASYNC110 - it is seen from outside
            await asyncio.sleep(0.005)
    return report


_HOLD_OPEN = f"""{_ASK}
def is_cut(connection):
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True
def begin(*sent):
    connection, heard = connect(*sent), b''
    while b'more' not in heard:
        heard += connection.recv(65536)
    return connection
forwarded = begin(get(here, '/endless', 'http://' + here))
tunnelled = begin(tunnel(here), get(here, '/endless'))
kept = begin(tunnel(there), get(there, '/endless'))
answer = [is_cut(forwarded), is_cut(tunnelled), ask(get(there, '/', 'http://' + there)), is_cut(kept)]
"""


async def test_open_connections_to_hosts_that_are_not_named_any_more(joined: Bench) -> None:
    """They are cut off, by tunnel or not, in the middle of what they say; others go on until there is no network."""
    sandbox = await joined.make()
    with serving(HOST) as here, serving(OTHER) as there:
        await sandbox.network.allow(NetworkRules.parse([here.at, there.at]), "user-1")
        code = f"here, there = {here.at!r}, {there.at!r}\n{_HOLD_OPEN}"
        asking = asyncio.ensure_future(joined.ask(sandbox, code))
        await _report_when(sandbox, lambda found: [each.received_bytes > 0 for each in found.connections] == [True] * 3)
        await sandbox.network.allow(there.rules, "user-1")
        report = await _report_when(sandbox, lambda found: (found.totals.open, found.totals.allowed) == (1, 4))
        assert [(each.host, each.verdict, each.reason) for each in reversed(report.connections)] == [
            (HOST, Verdict.ALLOWED, "rules_changed"),
            (HOST, Verdict.ALLOWED, "rules_changed"),
            (OTHER, Verdict.ALLOWED, ""),
            (OTHER, Verdict.ALLOWED, "closed"),
        ]
        await sandbox.network.close()
        assert await asking == [True, True, [200], True]
