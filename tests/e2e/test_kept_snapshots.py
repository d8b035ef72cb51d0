"""Snapshots that earlier versions have kept: what is written today has to be of use to every later one.

Each file of kept_snapshots is one: its row, and its file, packed. They were kept of ``TREE`` by the version and in the
class that they are called after, and are never made anew: a version that keeps something else gets files beside them.
"""

import gzip
import json
import os
import sqlite3
from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, Server, create, delete, execute
from tests.abilities import ABILITIES

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39]
KEPT = sorted((Path(__file__).parent / "kept_snapshots").glob("*.json"))
SNAPSHOTS = "/api/v1/sandbox/snapshots"
CLASSES = ["standard", *([] if ABILITIES["needs_gvisor"].find_lack() else ["gvisor"])]
TREE = r"""
import os, time
os.makedirs('deep/empty')
with open('deep/text', 'w') as file: file.write('kept\n')
os.chmod('deep/text', 0o640)
os.utime('deep/text', ns=(10**18, 1_234_567_890_123_456_789))
os.link('deep/text', 'other-name')
os.symlink('deep/text', 'link')
os.mkfifo('pipe')
open('p\u00e4th with\n\u2603', 'w').close()
open(b'odd \xff', 'w').close()
os.makedirs('l' * 120)
open('l' * 120 + '/' + 'm' * 120, 'w').write('long')
with open('sparse', 'wb') as file:
    file.truncate(1 << 20)
    file.seek(1 << 19)
    file.write(b'middle')
os.mkdir('closed')
open('closed/in', 'w').write('in')
os.chmod('closed', 0o500)
os.chmod('closed/in', 0)
open('/home/user/.own', 'w').write('home')
open('/tmp/t', 'w').write('tmp')
"""
_LOOK = r"""
import json, os, stat
def look(path):
    status = os.lstat(path)
    return [stat.filemode(status.st_mode), status.st_nlink, status.st_mtime_ns // 1000]
found = {}
for folder, folders, names in os.walk(b'.'):
    for name in folders + names:
        found[ascii(os.path.join(folder, name))] = stat.filemode(os.lstat(os.path.join(folder, name)).st_mode)
os.chmod('closed/in', 0o400)
texts = [open(path).read() for path in ('deep/text', 'link', 'closed/in', '/home/user/.own', '/tmp/t')]
sparse = open('sparse', 'rb').read()
whole = sparse == bytes(1 << 19) + b'middle' + bytes((1 << 19) - 6)
print(json.dumps([found, texts, whole, look('other-name'), open('l' * 120 + '/' + 'm' * 120).read()]))
"""
_MODES = {
    "deep": "drwxr-xr-x", "deep/empty": "drwxr-xr-x", "deep/text": "-rw-r-----", "other-name": "-rw-r-----",
    "link": "lrwxrwxrwx", "pipe": "prw-r--r--", "p\\xc3\\xa4th with\\n\\xe2\\x98\\x83": "-rw-r--r--",
    "odd \\xff": "-rw-r--r--", "l" * 120: "drwxr-xr-x", f"{'l' * 120}/{'m' * 120}": "-rw-r--r--",
    "sparse": "-rw-r--r--", "closed": "dr-x------", "closed/in": "----------",
}  # fmt: skip
_FOUND = {f"b'./{path}'": mode for path, mode in _MODES.items()}
_TEXTS = ["kept\n", "kept\n", "in", "home", "tmp"]
_MTIME_US = 1_234_567_890_123_456


def _take(server: Server, path: Path, owner: Mapping[str, Any]) -> str:
    """Have a snapshot as if an earlier version of this server, which stands still, had left it; its id."""
    kept = json.loads(path.read_text())
    row = {**kept["row"], **owner, "sha256": bytes.fromhex(kept["row"]["sha256"])}
    snapshot_id: str = row["snapshot_id"]
    folder = server.state / "snapshots"
    file = folder / f"{snapshot_id}.tar"
    file.write_bytes(gzip.decompress(b64decode(kept["archive"])))
    os.chown(file, folder.stat().st_uid, folder.stat().st_gid)
    with sqlite3.connect(server.state / "sandgate.db") as database:
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        database.execute(f"INSERT INTO snapshots ({names}) VALUES ({marks})", tuple(row.values()))
    database.close()
    return snapshot_id


@pytest.fixture(scope="module")
def upgraded() -> Iterator[tuple[Server, Mapping[str, str]]]:
    """A server that finds them when it starts, and the id of each by the name of its file."""
    with Server() as server:
        with server.connect() as connection:
            made = create(connection)
            connection.expect(201, "POST", f"{ENVIRONMENTS}/{made}/snapshots", {})
            delete(connection, made)
        server.stop_process()
        with sqlite3.connect(server.state / "sandgate.db") as database:
            owner, place = database.execute("SELECT owner_id, server_id FROM snapshots").fetchone()
        database.close()
        ids = {path.name: _take(server, path, {"owner_id": owner, "server_id": place}) for path in KEPT}
        server.start()
        yield server, ids


@pytest.fixture
def connection(upgraded: tuple[Server, Mapping[str, str]]) -> Iterator[Connection]:
    """Of the admin's, whose they are."""
    with upgraded[0].connect() as connected:
        yield connected


@pytest.mark.parametrize("isolation", CLASSES)
@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_environments_begin_with_what_earlier_versions_have_kept(
    upgraded: tuple[Server, Mapping[str, str]], connection: Connection, path: Path, isolation: str
) -> None:
    """Names, permissions, times, links, pipes, holes and closed folders are as they were, in each class."""
    snapshot_id = upgraded[1][path.name]
    row = connection.expect(200, "GET", f"{SNAPSHOTS}/{snapshot_id}")
    assert (row["template"], row["files"], row["skipped"], row["metadata"]) == ("python-3.9", 9, 0, {"k": "v"})
    made = connection.expect(
        201, "POST", ENVIRONMENTS, {"name": "e", "snapshot_id": snapshot_id, "isolation": isolation}
    )
    ran = execute(connection, made["environment_id"], {"code": _LOOK})
    found, texts, is_whole, other, deep = json.loads(ran["stdout"])
    assert found == _FOUND
    assert (texts, is_whole, deep) == (_TEXTS, True, "long")
    assert other == ["-rw-r-----", 2, _MTIME_US]
    delete(connection, made["environment_id"])
