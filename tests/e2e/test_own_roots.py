"""Templates with a root file system of their own, which somebody has brought in a tar or an image archive."""

import hashlib
import io
import json
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, Server
from sandgate.sandbox.interpreters import find_interpreters
from tests.e2e.small_registry import HOST, Registry, serve_registry
from tests.e2e.small_roots import entry, sha256, small_root
from tests.e2e.test_templates import CLASSES, TEMPLATES, _log, _make, _reconnect, _run, until_built
from tests.e2e.waiting import until
from tests.runtime.hosts import descendants

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39]
_WORDS = "words of the root"
_RECIPE: dict[str, Any] = {
    "preload": ["of_root"],
    "env": {"MODE": "quick"},
    "setup": ["echo $MODE > mode"],
    "files": [{"path": "bin/greet", "content": "#!/bin/sh\necho hello\n", "executable": True}],
    "ready": "greet",
}


@pytest.fixture(scope="module")
def root() -> bytes:
    """A root file system with an interpreter, a shell, and some files."""
    found = find_interpreters(())["3.9"]
    more = [
        entry("etc/own.conf", b"conf"), entry("usr/share/words", _WORDS.encode()), entry("opt/own/file", b"opt"),
        entry("srv/file", b"srv"), entry("home/somebody/file", b"home"), entry("var/lib/own/file", b"var"),
        entry("in-the-root", b"top"), entry("tmp/never", b"tmp"), entry("workspace/never", b"no"),
        entry("var/run", target="/run"), entry("usr/local/lib/python3.9/site-packages/of_root.py", b"WORD = 'root'\n"),
    ]  # fmt: skip
    return small_root(found.prefix, "3.9", [(member, content.getvalue()) for member, content in more])


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    """A registry, with nothing in it yet."""
    with serve_registry() as serving:
        yield serving


@pytest.fixture(scope="module")
def server(registry: Registry) -> Iterator[Server]:
    """One with small bounds."""
    settings = {
        "SANDGATE_SPARE_SANDBOXES": "1",
        "SANDGATE_GVISOR_SPARE_SANDBOXES": "0",
        "SANDGATE_NETWORK_ALLOW_SPECIAL": HOST,
        "SANDGATE_INSECURE_REGISTRIES": registry.authority,
        "SANDGATE_MAX_TEMPLATE_ARCHIVE_BYTES": str(100 * 1024**2),
    }
    with Server(settings) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Connection]:
    """A connection of the admin's."""
    with server.connect() as connection:
        yield connection


def _begin(client: Connection, name: str, archive: bytes, **recipe: Any) -> dict[str, Any]:
    body = {"base": {"tar": sha256(archive)}, **recipe, "name": name}
    begun: dict[str, Any] = client.expect(201, "POST", TEMPLATES, body)
    return begun


def _upload(server: Server, name: str, archive: bytes, token: str = "") -> tuple[int, dict[str, Any]]:
    answer = httpx.put(
        f"http://127.0.0.1:{server.port}{TEMPLATES}/{name}/archive",
        content=archive,
        headers={"Authorization": f"Bearer {token or server.token}"},
        timeout=60,
    )
    return answer.status_code, answer.json()


def _build(server: Server, client: Connection, name: str, archive: bytes, **recipe: Any) -> dict[str, Any]:
    begun = _begin(client, name, archive, **recipe)
    if begun["awaits_upload"]:
        status, said = _upload(server, name, archive)
        assert status == 200, said
    return until_built(client, name)


def _folders(server: Server) -> set[str]:
    return {path.name for path in (server.state / "templates" / "layers").glob("*")}


@pytest.fixture(scope="module")
def built(server: Server, root: bytes) -> dict[str, Any]:
    """A template of it."""
    with server.connect() as client:
        row = _build(server, client, "own", root, **_RECIPE)
        assert row["status"] == "ready", _log(client, "own")
        return row


_LOOK = """
import json, os, subprocess, sys
def read(path):
    with open(path) as file:
        return file.read()
def refusal(path):
    try:
        open(path, "w")
    except OSError as error:
        return error.strerror
import of_root, pwd
for path in ("/workspace/f", "/tmp/f", "/home/user/f"):
    open(path, "w").close()
print(json.dumps({
    "words": read("/usr/share/words"), "conf": read("/etc/own.conf"), "opt": read("/opt/own/file"),
    "srv": read("/srv/file"), "home": read("/home/somebody/file"), "var": read("/var/lib/own/file"),
    "top": read("/in-the-root"), "mode": read("/opt/template/mode").strip(), "run": os.readlink("/var/run"),
    "tmp": os.listdir("/tmp"), "workspace": os.listdir("/workspace"), "user": pwd.getpwuid(os.getuid()).pw_name,
    "of_root": of_root.WORD, "greet": subprocess.check_output(["greet"], text=True).strip(),
    "refused": sorted({refusal(path) for path in ("/usr/x", "/etc/x", "/opt/own/x", "/opt/template/x", "/srv/x")}),
    "programs": sorted(os.listdir("/usr/bin")), "prefix": sys.prefix, "etc": sorted(os.listdir("/etc")),
}))
"""


@pytest.mark.parametrize("isolation", CLASSES)
def test_environments_have_the_root_and_nothing_of_the_machines(
    built: dict[str, Any], client: Connection, isolation: str
) -> None:
    """Its files, its interpreter with its packages; read-only, but where environments have places of their own."""
    environment_id = _make(client, "own", isolation=isolation)
    said = json.loads(_run(client, environment_id, _LOOK))
    assert said.pop("refused") in (["Read-only file system"], ["Permission denied"])
    assert said == {
        "words": _WORDS, "conf": "conf", "opt": "opt", "srv": "srv", "home": "home", "var": "var", "top": "top",
        "mode": "quick", "run": "/run", "tmp": ["f"], "workspace": ["f"], "user": "user", "of_root": "root",
        "greet": "hello", "programs": ["sh"], "prefix": "/opt/template",
        "etc": ["group", "hosts", "own.conf", "passwd", "resolv.conf"],
    }  # fmt: skip
    client.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")


def test_it_is_as_any_other_template(built: dict[str, Any], client: Connection, server: Server, root: bytes) -> None:
    """It says what it rests on, which interpreter it has, and what code can be written in."""
    assert (built["base"], built["awaits_upload"]) == ({"tar": sha256(root)}, False)
    assert built["language_version"].startswith("3.9.")
    assert built["languages"] == ["python", "bash"]
    assert built["size_bytes"] > 10**7
    assert _begin(client, "own", root, **_RECIPE)["template_id"] == built["template_id"]
    status, said = _upload(server, "own", b"x")
    assert (status, said["error"]["code"]) == (409, "NO_UPLOAD_AWAITED")


def test_one_root_is_that_of_many_and_goes_with_the_last(client: Connection, server: Server, root: bytes) -> None:
    """A second one of the same archive needs no upload, one upon it neither; files stay until nobody has them."""
    archive = root + b"\0" * 512
    before = _folders(server)
    first = _build(server, client, "first", archive, env={"A": "1"})
    second = _begin(client, "second", archive)
    assert not second["awaits_upload"]
    assert until_built(client, "second")["status"] == "ready", _log(client, "second")
    client.expect(201, "POST", TEMPLATES, {"name": "upon", "base": "first", "files": [{"path": "f", "content": "f"}]})
    upon = until_built(client, "upon")
    assert (upon["status"], upon["base"]) == ("ready", "first@1"), _log(client, "upon")
    (shared,) = [name for name in _folders(server) - before if name.startswith("root-")]
    for name in ("first", "second"):
        client.expect(200, "DELETE", f"{TEMPLATES}/{name}")
    assert shared in _folders(server)
    environment_id = _make(client, "upon")
    said = _run(client, environment_id, "import os\nprint(os.environ['A'], open('/opt/template/f').read(), end='')")
    assert said == "1 f"
    refused = client.request("DELETE", f"{TEMPLATES}/upon")
    assert refused.json()["error"]["code"] == "TEMPLATE_IN_USE"
    client.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")
    client.expect(200, "DELETE", f"{TEMPLATES}/upon")
    until(lambda: _folders(server) == before, "nothing is left")
    assert first["template_id"] not in before


def test_an_upload_that_is_wrong_is_refused_and_the_right_one_taken(
    client: Connection, server: Server, root: bytes
) -> None:
    """One of another digest, one that is too large; nothing of them stays."""
    archive = root + b"\0" * 1024
    before = _folders(server)
    assert _begin(client, "waits", archive)["awaits_upload"]
    status, said = _upload(server, "waits", root)
    assert (status, said["error"]["code"]) == (400, "VALIDATION_FAILED")
    assert sha256(root) in said["error"]["details"]["fields"][0]["problem"]
    status, said = _upload(server, "waits", b"\0" * (100 * 1024**2 + 1))
    assert (status, said["error"]["code"]) == (413, "RECIPE_TOO_LARGE")
    until(lambda: _folders(server) == before, "nothing is left")
    assert client.expect(200, "GET", f"{TEMPLATES}/waits")["awaits_upload"]
    assert _upload(server, "waits", archive)[0] == 200
    assert until_built(client, "waits")["status"] == "ready"
    client.expect(200, "DELETE", f"{TEMPLATES}/waits")
    until(lambda: _folders(server) == before, "nothing is left")


def _tar(*files: tuple[tarfile.TarInfo, io.BytesIO]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member, content in files:
            tar.addfile(member, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("archive", "problem"),
    [
        (_tar(entry("usr/bin/sh", b"x")), "there is no python3 in its PATH"),
        (_tar(entry("usr/bin/python3", b"#!/nowhere\n")), "its root file system is of no use"),
        (b"no tar", "the archive cannot be used"),
        (_tar(entry("../out", b"x")), "is no path of a file"),
    ],
    ids=["none", "broken", "no tar", "out"],
)
def test_what_is_of_no_use_fails_with_the_reason(
    client: Connection, server: Server, archive: bytes, problem: str
) -> None:
    """And leaves nothing."""
    before = _folders(server)
    row = _build(server, client, "broken", archive)
    assert row["status"] == "failed"
    assert problem in row["status_reason"]
    until(lambda: _folders(server) == before, "nothing is left")
    client.expect(200, "DELETE", f"{TEMPLATES}/broken")


def test_an_interpreter_that_is_too_old_is_named(client: Connection, server: Server) -> None:
    """It could not even say what is wrong with the agent's files."""
    old = next(iter(sorted(Path.home().glob(".pyenv/versions/3.7.*"))), None)
    if old is None:
        pytest.skip("there is no Python 3.7 on this machine")
    row = _build(server, client, "old", small_root(str(old), "3.7"))
    assert "its python3 is Python 3.7" in row["status_reason"]
    client.expect(200, "DELETE", f"{TEMPLATES}/old")


def test_an_image_brings_its_variables_and_takes_away_what_it_says(
    client: Connection, server: Server, root: bytes
) -> None:
    """As ``docker save`` writes it: two layers, a configuration."""
    upper = _tar(entry("usr/share/.wh.words"), entry("app/run.py", b"print('app')"))
    config = json.dumps(
        {"config": {"Env": ["PATH=/usr/local/bin:/usr/bin", "OF_IMAGE=yes", "HOME=/root"], "WorkingDir": "/app"}}
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    layers = [f"{sha256(layer)}/layer.tar" for layer in (root, upper)]
    manifest = json.dumps([{"Config": name, "Layers": layers}]).encode()
    archive = _tar(
        entry(layers[0], root), entry(layers[1], upper), entry(name, config), entry("manifest.json", manifest)
    )
    row = _build(server, client, "image", archive)
    assert row["status"] == "ready", _log(client, "image")
    environment_id = _make(client, "image")
    code = "import os\nprint(os.environ['OF_IMAGE'], os.environ['HOME'], os.environ['PATH'], os.listdir('/usr/share'))"
    said = _run(client, environment_id, code)
    imported = "import os, run\nprint(os.getcwd(), os.environ['PWD'])"
    for isolation in ("standard", *(["gvisor"] if "gvisor" in row["isolations"] else [])):
        beside = _make(client, "image", isolation=isolation)
        assert _run(client, beside, imported) == "app\n/app /app\n"
        client.expect(200, "DELETE", f"{ENVIRONMENTS}/{beside}")
    assert said == "yes /home/user /opt/template/bin:/usr/local/bin:/usr/bin:/home/user/.local/bin []\n"
    client.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")
    client.expect(200, "DELETE", f"{TEMPLATES}/image")


def test_an_image_is_fetched_from_a_registry(client: Connection, registry: Registry, root: bytes) -> None:
    """By a tag, which is looked up again when that is asked for; the same image is fetched once."""
    config = {"config": {"Env": ["PATH=/usr/local/bin:/usr/bin", "OF_IMAGE=yes"]}}
    registry.add("1.0", [root], config)
    base = {"image": f"{registry.authority}/team/image:1.0"}
    client.expect(201, "POST", TEMPLATES, {"name": "fetched", "base": base})
    row = until_built(client, "fetched")
    assert (row["status"], row["base"], row["awaits_upload"]) == ("ready", base, False), _log(client, "fetched")
    environment_id = _make(client, "fetched")
    assert _run(client, environment_id, "import os\nprint(os.environ['OF_IMAGE'])") == "yes\n"
    client.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")
    fetched = len([path for path, _token in registry.asked if "/blobs/" in path])
    client.expect(201, "POST", TEMPLATES, {"name": "fetched", "base": base, "rebuild": True})
    assert until_built(client, "fetched")["version"] == 2
    assert len([path for path, _token in registry.asked if "/blobs/" in path]) == fetched == 2
    client.expect(200, "DELETE", f"{TEMPLATES}/fetched")
    client.expect(201, "POST", TEMPLATES, {"name": "gone", "base": {"image": f"{registry.authority}/team/image:2.0"}})
    assert "answers 404" in until_built(client, "gone")["status_reason"]
    client.expect(200, "DELETE", f"{TEMPLATES}/gone")


def test_others_do_not_get_what_a_digest_names(server: Server, built: dict[str, Any], root: bytes) -> None:
    """Who knows the digest of somebody's archive still has to have the archive."""
    with server.connect() as admin:
        admin.expect(
            201, "POST", "/api/v1/users", {"username": "other", "password": "long-enough-for-all", "role": "user"}
        )
        logged_in = admin.expect(
            200, "POST", "/api/v1/auth/token", {"username": "other", "password": "long-enough-for-all"}
        )
    with Connection(server.port, logged_in["access_token"]) as other:
        assert _begin(other, "mine", root)["awaits_upload"]
        said = _upload(server, "own", b"x", logged_in["access_token"])[1]
        assert said["error"]["code"] == "TEMPLATE_NOT_FOUND"
        other.expect(200, "DELETE", f"{TEMPLATES}/mine")


def test_a_killed_gateway_leaves_nothing_of_builds_and_keeps_the_rest(
    built: dict[str, Any], client: Connection, server: Server, root: bytes
) -> None:
    """Killed while one waits; of what was ready environments are made afterwards."""
    kept = _folders(server)
    _begin(client, "lost", root + b"\0" * 2048)
    (server.state / "templates" / "layers" / "root-half.tar").touch()
    (gateway,) = [pid for pid, (name, _parent) in descendants(server.pid).items() if name == "sg-gateway"]
    os.kill(gateway, signal.SIGKILL)
    with _reconnect(server) as again:
        until(lambda: _folders(server) == kept, "nothing is left")
        lost = again.expect(200, "GET", f"{TEMPLATES}/lost")
        assert (lost["status"], lost["awaits_upload"]) == ("failed", False)
        environment_id = _make(again, "own")
        assert _run(again, environment_id, "print(open('/usr/share/words').read(), end='')") == _WORDS
