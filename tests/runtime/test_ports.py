"""What listens in a sandbox, reached from outside."""

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from sandgate.core.errors import SandboxFailed
from tests.runtime.hosts import Bench, LauncherHost, until

_SERVER = """
import socket
server = socket.create_server(({address!r}, 8000), family=socket.{family}, backlog=8)
print("there", flush=True)
while True:
    connection, peer = server.accept()
    connection.sendall(connection.recv(100).upper() + repr(peer[0]).encode())
    connection.close()
"""
pytestmark = pytest.mark.needs_root_namespaces


async def _until_listening(walled: Bench, sandbox: object, port: int = 8000) -> None:
    """Wait by looking from inside, which disturbs nothing."""
    probe = f"answer = any(int(line.split()[1].split(':')[1], 16) == {port} and line.split()[3] == '0A'"
    probe += " for name in ('tcp', 'tcp6') for line in open('/proc/net/' + name).readlines()[1:])"
    while not await walled.ask(sandbox, probe):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize(("address", "family"), [("127.0.0.1", "AF_INET"), ("::1", "AF_INET6"), ("0.0.0.0", "AF_INET")])
async def test_server_inside(walled: Bench, address: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reached whichever loopback it listens on, and sees its own loopback."""
    sandbox = await walled.make()
    serving = sandbox.execute(walled.request(_SERVER.format(address=address, family=family)))
    await _until_listening(walled, sandbox)
    stream = await sandbox.network.dial(8000)
    await stream.send(b"hello")
    said = b""
    while part := await stream.receive():
        said += part
    stream.close()
    assert said == b"HELLO" + (b"'::1'" if ":" in address else b"'127.0.0.1'")
    # It answers when all of it is dead, however long the kernel takes.
    monkeypatch.setattr("sandgate.sandbox.execution._CONFIRM_S", 20.0)
    serving.cancel()
    await serving.wait()
    with pytest.raises(ConnectionRefusedError):
        await sandbox.network.dial(8000)


async def test_nothing_but_its_own_loopback(walled: Bench) -> None:
    """What listens on the host, or in a neighbour, at the same port is not reached."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        first, second = await walled.make(), await walled.make()
        code = _SERVER.format(address="127.0.0.1", family="AF_INET")
        serving = first.execute(walled.request(code))
        await _until_listening(walled, first)
        for number in (port, 8000):
            with pytest.raises(ConnectionRefusedError):
                await second.network.dial(number)
        serving.cancel()
        await serving.wait()


async def test_one_that_takes_nobody(walled: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks is told in good time, and the launcher waits for nothing."""
    sandbox = await walled.make()
    code = "import socket, time\nserver = socket.create_server(('127.0.0.1', 8000), backlog=0)\ntime.sleep(60)"
    sandbox.execute(walled.request(code))
    await _until_listening(walled, sandbox)
    streams = [await sandbox.network.dial(8000)]
    monkeypatch.setattr("sandgate.sandbox.inner_network._CONNECT_LIMIT_S", 0.1)
    with suppress(ConnectionRefusedError):
        streams.append(await sandbox.network.dial(8000))
    with pytest.raises(ConnectionRefusedError):
        await sandbox.network.dial(8000)
    assert await walled.works(sandbox)
    for stream in streams:
        stream.close()


async def test_nothing_is_left(walled: Bench) -> None:
    """Neither of connections nor of those that came to nothing; a sandbox that ends takes its connections along."""
    descriptors = Path(f"/proc/{walled.host.process.pid}/fd")
    sandbox = await walled.make()
    sandbox.execute(walled.request(_SERVER.format(address="127.0.0.1", family="AF_INET")))
    await _until_listening(walled, sandbox)
    held = _count(descriptors)
    streams = [await sandbox.network.dial(8000) for _ in range(4)]
    for _each in range(20):
        with pytest.raises(ConnectionRefusedError):
            await sandbox.network.dial(9000)
    await until(lambda: _count(descriptors) <= held)
    await walled.runtime.destroy(sandbox.environment_id)
    for stream in streams:
        async with asyncio.timeout(60):
            with suppress(ConnectionError):
                assert await stream.receive() == b""
        stream.close()
    with pytest.raises(SandboxFailed):
        await sandbox.network.dial(8000)


def _count(folder: Path) -> int:
    return len(list(folder.iterdir()))


async def test_class_without(process_host: LauncherHost) -> None:
    """Of the process class the loopback is the machine's: it is not reached, whatever listens there."""
    bench = Bench(process_host, process_host.runtime())
    await bench.runtime.start(bench.on_end)
    sandbox = await bench.make()
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(SandboxFailed):
        await sandbox.network.dial(listener.getsockname()[1])
    await bench.runtime.destroy(sandbox.environment_id)
    await bench.runtime.stop(keep_sandboxes=True)
