"""What steps are given, what they leave, and what is kept of it, on a real server."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.client import Connection
from bench.sandgate_server import Server
from tests.e2e.test_workflows import code, start

pytestmark = [pytest.mark.needs_root_namespaces]
ORCHESTRATOR = "/api/v1/orchestrator"
FOLDER = "import os\nfolder = os.environ['SANDGATE_ARTIFACTS']\n"
CANARY = 'canary-"\\é-0123456789'
LINES = "-----BEGIN-----\ncanary-line-one-0123\ncanary-line-two-4567\n-----END-----"


def write(path: str, text: str) -> str:
    """Code that leaves a file."""
    name = f"folder + '/{path}'"
    return f"os.makedirs(os.path.dirname({name}), exist_ok=True)\nopen({name}, 'w').write({text})\n"


def artifacts_of(connection: Connection, run: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
    """The list of a run, by step, attempt and path."""
    path = f"{ORCHESTRATOR}/runs/{run['run_id']}/artifacts{query}"
    found: list[dict[str, Any]] = connection.expect(200, "GET", path)["artifacts"]
    return sorted(
        found, key=lambda artifact: (artifact["step"], artifact["item"], artifact["attempt"], artifact["path"])
    )


def error_of(run: dict[str, Any]) -> dict[str, str]:
    """Why the first step failed."""
    assert run["steps"][0]["status"] == "failed", run
    error: dict[str, str] = run["steps"][0]["error"]
    return error


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    """A client that sends headers of its own."""
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as made:
        given = {"username": "admin", "password": server.password}
        token = made.post("/api/v1/auth/token", json=given).json()["access_token"]
        made.headers["Authorization"] = f"Bearer {token}"
        yield made


def download(client: httpx.Client, artifact: dict[str, Any], method: str = "GET", **headers: str) -> httpx.Response:
    """The answer to a download."""
    path = f"{ORCHESTRATOR}/runs/{artifact['run_id']}/artifacts/{artifact['artifact_id']}"
    return client.request(method, path, headers=headers)


def test_what_steps_leave_can_be_downloaded(server: Server, client: httpx.Client) -> None:
    """Listed with step, item and attempt; whole, and in parts."""
    with server.connect() as connection:
        run = start(
            connection,
            code(
                "a",
                FOLDER
                + write("one.txt", "'x' * 300_000")
                + write("sub/\U0001f40d é.txt", "'y'")
                + write("empty", "''"),
            ),
            code(
                "b",
                FOLDER + write("z", "str(inputs['n'])"),
                "a",
                foreach=[1, 2],
                config={"inputs": {"n": "${{ item }}"}},
            ),
        )
        assert run["status"] == "succeeded", run
        found = artifacts_of(connection, run)
        assert [(row["step"], row["item"], row["attempt"], row["path"], row["size_bytes"]) for row in found] == [
            ("a", None, 1, "empty", 0), ("a", None, 1, "one.txt", 300_000), ("a", None, 1, "sub/\U0001f40d é.txt", 1),
            ("b", 0, 1, "z", 1), ("b", 1, 1, "z", 1),
        ]  # fmt: skip
        assert artifacts_of(connection, run, "?step=b") == found[3:]
        whole = download(client, found[1])
        assert (whole.status_code, whole.content) == (200, b"x" * 300_000)
        assert found[1]["sha256"] == hashlib.sha256(whole.content).hexdigest()
        assert download(client, found[0]).content == b""
        assert download(client, found[4]).content == b"2"
        part = download(client, found[1], Range="bytes=299998-")
        assert (part.status_code, part.content) == (206, b"xx")
        assert part.headers["content-range"] == "bytes 299998-299999/300000"
        head = download(client, found[1], "HEAD")
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "300000", b"")
        assert download(client, found[1], **{"If-None-Match": head.headers["etag"]}).status_code == 304
        assert download(client, found[1]).status_code == 200


def test_a_failed_attempt_keeps_what_it_left(server: Server, client: httpx.Client) -> None:
    """Each of several attempts, and one that was killed, which could not say so."""
    bad = FOLDER + write("log", "os.environ['SANDGATE_ATTEMPT']") + "1 / 0"
    killed = FOLDER + write("log", "'killed'") + "import time\nprint('left', flush=True)\ntime.sleep(60)"
    with server.connect() as connection:
        run = start(connection, code("bad", bad, retry={"max_attempts": 2, "delay": 0}))
        assert error_of(run)["name"] == "ZeroDivisionError"
        found = artifacts_of(connection, run)
        assert [(row["attempt"], download(client, row).content) for row in found] == [(1, b"1"), (2, b"2")]
        for timeout in (4, 30):
            run = start(connection, code("slow", killed, timeout=timeout))
            if run["steps"][0]["stdout"]:
                # Otherwise its time was over before it had left anything, on a busy machine.
                break
        (row,) = artifacts_of(connection, run)
        assert (run["steps"][0]["status"], download(client, row).content) == ("timed_out", b"killed")


HOSTILE = {
    "link": ("os.symlink('/etc/passwd', folder + '/x')", "'x' is a symbolic link"),
    "link to a folder": ("os.symlink('/etc', folder + '/x')", "'x' is a symbolic link"),
    "the folder itself": ("os.rmdir(folder); os.symlink('/etc', folder)", "is not a folder"),
    "a file in its place": ("os.rmdir(folder); open(folder, 'w')", "is not a folder"),
    "pipe": ("os.mkfifo(folder + '/x')", "'x' is a named pipe"),
    "socket": ("import socket; socket.socket(socket.AF_UNIX).bind(folder + '/x')", "'x' is a socket"),
    "line end in a name": ("open(folder + '/a\\nb', 'w')", "has a control character in its name"),
    "bytes in a name": ("open(folder.encode() + b'/\\xff', 'w')", "is not UTF-8"),
    "many": ("[open(f'{folder}/{n}', 'w').close() for n in range(50_000)]", "there are more than 1000 files"),
    "many folders": ("[os.mkdir(f'{folder}/{n}') for n in range(1500)]", "there are more than 1000 folders"),
    "deep": ("p = folder\nfor _ in range(700): p += '/d'; os.mkdir(p)\nopen(p + '/x', 'w')", "a path is longer"),
    "sparse": ("f = open(folder + '/x', 'w'); f.truncate(200 << 20)", "larger than 67108864 bytes"),
    "large together": (
        "for n in range(3):\n    f = open(f'{folder}/{n}', 'w'); f.truncate(60 << 20)", "larger than 134217728 bytes"
    ),
    "secret from its owner": ("open(folder + '/x', 'w'); os.chmod(folder + '/x', 0)", "cannot be read"),
    "a lie about the number": ("os.write(63, b'\\x02'); open(folder + '/x', 'w'); os._exit(0)", "did not arrive"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_kept_fails_the_step(server: Server, name: str) -> None:
    """With an error that names it; nothing is half kept, on the disk neither."""
    hostile, problem = HOSTILE[name]
    with server.connect() as connection:
        run = start(
            connection,
            code("a", FOLDER + write("a0", "'x'") + hostile if "folder)" not in hostile else FOLDER + hostile),
        )
        assert problem in error_of(run)["value"], run
        assert artifacts_of(connection, run) == []
    assert not list((server.state / "artifacts").glob(f"{run['run_id']}/*"))


def test_names_that_look_odd_are_kept_as_they_are(server: Server, client: httpx.Client) -> None:
    """Two names of one file are two files; dots and quotes are ordinary."""
    odd = FOLDER + write("..a/b..", "'1'") + "os.link(folder + '/..a/b..', folder + '/\"q\\\\\\'%.txt')"
    with server.connect() as connection:
        found = artifacts_of(connection, start(connection, code("a", odd)))
        assert {row["path"]: download(client, row).content for row in found} == {"..a/b..": b"1", "\"q\\'%.txt": b"1"}


@pytest.fixture(scope="module")
def run_with_secrets(server: Server) -> Iterator[dict[str, Any]]:
    """A run whose steps show two secrets in every way that they can think of."""
    with server.connect() as connection:
        for name, value in (("TOKEN", CANARY), ("KEY", LINES)):
            connection.expect(200, "PUT", f"{ORCHESTRATOR}/secrets/{name}", {"value": value})
        show = (
            "import json, os, sys, subprocess\nt, k = os.environ['T'], inputs['k']\n"
            "assert os.environ['ALL'] == t and len(t) == 21 and k.count('\\n') == 3\n"
            "print(t, json.dumps(t), repr(t), k, json.dumps(k))\n"
            "print(k.split('\\n')[1], file=sys.stderr)\n"
            "for sign in t: os.write(1, sign.encode())\n"
            "print('x' * 1_048_000 if inputs.get('long') else '', end=t * 100)\n"
            "outputs.update({t: t, 'list': [t, {'k': k}]})\n"
        )
        given = {"env": {"T": "${{ secrets.TOKEN }}"}, "config": {"inputs": {"k": "${{ secrets.KEY }}"}}}
        long = {**given, "config": {"inputs": {"k": "${{ secrets.KEY }}", "long": True}}}
        or_else = "${{ default(secrets.MISSING, 1) }}"
        run = start(
            connection,
            code("shows", show, **given),
            code("long", show, **long),
            code("fails", show + "class E(Exception): pass\nE.__name__ = t\nraise E(t, k)", **given),
            code("names", "", config={"inputs": {"x": "${{ inputs[secrets.TOKEN] }}"}}),
            code("part", "", config={"inputs": {"x": "${{ inputs[split(secrets.TOKEN, '-')[1]] }}"}}),
            code("other", "", config={"inputs": {"x": "${{ secrets.MISSING }}"}}),
            code("default", "outputs['x'] = inputs['x']", config={"inputs": {"x": or_else}}),
            env={"ALL": "${{ secrets.TOKEN }}"},
        )  # fmt: skip
        yield run


def test_secrets_reach_steps_and_nothing_that_is_shown(run_with_secrets: dict[str, Any]) -> None:
    """Each step did what it should, and nothing of it shows a value."""
    steps = {step["name"]: step for step in run_with_secrets["steps"]}
    assert steps["shows"]["status"] == "succeeded", steps["shows"]
    assert steps["shows"]["outputs"] == {"***": "***", "list": ["***", {"k": "***"}]}
    assert steps["shows"]["stdout"].startswith('*** "***" \'***\' *** "***"\n***')
    assert steps["shows"]["stderr"] == "***\n"
    assert steps["fails"]["error"]["name"] == "***"
    assert steps["other"]["error"]["value"].startswith("There is no secret `MISSING`; PUT")
    assert steps["default"]["outputs"] == {"x": 1}
    for name in ("names", "part"):
        assert steps[name]["error"]["name"] == "ExpressionError"
    text = json.dumps(run_with_secrets, ensure_ascii=False)
    # What else is shown has numbers, too, such as those of times.
    assert [part for part in ("canary", "-0123", "0123456789") if part in text] == []


def test_no_secret_is_written_anywhere(server: Server, run_with_secrets: dict[str, Any]) -> None:
    """Not into the database, its log, or any other file of the server; the key is for its owner only."""
    files = [Path(at, name) for at, _folders, names in os.walk(server.state) for name in names] + [server.log]
    read: dict[Path, bytes] = {}
    for path in files:
        # Some are made for a moment.
        with suppress(FileNotFoundError, IsADirectoryError):
            read[path] = path.read_bytes()
    assert any(path.name.endswith("-wal") for path in read)
    for path, data in read.items():
        for part in (b"canary-", b"line-one", b"line-two", b"BEGIN-----", b"0123456789"):
            assert part not in data, f"{path} has {part!r}"
    (key,) = (path for path in read if path.name.startswith("sealing-"))
    assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with sqlite3.connect(f"file:{server.state / 'sandgate.db'}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT name, key_id, length(sealed) FROM secrets ORDER BY name").fetchall()
    assert [(name, key_id) for name, key_id, _ in rows] == [("KEY", key.stem), ("TOKEN", key.stem)]


def test_a_process_list_shows_no_secret(server: Server) -> None:
    """Secrets travel through pipes, never through arguments or the variables that a process is started with."""
    with server.connect() as connection:
        connection.expect(200, "PUT", f"{ORCHESTRATOR}/secrets/SHY", {"value": "canary-shy-987654"})
        run = start(connection, code("a", "import time; time.sleep(60)", env={"S": "${{ secrets.SHY }}"}), wait=0)
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    data = (process / name).read_bytes()
                except OSError:
                    continue
                assert b"canary-shy" not in data, f"{process}/{name}"
        connection.expect(200, "POST", f"{ORCHESTRATOR}/runs/{run['run_id']}/cancel")
