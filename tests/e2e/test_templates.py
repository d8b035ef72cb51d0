"""Templates that are built on a real server, with an index of the tests' own, and environments of them."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, Server, execute
from tests.e2e.commands import CommandLine
from tests.e2e.small_wheels import HOST, PackageIndex, serve_index
from tests.e2e.test_cli import log_in
from tests.e2e.waiting import until
from tests.runtime.hosts import descendants

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39]
TEMPLATES = "/api/v1/sandbox/templates"
_LIMIT_S = 60.0
_SHOUT = "#!/bin/sh\ntr a-z A-Z < $1\necho $1 | sed 's/.*[.]/./'"
CLASSES = ("standard", pytest.param("gvisor", marks=pytest.mark.needs_gvisor))


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    """An index with three packages, one of which needs another."""
    with serve_index() as serving:
        serving.add("sandgate_one", "1.0", {"sandgate_one.py": "WORD = 'one'\n"})
        serving.add("sandgate_one", "2.0", {"sandgate_one.py": "WORD = 'two'\n"})
        needs = ("sandgate_one<2",)
        serving.add(
            "sandgate_top", "1.0", {"sandgate_top.py": "import sandgate_one\nWORD = sandgate_one.WORD\n"}, needs
        )
        yield serving


@pytest.fixture(scope="module")
def server(index: PackageIndex) -> Iterator[Server]:
    """One whose builds may reach the index."""
    settings = {
        "SANDGATE_NETWORK_ALLOW_SPECIAL": HOST,
        "SANDGATE_PACKAGE_INDEX": index.url,
        "SANDGATE_PACKAGE_HOSTS": "",
        "SANDGATE_SPARE_SANDBOXES": "1",
        "SANDGATE_GVISOR_SPARE_SANDBOXES": "1",
        "SANDGATE_TEMPLATE_IDLE_TIMEOUT_S": "1",
    }
    with Server(settings) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Connection]:
    """A connection of the admin's."""
    with server.connect() as connection:
        yield connection


def _build(client: Connection, name: str, **recipe: Any) -> dict[str, Any]:
    """Build one, to its end."""
    client.expect(201, "POST", TEMPLATES, {"base": "python-3.9", **recipe, "name": name})
    return until_built(client, name)


def until_built(client: Connection, name: str) -> dict[str, Any]:
    """The template, once its build is over."""
    deadline = time.monotonic() + _LIMIT_S
    while (built := client.expect(200, "GET", f"{TEMPLATES}/{name}"))["status"] == "building":
        assert time.monotonic() < deadline, built
        time.sleep(0.02)  # waits: for a build in other processes
    found: dict[str, Any] = built
    return found


def _log(client: Connection, name: str) -> str:
    text: str = client.expect(200, "GET", f"{TEMPLATES}/{name}/log")["log"]
    return text


def _make(client: Connection, template: str, **more: Any) -> str:
    made = client.expect(201, "POST", ENVIRONMENTS, {"name": "e", "template": template, **more})
    environment_id: str = made["environment_id"]
    return environment_id


def _run(client: Connection, environment_id: str, code: str) -> str:
    stdout: str = execute(client, environment_id, {"code": code})["stdout"]
    return stdout


@pytest.fixture(scope="module")
def whole(server: Server) -> dict[str, Any]:
    """A template with a bit of everything."""
    with server.connect() as client:
        built = _build(
            client,
            "whole",
            packages=["sandgate_top"],
            files=[
                {"path": "share/words.txt", "content": "words"},
                {"path": "bin/greet", "content": "#!/bin/sh\necho hello $MODE\n", "executable": True},
                {
                    "path": "bin/shout",
                    "content": "#!/bin/sh\ntr a-z A-Z < $1\necho $1 | sed 's/.*[.]/./'",
                    "executable": True,
                },
            ],
            languages={"loud.txt": "shout {file}"},
            ready="test hello = $(greet | cut -c-5)",
            env={"MODE": "quick"},
            setup=["greet > share/greeting.txt", "cd /opt/template/share && ln -s words.txt linked.txt"],
            preload=["sandgate_top", "json.tool"],
            limits={"memory_mb": 300},
        )
        assert built["status"] == "ready", _log(client, "whole")
        return built


@pytest.mark.parametrize("isolation", CLASSES)
def test_everything_of_a_recipe_is_in_its_environments(
    whole: dict[str, Any], client: Connection, isolation: str
) -> None:
    """Packages imported beforehand, files, variables, limits; and nothing of it can be changed."""
    code = """
import os, subprocess, sys
print("sandgate_top" in sys.modules, "json.tool" in sys.modules)
import sandgate_top
print(sandgate_top.WORD, open("/opt/template/share/linked.txt").read())
print(open("/opt/template/share/greeting.txt").read(), end="")
print(subprocess.check_output(["greet"], text=True), end="")
print(subprocess.check_output(["python", "-c", "import sandgate_top; print(sandgate_top.WORD)"], text=True), end="")
for change in (lambda: open("/opt/template/share/words.txt", "w"), lambda: os.unlink("/opt/template/bin/greet")):
    try:
        change()
    except OSError:
        print("kept")
"""
    environment_id = _make(client, "whole", isolation=isolation)
    out = _run(client, environment_id, code)
    assert out == "True True\none words\nhello quick\nhello quick\none\nkept\nkept\n"
    row = client.expect(200, "GET", f"{ENVIRONMENTS}/{environment_id}")
    assert (row["template"], row["isolation"], row["limits"]["memory_mb"]) == ("whole@1", isolation, 300)
    # Sessions and other languages are of the same.
    session = client.expect(201, "POST", f"{ENVIRONMENTS}/{environment_id}/sessions", {})["session_id"]
    words = {"code": "import sandgate_top as top; print(top.WORD)", "session_id": session}
    assert execute(client, environment_id, words)["stdout"] == "one\n"
    assert execute(client, environment_id, {"code": "greet", "language": "bash"})["stdout"] == "hello quick\n"
    assert execute(client, environment_id, {"code": "word\n", "language": "loud"})["stdout"] == "WORD\n.txt\n"
    client.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")


def test_what_was_installed_is_told(whole: dict[str, Any], client: Connection) -> None:
    """The lock has every package with its version and hash; the log what was done, in order, to its end."""
    assert (whole["version"], whole["base"], whole["packages"]) == (1, "python-3.9", ["sandgate_top"])
    assert whole["size_bytes"] > 0
    assert whole["files"] > 5
    lock = whole["lock"]
    assert "sandgate-top==1.0" in lock
    assert "sandgate-one==1.0" in lock
    assert lock.count("--hash=sha256:") >= 2
    log = _log(client, "whole")
    lines = [line for line in log.splitlines() if line.startswith("==")]
    assert [line.split()[1] for line in lines] == [
        "base", "file", "file", "file", "packages", "setup", "setup", "preload", "packing", *lines[9].split()[1:2],
        "trial", "ready:", "ready",
    ]  # fmt: skip
    listed = client.expect(200, "GET", TEMPLATES)["templates"]
    (row,) = [each for each in listed if each["name"] == "whole"]
    assert (row["status"], row["lock"]) == ("ready", None)


def test_only_what_has_changed_is_built(whole: dict[str, Any], client: Connection, index: PackageIndex) -> None:
    """The same recipe is the same template; another one, or one that is to be built again, is the next version."""
    before = len(index.asked)
    first = _build(client, "again", packages=["sandgate_one==1.0"])
    same = client.expect(
        201, "POST", TEMPLATES, {"name": "again", "base": "python-3.9", "packages": ["sandgate_one==1.0"]}
    )
    assert (same["version"], same["template_id"], same["status"]) == (1, first["template_id"], "ready")
    asked = len(index.asked)
    assert asked > before
    second = _build(client, "again", packages=["sandgate_one==2.0"])
    third = _build(client, "again", packages=["sandgate_one==2.0"], rebuild=True)
    assert (second["version"], third["version"], second["digest"] == third["digest"]) == (2, 3, True)
    words = {}
    for reference in ("again", "again@1", "again@2"):
        environment_id = _make(client, reference)
        words[reference] = _run(client, environment_id, "import sandgate_one; print(sandgate_one.WORD)")
        client.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")
    assert words == {"again": "two\n", "again@1": "one\n", "again@2": "two\n"}
    versions = client.expect(200, "GET", f"{TEMPLATES}?name=again")["templates"]
    assert [each["version"] for each in versions] == [3, 2, 1]
    assert client.expect(200, "DELETE", f"{TEMPLATES}/again@2")["versions"] == [2]
    assert client.expect(200, "DELETE", f"{TEMPLATES}/again")["versions"] == [1, 3]
    client.expect(404, "GET", f"{TEMPLATES}/again")


def test_one_is_built_upon_another(whole: dict[str, Any], client: Connection) -> None:
    """With all that it has, and what is new; it needs the other one no more when it is built."""
    below = _build(
        client, "below", files=[{"path": "f", "content": "below"}], env={"A": "1", "B": "1"}, preload=["wave"]
    )
    assert below["status"] == "ready"
    above = _build(
        client, "above", base="below", packages=["sandgate_one==2.0"], env={"B": "2"}, preload=["sandgate_one"],
        setup=["cp f g"],
    )  # fmt: skip
    assert (above["status"], above["base"]) == ("ready", "below@1"), _log(client, "above")
    client.expect(200, "DELETE", f"{TEMPLATES}/below")
    environment_id = _make(client, "above")
    code = """
import os, sys, sandgate_one
print(open("/opt/template/f").read(), open("/opt/template/g").read(), os.environ["A"], os.environ["B"])
print("wave" in sys.modules, sandgate_one.WORD, os.path.exists("/opt/base"))
"""
    assert _run(client, environment_id, code) == "below below 1 2\nTrue two False\n"
    client.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")
    client.expect(200, "DELETE", f"{TEMPLATES}/above")
    refused = client.expect(400, "POST", TEMPLATES, {"name": "above", "base": "below"})["error"]
    assert refused["code"] == "UNKNOWN_TEMPLATE"


@pytest.mark.parametrize("isolation", CLASSES)
def test_one_in_use_is_not_deleted(client: Connection, server: Server, isolation: str) -> None:
    """Until its environments are gone; then nothing of it is left, and its number is not given again."""
    built = _build(client, "used")
    layers = server.state / "templates" / "layers"
    assert (layers / built["template_id"]).is_dir()
    environment_id = _make(client, "used", isolation=isolation)
    error = client.expect(409, "DELETE", f"{TEMPLATES}/used")["error"]
    assert (error["code"], error["details"]["environments"]) == ("TEMPLATE_IN_USE", 1)
    assert _run(client, environment_id, "print(1)") == "1\n"
    client.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")
    client.expect(200, "DELETE", f"{TEMPLATES}/used")
    assert not (layers / built["template_id"]).exists()
    assert _build(client, "used")["version"] == built["version"] + 1
    client.expect(200, "DELETE", f"{TEMPLATES}/used")


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ({"setup": ["echo on the way; exit 7"]}, "setup command 1 failed with exit code 7: on the way"),
        ({"preload": ["sandgate_missing"]}, "preload failed with exit code 1: ModuleNotFoundError"),
        ({"packages": ["sandgate_unknown"]}, "packages failed"),
        ({"packages": ["sandgate_one==9"]}, "packages failed"),
        ({"ready": "echo not yet; exit 4"}, "the ready command failed with exit code 4: not yet"),
        ({"languages": {"odd": "no-such-program {file}"}}, "languages: there is no program no-such-program"),
        ({"setup": ["mkfifo pipe"], "preload": []}, None),
        # What dies, or never answers, in the process that environments are forked from.
        ({"files": [_file := {"path": "lib/python3.9/site-packages/dies.py",
                              "content": "import os, sys\nif 'sandgate_agent' in sys.modules: os._exit(3)\n"}],
          "preload": ["dies"]}, "no environment can be made from it"),
    ],
)  # fmt: skip
def test_a_build_that_goes_wrong_says_why(client: Connection, recipe: dict[str, Any], reason: str | None) -> None:
    """Its status is failed, with the reason; no environment can be made of it, and everything else goes on."""
    built = _build(client, "wrong", **recipe)
    if reason is None:
        # What an archive cannot hold is left out.
        assert built["status"] == "ready"
        client.expect(200, "DELETE", f"{TEMPLATES}/wrong")
        return
    assert (built["status"], built["available"]) == ("failed", False)
    assert reason in built["status_reason"]
    assert built["status_reason"].partition(":")[0] in _log(client, "wrong")
    error = client.expect(400, "POST", ENVIRONMENTS, {"name": "e", "template": "wrong"})["error"]
    assert (error["code"], error["details"]["template"]) == ("TEMPLATE_UNAVAILABLE", f"wrong@{built['version']}")
    client.expect(200, "DELETE", f"{TEMPLATES}/wrong")


def test_a_build_reaches_what_it_names_and_nothing_else(client: Connection, index: PackageIndex) -> None:
    """Without packages it does not even reach the index."""
    look = (
        "import sys, urllib.request\n"
        f"try: print(urllib.request.urlopen('{index.url}/sandgate_one/', timeout=30).status)\n"
        "except Exception as error: print('not reached')\n"
    )
    files = [{"path": "look.py", "content": look}]
    built = _build(client, "reach", files=files, setup=["python look.py"])
    assert built["status"] == "ready"
    assert "\nnot reached\n" in _log(client, "reach")
    built = _build(client, "reach", files=files, setup=["python look.py"], network={"allow": [f"{HOST}:{index.port}"]})
    assert "\n200\n" in _log(client, "reach@2")
    client.expect(200, "DELETE", f"{TEMPLATES}/reach")


def test_a_killed_gateway_leaves_a_failed_build(client: Connection, server: Server, tmp_path: Path) -> None:
    """And no sandbox, no file; the next gateway knows what was built before, and tells the command that follows it."""
    line = CommandLine(tmp_path)
    log_in(line, server)
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"name": "killed", "base": "python-3.9", "setup": ["sleep 1000"]}')
    kept = _build(client, "kept", files=[{"path": "f", "content": "kept"}])
    following = line.start_in_background("template", "build", str(recipe))
    deadline = time.monotonic() + _LIMIT_S
    assert following.stdout is not None
    while "setup 1" not in following.stdout.readline():
        assert time.monotonic() < deadline
    # One that it has just forked bears its name, too, for a moment.
    (gateway,) = until(lambda: len(found := _gateways(server)) == 1 and found, "there is one gateway")
    os.kill(gateway, signal.SIGKILL)
    with _reconnect(server) as again:
        killed = again.expect(200, "GET", f"{TEMPLATES}/killed")
        assert (killed["status"], killed["status_reason"]) == ("failed", "the service was stopped while it was built")
        assert "setup 1" in _log(again, "killed")
        said, _nothing = following.communicate(timeout=_LIMIT_S)
        assert (following.returncode, "killed@1 has failed: the service was stopped" in said) == (1, True)
        # The launcher ends what nobody knows of.
        until(lambda: not any("sleep 1000" in _command(pid) for pid in descendants(server.pid)), "the sandbox is gone")
        environment_id = _make(again, "kept")
        assert _run(again, environment_id, "print(open('/opt/template/f').read())") == "kept\n"
        again.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")
        layers = os.listdir(server.state / "templates" / "layers")
        assert kept["template_id"] in layers
        assert killed["template_id"] not in [each.partition(".")[0] for each in layers]
        for name in ("kept", "killed"):
            again.expect(200, "DELETE", f"{TEMPLATES}/{name}")


def _gateways(server: Server) -> list[int]:
    return [pid for pid, (name, _parent) in descendants(server.pid).items() if name == "sg-gateway"]


def _reconnect(server: Server) -> Connection:
    deadline = time.monotonic() + _LIMIT_S
    while True:
        try:
            connection = server.connect()
            if connection.request("GET", "/readyz").status == 200:
                return connection
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)  # waits: the server is being started again


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize("isolation", CLASSES)
def test_what_is_not_used_is_stopped_and_comes_back(client: Connection, server: Server, isolation: str) -> None:
    """The process that holds the imported packages ends, with what was forked from it, and is started on demand.

    In the gvisor class it is a sandbox that was made beforehand.
    """
    ready = _marked if isolation == "standard" else _kernels
    _build(client, "idle", env={"SANDGATE_MARK": "idle"}, files=[{"path": "f", "content": "x"}])
    for _round in range(2):
        until(lambda: not ready(server), "it was not used for as long as the setting says")
        environment_id = _make(client, "idle", isolation=isolation)
        assert _run(client, environment_id, "print(open('/opt/template/f').read())") == "x\n"
        until(lambda: len(ready(server)) >= 2, "one more was made when there was time")
        client.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")
    client.expect(200, "DELETE", f"{TEMPLATES}/idle")


def _marked(server: Server) -> list[int]:
    found = []
    for pid in descendants(server.pid):
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if b"SANDGATE_MARK=idle" in environ:
            found.append(pid)
    return found


def _kernels(server: Server) -> list[int]:
    """Of sandboxes of the gvisor class, whatever their template is: all of this server's are idle sooner or later."""
    return [pid for pid in descendants(server.pid) if _command(pid).startswith("runsc-sandbox")]


def test_the_audit_log_tells_of_builds(whole: dict[str, Any], client: Connection) -> None:
    """Who asked for one, and how each ended."""
    deadline = time.monotonic() + _LIMIT_S
    while True:
        rows = client.expect(200, "GET", "/api/v1/audit?limit=200")["entries"]
        ended = [row for row in rows if row["action"] == "finish_template"]
        ended = [row for row in ended if row["resource_id"] == whole["template_id"]]
        if ended:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)  # waits: entries of the service itself are written a little later
    assert ended[0]["details"]["status"] == "ready"
