"""Folders of environments over HTTP, with clients and environments that go away in the middle."""

import http.client
import io
import json
import socket
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, Server, create, delete, execute
from tests.archive_files import LARGE, tar
from tests.e2e.waiting import until

pytestmark = pytest.mark.needs_root_namespaces

GROW = """
import os
os.mkdir('big')
for n in range(4):
    os.truncate(os.open(f'big/{n}', os.O_CREAT | os.O_WRONLY), 200 << 20)
"""
CHANGE = """
import os, time
os.makedirs('t/a/deep')
end = time.time() + 2
n = 0
while time.time() < end:
    n += 1
    try:
        with open(f't/f{n % 50}', 'wb') as file: file.write(bytes(n * 997 % 300_000))
        os.rename('t/a', 't/b'); os.symlink('/etc', 't/a'); os.remove('t/a'); os.rename('t/b', 't/a')
        os.mkfifo(f't/a/p{n % 7}'); os.truncate(f't/f{n * 7 % 50}', 5)
        os.remove(f't/f{n * 3 % 50}'); os.remove(f't/a/p{n * 3 % 7}')
    except OSError: pass
"""


def _names(connection: Connection, environment_id: str, path: str = ".") -> list[str]:
    listed = connection.expect(200, "GET", f"{ENVIRONMENTS}/{environment_id}/files?path={path}")
    return [each["name"] for each in listed["files"]]


@contextmanager
def _asked(server: Server, path: str) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with closing(connection):
        connection.request("GET", path, headers={"Authorization": f"Bearer {server.token}"})
        with connection.getresponse() as answer:
            yield answer


def test_a_part_of_an_archive_is_never_taken_for_the_whole(server: Server) -> None:
    """When its environment ends in the middle, the connection is cut off; one that is whole ends."""
    with server.connect() as connection:
        environment_id = create(connection)
        assert execute(connection, environment_id, {"code": GROW})["status"] == "completed"
        path = f"{ENVIRONMENTS}/{environment_id}/archive?path=big"
        with _asked(server, path) as answer:
            assert (answer.status, len(answer.read(1 << 20))) == (200, 1 << 20)
            delete(connection, environment_id)
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                answer.read()


def test_trees_that_change_are_packed_all_the_same(server: Server) -> None:
    """Whatever code does to them meanwhile, each archive is sound, and none of it is of another place."""
    with server.connect() as connection, server.connect() as other:
        environment_id = create(connection)
        body = {"code": CHANGE, "detach": True}
        connection.expect(200, "POST", f"{ENVIRONMENTS}/{environment_id}/execute", body)
        until(lambda: "t" in _names(other, environment_id), "a folder")
        for form in ("tar", "zip", "tar.gz") * 4:
            with _asked(server, f"{ENVIRONMENTS}/{environment_id}/archive?path=t&format={form}") as answer:
                content = answer.read()
            if form == "zip":
                with zipfile.ZipFile(io.BytesIO(content)) as packed:
                    assert packed.testzip() is None
                    names = packed.namelist()
            else:
                with tarfile.open(fileobj=io.BytesIO(content)) as unpacked:
                    names = unpacked.getnames()
            assert not [name for name in names if "passwd" in name]
        delete(connection, environment_id)


def test_an_upload_that_breaks_off_leaves_nothing(server: Server) -> None:
    """Soon after its client has gone, and nothing of what was there has changed."""
    with server.connect() as connection:
        environment_id = create(connection)
        connection.expect(200, "PUT", f"{ENVIRONMENTS}/{environment_id}/files/in/kept", {})
        archive = tar(("kept", b"new"), ("more", LARGE))
        head = (
            f"PUT {ENVIRONMENTS}/{environment_id}/archive?path=in HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {server.token}\r\nContent-Length: {len(archive)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head.encode() + archive[:-20_000])
            until(lambda: len(_names(connection, environment_id, "in")) == 2, "the folder that is filled first")
        until(lambda: _names(connection, environment_id, "in") == ["kept"], "what was there, and nothing else")
        delete(connection, environment_id)


def _watch(server: Server, environment_id: str) -> socket.socket | None:
    """One that has begun; None where there are too many."""
    head = (
        f"GET {ENVIRONMENTS}/{environment_id}/watch HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {server.token}\r\n\r\n"
    )
    client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    client.sendall(head.encode())
    begun = client.recv(12) == b"HTTP/1.1 200"
    _read_until(client, b"event: started" if begun else b"TOO_MANY_STREAMS")
    if begun:
        return client
    client.close()
    return None


def _read_until(client: socket.socket, mark: bytes) -> bytes:
    text = b""
    while mark not in text:
        part = client.recv(65_536)
        assert part, text
        text += part
    return text


def test_watches_end_with_their_clients(server: Server) -> None:
    """So that others can take their place; what one is told is true, and soon."""
    with server.connect() as connection:
        environment_id = create(connection)
        for _round in range(3):
            clients = [until(lambda: _watch(server, environment_id), "a place") for _ in range(4)]
            assert _watch(server, environment_id) is None
            for client in clients:
                client.close()
        client = until(lambda: _watch(server, environment_id), "a place")
        started = time.monotonic()
        execute(connection, environment_id, {"code": "open('seen', 'w').close()"})
        text = _read_until(client, b"event: created").decode()
        assert time.monotonic() - started < 20
        (data,) = [line for line in text.split("\n") if line.startswith("data:") and "seen" in line] or [
            _read_until(client, b"\n\n").decode()
        ]
        assert json.loads(data.partition("data: ")[2])["path"] == "seen"
        delete(connection, environment_id)
        assert b"event: ended" in _read_until(client, b"event: ended")
        client.close()
