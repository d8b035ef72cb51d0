"""Templates with Debian packages, which apt and dpkg of a root file system install in a copy of it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, Server
from sandgate.sandbox.interpreters import find_interpreters
from tests.e2e.small_debian import Repository, serve_packages, small_debian
from tests.e2e.small_roots import small_root
from tests.e2e.small_wheels import HOST
from tests.e2e.test_own_roots import _begin, _build, _folders
from tests.e2e.test_templates import CLASSES, TEMPLATES, _log, _make, _run, until_built
from tests.e2e.waiting import until

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39, pytest.mark.needs_apt]
_WRITES = r"""#!/bin/sh
set -e
test "$1" = configure
test "$(id -u)" = 0
bash -c 'test "$EUID" = 0 && test "$UID" = 0'
mkdir -p /var/www /etc/greeting
echo "of the script" > /etc/greeting/conf
chown 33:33 /etc/greeting/conf
chmod 600 /etc/greeting/conf
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """Two packages, one of which needs the other."""
    with serve_packages(tmp_path_factory.mktemp("packages")) as serving:
        serving.add("words", "1.0-1", {"usr/share/words/hello": "hello"})
        serving.add(
            "greet", "2:3.1~rc1-4", {"usr/bin/greet-all": "#!/bin/sh\ncat /usr/share/words/hello\n"},
            depends="words (>= 1.0)", script=_WRITES,
        )  # fmt: skip
        yield serving


@pytest.fixture(scope="module")
def root(repository: Repository) -> bytes:
    """A root file system with apt."""
    return small_debian(find_interpreters(())["3.9"].prefix, "3.9", repository)


@pytest.fixture(scope="module")
def server(repository: Repository) -> Iterator[Server]:
    """One whose builds may reach the packages."""
    settings = {
        "SANDGATE_SPARE_SANDBOXES": "1",
        "SANDGATE_GVISOR_SPARE_SANDBOXES": "0",
        "SANDGATE_NETWORK_ALLOW_SPECIAL": HOST,
    }
    with Server(settings) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Connection]:
    """A connection of the admin's."""
    with server.connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def built(server: Server, root: bytes, repository: Repository) -> dict[str, Any]:
    """A template with the packages."""
    with server.connect() as client:
        row = _build(
            server, client, "debian", root, apt=["greet"], network={"allow": [repository.host]},
            setup=["greet-all > greeting"],
        )  # fmt: skip
        assert row["status"] == "ready", _log(client, "debian")
        return row


_LOOK = """
import json, os, subprocess
print(json.dumps({
    "greet": subprocess.check_output(["greet-all"], text=True),
    "conf": open("/etc/greeting/conf").read().strip(),
    "www": os.listdir("/var/www"), "greeting": open("/opt/template/greeting").read(),
    "lists": os.listdir("/var/lib/apt/lists"), "policy": os.path.exists("/usr/sbin/policy-rc.d"),
    "user": os.getuid(),
}))
"""


@pytest.mark.parametrize("isolation", CLASSES)
def test_packages_are_there_in_both_classes(built: dict[str, Any], client: Connection, isolation: str) -> None:
    """What they bring and what their scripts have written, for the setup commands and for code; not how they came."""
    environment_id = _make(client, "debian", isolation=isolation)
    said = json.loads(_run(client, environment_id, _LOOK))
    assert said == {
        "greet": "hello", "conf": "of the script", "www": [], "greeting": "hello", "lists": [], "policy": False,
        "user": 1000,
    }  # fmt: skip
    client.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")


def test_what_was_installed_is_told_with_its_versions(built: dict[str, Any], client: Connection) -> None:
    """The recipe's packages and those that they need; the log shows what apt has said."""
    assert built["apt"] == ["greet"]
    assert built["apt_lock"] == ["greet:all=2:3.1~rc1-4", "words:all=1.0-1"]
    log = _log(client, "debian")
    assert "== apt-get install greet\n" in log
    assert "Setting up greet (2:3.1~rc1-4)" in log
    (row,) = [each for each in client.expect(200, "GET", TEMPLATES)["templates"] if each["name"] == "debian"]
    assert (row["apt"], row["apt_lock"]) == (["greet"], None)


def test_the_same_is_installed_once(
    built: dict[str, Any], client: Connection, server: Server, root: bytes, repository: Repository
) -> None:
    """The same recipe is the same template; another with the same packages has their root file system at once."""
    recipe = {"apt": ["greet"], "network": {"allow": [repository.host]}}
    same = _begin(client, "debian", root, **recipe, setup=["greet-all > greeting"])
    assert same["template_id"] == built["template_id"]
    folders, asked = _folders(server), len(repository.asked)
    other = _begin(client, "other", root, **recipe)
    assert not other["awaits_upload"]
    other = until_built(client, "other")
    assert (other["status"], other["apt_lock"]) == ("ready", built["apt_lock"]), _log(client, "other")
    assert _folders(server) - folders == {other["template_id"]}
    assert len(repository.asked) == asked
    client.expect(200, "DELETE", f"{TEMPLATES}/other")
    until(lambda: _folders(server) == folders, "nothing is left")


def test_more_is_installed_upon_a_template(
    client: Connection, server: Server, root: bytes, repository: Repository
) -> None:
    """Which stays as it is; asked anew, newer versions come. In the end nothing of it is left."""
    repository.add("fresh", "1.0-1", {"usr/share/fresh/word": "old"})
    before = _folders(server)
    archive = root + b"\0" * 512
    assert _build(server, client, "plain", archive)["status"] == "ready", _log(client, "plain")
    recipe = {"name": "upon", "base": "plain", "apt": ["fresh"], "network": {"allow": [repository.host]}}
    client.expect(201, "POST", TEMPLATES, recipe)
    upon = until_built(client, "upon")
    assert (upon["status"], upon["apt_lock"]) == ("ready", ["fresh:all=1.0-1"]), _log(client, "upon")
    repository.add("fresh", "1.1-1", {"usr/share/fresh/word": "new"})
    for name, rebuild, version in (("beside", False, "1.0-1"), ("upon", True, "1.1-1")):
        client.expect(201, "POST", TEMPLATES, {**recipe, "name": name, "rebuild": rebuild})
        assert until_built(client, name)["apt_lock"] == [f"fresh:all={version}"], _log(client, name)
    client.expect(201, "POST", TEMPLATES, {**recipe, "name": "upon", "base": "upon@1", "apt": ["greet", "fresh=1.1-1"]})
    above = until_built(client, "upon")
    assert above["apt_lock"] == ["fresh:all=1.1-1", "greet:all=2:3.1~rc1-4", "words:all=1.0-1"], _log(client, "upon")
    words = {}
    for name in ("plain", "upon@1", "upon@2", "upon@3"):
        environment_id = _make(client, name)
        code = "import os\npath = '/usr/share/fresh/word'\nprint(os.path.exists(path) and open(path).read(), end='')"
        words[name] = _run(client, environment_id, code)
        client.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")
    assert words == {"plain": "False", "upon@1": "old", "upon@2": "new", "upon@3": "new"}
    for name in ("plain", "upon", "beside"):
        client.expect(200, "DELETE", f"{TEMPLATES}/{name}")
    until(lambda: _folders(server) == before, "nothing is left")


_HOSTILE = r"""#!/bin/bash
mkdir -p /usr/left/closed /var/left
touch /usr/left/program /usr/left/secret /usr/left/.wh.program /manifest.json
printf '[{"Config": "c", "Layers": []}]' > /manifest.json
chown 0:0 /usr/left/program && chmod 6755 /usr/left/program && ln /usr/left/program /usr/left/again
chmod 000 /usr/left/secret /usr/left/closed
mkfifo /usr/left/pipe
mknod /usr/left/sda b 8 0 && echo a device was made
ln -s /etc/shadow /usr/left/link
ln -s ../../../../../../../../etc /var/left/link
setsid sleep 1000 < /dev/null > /dev/null 2>&1 &
rm -rf /opt/base /var/empty /proc /dev 2> /dev/null
chmod 777 / /etc 2> /dev/null
exit 0
"""
_LEFT = """
import json, os, stat
def tell(path):
    status = os.lstat(path)
    return [stat.filemode(status.st_mode), status.st_uid]
print(json.dumps({
    "names": sorted(os.listdir("/usr/left")), "program": tell("/usr/left/program"), "secret": tell("/usr/left/secret"),
    "closed": tell("/usr/left/closed"), "etc": tell("/etc"), "link": os.readlink("/var/left/link"),
    "manifest": os.path.realpath("/manifest.json"), "processes": sum(name.isdigit() for name in os.listdir("/proc")),
}))
"""


def test_what_a_script_leaves_has_no_power(
    client: Connection, server: Server, root: bytes, repository: Repository
) -> None:
    """Set-uid bits, owners, devices, pipes and processes are not there afterwards, and closed files are open ones."""
    repository.add("hostile", "1", {"usr/share/hostile": ""}, script=_HOSTILE)
    before = _folders(server)
    allowed = {"allow": [repository.host]}
    row = _build(server, client, "hostile", root + b"\0" * 1024, apt=["hostile"], network=allowed)
    assert row["status"] == "ready", _log(client, "hostile")
    assert "a device was made" not in _log(client, "hostile")
    environment_id = _make(client, "hostile")
    said = json.loads(_run(client, environment_id, _LEFT))
    assert said == {
        "names": ["again", "closed", "link", "program", "secret"], "program": ["-rwxr-xr-x", 65534],
        "secret": ["-rw-r--r--", 65534], "closed": ["drwxr-xr-x", 65534], "etc": ["drwxr-xr-x", 65534],
        "link": "../../../../../../../../etc", "manifest": "/usr/lib/sandgate-top/manifest.json",
        "processes": said["processes"],
    }  # fmt: skip
    assert said["processes"] <= 2
    client.expect(200, "DELETE", f"{ENVIRONMENTS}/{environment_id}")
    client.expect(200, "DELETE", f"{TEMPLATES}/hostile")
    until(lambda: _folders(server) == before, "nothing is left")


@pytest.mark.parametrize(
    ("packages", "allowed", "problem"),
    [
        (["missing"], True, "apt-get install failed with exit code 100"),
        (["words=9"], True, "apt-get install failed with exit code 100"),
        (["fails"], True, "apt-get install failed with exit code 100"),
        (["removes"], True, "what the packages have made of it cannot be used"),
        (["words"], False, "apt-get update failed with exit code 100"),
    ],
    ids=["unknown", "version", "script", "no interpreter", "network"],
)
def test_what_cannot_be_installed_fails_with_the_reason(
    client: Connection,
    server: Server,
    root: bytes,
    repository: Repository,
    packages: list[str],
    allowed: bool,
    problem: str,
) -> None:
    """And leaves nothing; a mirror that is not allowed is not reached."""
    if packages == ["fails"]:
        repository.add("fails", "1", {"usr/share/fails": ""}, script="#!/bin/sh\necho it is no use\nexit 3\n")
    if packages == ["removes"]:
        repository.add("removes", "1", {"usr/share/r": ""}, script="#!/bin/sh\nrm /usr/local/bin/python3*\n")
    before, asked = _folders(server), len(repository.asked)
    network = {"allow": [repository.host]} if allowed else None
    row = _build(server, client, "broken", root + b"\0" * 1536, apt=packages, network=network)
    assert row["status"] == "failed"
    assert problem in row["status_reason"]
    assert (len(repository.asked) > asked) == allowed
    assert ("it is no use" in _log(client, "broken")) == (packages == ["fails"])
    until(lambda: _folders(server) == before, "nothing is left")
    client.expect(200, "DELETE", f"{TEMPLATES}/broken")


def test_a_root_without_apt_says_what_it_lacks(client: Connection, server: Server) -> None:
    """And upon the server's own templates it is refused at once."""
    bare = small_root(find_interpreters(())["3.9"].prefix, "3.9")
    row = _build(server, client, "bare", bare, apt=["words"])
    assert row["status"] == "failed"
    assert row["status_reason"].startswith(
        "apt: its root file system has no /usr/bin/apt-get; its packages need a base"
    )
    client.expect(200, "DELETE", f"{TEMPLATES}/bare")
    refused = client.expect(400, "POST", TEMPLATES, {"name": "bare", "base": "python-3.9", "apt": ["words"]})["error"]
    assert (refused["code"], refused["details"]["fields"][0]["field"]) == ("VALIDATION_FAILED", "apt")
