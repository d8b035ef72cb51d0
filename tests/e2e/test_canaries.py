"""Secrets are in nothing that the service writes or shows: each kind is planted, used, and then looked for."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.sandgate_server import ENVIRONMENTS, Server
from sandgate.config.paths import run_folder
from sandgate.config.settings import Settings
from tests.abilities import ABILITIES
from tests.e2e.waiting import until

ORCHESTRATOR = "/api/v1/orchestrator"
WORKFLOW = {
    "name": "uses-a-secret",
    "inputs": {"event": {"type": "object"}},
    "steps": [
        {
            "name": "use",
            "type": "code_execution",
            "config": {"code": "import os\nprint('length', len(os.environ['S']))\nraise SystemExit(0)"},
            "env": {"S": "${{ secrets.PLANTED }}"},
        }
    ],
}


# What a user runs with a secret in its variables; the words of a command line follow each other so, too.
STARTED = b"sleep 600.25"


def _canary(what: str) -> str:
    return f"canary-{what}-{os.urandom(9).hex()}"


@dataclass
class Planted:
    """A server into which secrets were put; ``secrets`` are all of them, ``said`` what it answered afterwards."""

    server: Server
    secrets: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None, credential: str | None = None, **named: Any) -> Any:
        """An answer as it came; the credential is the admin's unless another one, or none (''), is given."""
        token = self.server.token if credential is None else credential
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= named.pop("headers", {})
        if body is not None:
            named["content"] = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        address = f"http://127.0.0.1:{self.server.port}{path}"
        return httpx.request(method, address, headers=headers, timeout=60, **named)

    def plant(self, what: str) -> str:
        """A new secret."""
        self.secrets[what] = _canary(what)
        return self.secrets[what]

    def tell(self, *asked: Any, **named: Any) -> None:
        """Keep an answer that must hold no secret."""
        answer = self.ask(*asked, **named)
        self.said.append(f"{answer.status_code} {dict(answer.headers)} {answer.text}")


def _plant_accounts(planted: Planted) -> None:
    password, wrong = planted.plant("password"), planted.plant("wrong-password")
    planted.tell("POST", "/api/v1/users", {"username": "ann", "password": password, "role": "admin"})
    login = {"username": "ann", "password": password}
    token = planted.ask("POST", "/api/v1/auth/token", login, "").json()["access_token"]
    planted.secrets["token"] = token.rpartition(".")[2]
    planted.tell("POST", "/api/v1/auth/token", {"username": "ann", "password": wrong}, "")
    # Typed where the name belongs, in a field that is not known, in a body that is no JSON, and as a credential.
    name = planted.plant("name")
    planted.tell("POST", "/api/v1/auth/token", {"username": name, "password": wrong}, "")
    planted.tell("POST", "/api/v1/users", {"username": "bob", "password": planted.plant("unknown"), "x": 1})
    raw = b'{"username": "bob", "password": "' + planted.plant("broken").encode()
    planted.ask("POST", "/api/v1/users", None, content=raw, headers={"Content-Type": "application/json"})
    planted.ask("GET", ENVIRONMENTS, None, planted.plant("credential"))
    planted.ask("GET", ENVIRONMENTS, None, "", headers={"Authorization": f"Basic {planted.plant('basic')}"})
    key = planted.ask("POST", "/api/v1/auth/api-keys", {"label": "k"}, token, headers={"Idempotency-Key": "k"}).json()
    planted.secrets["api key"] = key["api_key"].rpartition("_")[2]
    planted.tell("POST", "/api/v1/auth/api-keys", {"label": "k"}, token, headers={"Idempotency-Key": "k"})
    planted.tell("GET", "/api/v1/me", None, key["api_key"])
    planted.tell("POST", "/api/v1/auth/revoke", {"token": token}, token)
    planted.tell("GET", "/api/v1/me", None, token)
    planted.tell("PATCH", f"/api/v1/users/user-{'0' * 26}", {"password": planted.plant("password-of-nobody")})


def _plant_workflow(planted: Planted) -> None:
    value = planted.plant("secret")
    planted.tell("PUT", f"{ORCHESTRATOR}/secrets/PLANTED", {"value": value})
    workflow_id = planted.ask("POST", f"{ORCHESTRATOR}/workflows", WORKFLOW).json()["workflow_id"]
    planted.tell("POST", f"{ORCHESTRATOR}/workflows/{workflow_id}/start?wait=20", {})
    hook = planted.ask(
        "POST", f"{ORCHESTRATOR}/webhooks", {"workflow_id": workflow_id, "signature": "sandgate"},
        headers={"Idempotency-Key": "h"},
    ).json()  # fmt: skip
    planted.secrets["webhook token"] = hook["hook_path"].rpartition("/")[2]
    planted.secrets["signing secret"] = hook["signing_secret"]
    planted.tell(
        "POST", f"{ORCHESTRATOR}/webhooks", {"workflow_id": workflow_id, "signature": "sandgate"},
        headers={"Idempotency-Key": "h"},
    )  # fmt: skip
    planted.tell("POST", hook["hook_path"], {"a": 1}, "")
    header = f"t={int(time.time())},v1={hmac.new(b'wrong', b'x', hashlib.sha256).hexdigest()}"
    planted.tell("POST", hook["hook_path"], {"a": planted.plant("refused-body")}, "", headers={"X-Signature": header})
    planted.tell("GET", f"{ORCHESTRATOR}/runs")
    planted.tell("GET", f"{ORCHESTRATOR}/webhooks")
    planted.tell("GET", f"{ORCHESTRATOR}/secrets")


def _plant_environment(planted: Planted) -> None:
    """Code of all kinds that finds a secret; what is kept of its environment, and what is made from that."""
    planted.tell("PUT", f"{ORCHESTRATOR}/secrets/OF_CODE", {"value": planted.plant("secret of code")})
    wanted = {"name": "s", "template": "python", "secrets": ["OF_CODE"], "timeout": 600}
    made = planted.ask("POST", ENVIRONMENTS, wanted).json()
    path = f"{ENVIRONMENTS}/{made['environment_id']}"
    code = {"code": "import os\nprint('length', len(os.environ['OF_CODE']))"}
    ran = planted.ask("POST", f"{path}/execute", code).json()
    assert ran["stdout"] == f"length {len(planted.secrets['secret of code'])}\n"
    session = planted.ask("POST", f"{path}/sessions", {}).json()["session_id"]
    planted.tell("POST", f"{path}/execute", {**code, "session_id": session})
    planted.tell("POST", f"{path}/processes", {"command": f'test -n "$OF_CODE" && {STARTED.decode()}'})
    snapshot = planted.ask("POST", f"{path}/snapshots", {}).json()["snapshot_id"]
    copies = planted.ask("POST", f"{path}/fork", {"count": 1}).json()["environments"]
    begun = planted.ask("POST", ENVIRONMENTS, {"name": "b", "snapshot_id": snapshot}).json()
    folders = "/workspace /home /tmp /var/tmp /dev/shm /run /etc"
    looks = f"import subprocess\nprint(subprocess.getoutput('grep -rs canary- {folders}'))"
    for environment in (made, *copies, begun):
        there = f"{ENVIRONMENTS}/{environment['environment_id']}"
        planted.tell("POST", f"{there}/execute", {"code": looks})
        planted.tell("GET", there)
    planted.tell("GET", f"{path}/sessions/{session}")
    planted.tell("GET", f"{path}/processes")
    planted.tell("GET", f"{path}/executions")
    _plant_links(planted, path)


def _plant_in_gvisor(planted: Planted) -> None:
    """Code and a process with a secret in the class whose runtime has files of its own."""
    planted.tell("PUT", f"{ORCHESTRATOR}/secrets/IN_GVISOR", {"value": planted.plant("secret in gvisor")})
    wanted = {"name": "g", "template": "python", "isolation": "gvisor", "secrets": ["IN_GVISOR"], "timeout": 600}
    made = planted.ask("POST", ENVIRONMENTS, wanted).json()
    path = f"{ENVIRONMENTS}/{made['environment_id']}"
    code = {"code": "import os\nprint('length', len(os.environ['IN_GVISOR']))"}
    ran = planted.ask("POST", f"{path}/execute", code).json()
    assert ran.get("stdout") == f"length {len(planted.secrets['secret in gvisor'])}\n", ran
    planted.tell("POST", f"{path}/processes", {"command": f'test -n "$IN_GVISOR" && {STARTED.decode()}'})
    planted.tell("GET", f"{path}/executions")


def _plant_links(planted: Planted, path: str) -> None:
    """Whoever has one needs nothing else."""
    for kind, body in (("links", {"path": "f", "method": "PUT"}), ("port-links/1", {})):
        link = planted.ask("POST", f"{path}/{kind}", body).json()["link_path"].rstrip("/")
        planted.secrets[kind] = link.rpartition("/")[2]
        planted.ask("PUT" if kind == "links" else "GET", link, None, "")


def _plant_template(planted: Planted) -> None:
    """A build that is told secrets by who asks for it: what they may be in is the recipe, which its owner reads."""
    index = f"https://user:{planted.plant('password of an index')}@index.invalid/simple"
    recipe = {"name": "t", "base": "python", "packages": ["six"], "index": index}
    planted.tell("POST", "/api/v1/sandbox/templates", recipe)
    quiet = {"name": "q", "base": "python", "env": {"A": "b"}, "setup": ["echo built"]}
    planted.tell("POST", "/api/v1/sandbox/templates", quiet)
    template = "/api/v1/sandbox/templates/q"
    until(lambda: planted.ask("GET", template).json()["status"] != "building", "the end of the build")
    planted.tell("GET", "/api/v1/sandbox/templates/q/log")


def _plant_code(planted: Planted) -> None:
    made = planted.ask("POST", ENVIRONMENTS, {"name": "e", "template": "python"}).json()
    path = f"{ENVIRONMENTS}/{made['environment_id']}"
    code = f"x = {planted.plant('code')!r}\nprint(len(x))"
    planted.tell("POST", f"{path}/execute", {"code": code})
    planted.tell("GET", f"{path}/executions")
    planted.tell("DELETE", path)


@pytest.fixture(scope="module")
def planted() -> Iterator[Planted]:
    """All of them planted and used; the log is as talkative as it can be."""
    made = Server({"SANDGATE_LOG_LEVEL": "debug", "SANDGATE_LOG_FORMAT": "json"})
    made.password = _canary("first-password")
    with made as server:
        found = Planted(server)
        found.secrets["password of the first admin"] = server.password
        found.secrets["token of the first admin"] = server.token.rpartition(".")[2]
        _plant_accounts(found)
        _plant_workflow(found)
        _plant_code(found)
        _plant_environment(found)
        if ABILITIES["needs_gvisor"].find_lack() is None:
            _plant_in_gvisor(found)
        _plant_template(found)
        found.tell("GET", "/metrics")
        found.tell("GET", "/api/v1/audit?limit=200")
        found.tell("GET", "/readyz")
        found.tell("GET", "/api/v1/users")
        assert found.ask("GET", "/api/v1/audit").json()["entries"]
        yield found


def _forms(secret: str) -> list[bytes]:
    """As it is, and as it would look in an encoded form."""
    return [secret.encode(), secret.encode().hex().encode(), base64.b64encode(secret.encode()).rstrip(b"=")]


def _files(top: Path) -> Iterator[tuple[Path, bytes]]:
    """All files below a folder with what is in them, but for those that are made for a moment."""
    for folder, _folders, names in os.walk(top):
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink():
                    yield path, path.read_bytes()


def _who_holds(planted: Planted, data: bytes) -> list[str]:
    return [what for what, secret in planted.secrets.items() if any(form in data for form in _forms(secret))]


def test_answers_hold_no_secret_that_was_not_just_made(planted: Planted) -> None:
    """Errors, lists, records, figures and the audit log among them."""
    for said in planted.said:
        assert not _who_holds(planted, said.encode()), said[:300]


def test_the_log_holds_none(planted: Planted) -> None:
    """At its most talkative."""
    data = planted.server.log.read_bytes()
    assert b"request refused" in data
    assert not _who_holds(planted, data)


def test_nothing_in_the_state_folder_holds_one(planted: Planted) -> None:
    """Neither the database nor its log, spools, artifacts, or anything else; keys are files of their own."""
    looked_at = 0
    for path, data in _files(planted.server.state):
        looked_at += 1
        assert not _who_holds(planted, data), path
    assert looked_at >= 5


def test_nothing_that_the_launcher_writes_holds_one(planted: Planted) -> None:
    """Its log, and what its runtimes are told by files, while environments live."""
    folder = run_folder(Settings(state=planted.server.state))
    looked_at = set()
    for path, data in _files(folder):
        assert not _who_holds(planted, data), path
        looked_at.add(path.relative_to(folder).parts[0])
    assert "launcher.log" in looked_at


def test_no_process_shows_one(planted: Planted) -> None:
    """In its command line, or, but for the server's own settings and what a user has started, in its environment."""
    own = set(planted.server.listeners())
    looked_at = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
            assert not _who_holds(planted, command), folder
            if int(folder.name) not in own and STARTED not in command:
                assert not _who_holds(planted, (folder / "environ").read_bytes()), folder
            looked_at += 1
    assert looked_at > 3
