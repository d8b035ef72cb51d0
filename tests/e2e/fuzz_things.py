"""What the requests of the fuzzer are about, and who sends them."""

import random
from typing import Any

import requests
from schemathesis import Case

from bench.sandgate_server import ENVIRONMENTS, Server

_PASSWORD = "a password for fuzzing"
_WORKFLOW = {
    "name": "fuzzed",
    "steps": [{"name": "ask", "type": "approval"}],
    "inputs": {"event": {"type": "object"}},
}
_TEMPLATE = {"name": "fuzzed", "base": "python", "files": [{"path": "f", "content": "x"}]}
_ARTIFACT = "import os\nopen(os.environ['SANDGATE_ARTIFACTS'] + '/a', 'w').write('x')"
_LEAVES_ARTIFACT = {
    "name": "leaves",
    "steps": [{"name": "a", "type": "code_execution", "config": {"code": _ARTIFACT}}],
}
_SANDBOX = "/api/v1/sandbox"
_ORCHESTRATOR = "/api/v1/orchestrator"
_TIMEOUT_S = 30.0


class Things:
    """One of each kind; ``known`` are their ids by the names of path parameters."""

    def __init__(self, server: Server, session: requests.Session) -> None:
        self._address = f"http://127.0.0.1:{server.port}"
        self._session = session
        self._maker = server.token
        self._token = server.token
        self._victims = 0
        self._kept: dict[str, Any] = {}
        self._renewed = 0
        self.known: dict[str, Any] = {}
        self._ask("POST", "/api/v1/users", {"username": "fuzzer", "password": _PASSWORD, "role": "admin"})
        self.log_in()

    def credential(self, case: Case[Any], chance: random.Random) -> dict[str, str]:
        """A header that is good; now and then none, so that a request has the one that was made up for it."""
        if chance.random() < 0.05:
            return {}
        for name in [name for name in case.headers or {} if name.lower() == "authorization"]:
            del case.headers[name]
        return {"Authorization": f"Bearer {self._token}"}

    def log_in(self) -> None:
        """A new token in the place of one that was ended, or of a user that is no more."""
        asked = {"username": "fuzzer", "password": _PASSWORD}
        answer = self._session.post(f"{self._address}/api/v1/auth/token", json=asked, timeout=_TIMEOUT_S)
        if answer.ok:
            self._token = answer.json()["access_token"]

    def renew(self) -> None:
        """Make all of it anew."""
        self._end_old()
        self._renewed += 1
        name = ("python", "fuzzed")[self._renewed % 2]
        known: dict[str, Any] = {"secret_name": "API_TOKEN", "name": name, "step": "ask", "port": "1", "rest": ""}
        known["path"] = "fuzzed"
        made = self._ask("POST", ENVIRONMENTS, {"name": "fuzzed", "template": "python", "timeout": 600})
        known |= made
        known |= self._ask("POST", f"{ENVIRONMENTS}/{made.get('environment_id')}/execute", {"code": "pass"})
        known |= self._make_parts(f"{ENVIRONMENTS}/{made.get('environment_id')}")
        workflow = self._ask("POST", f"{_ORCHESTRATOR}/workflows", _WORKFLOW)
        known |= workflow
        known |= self._ask("POST", f"{_ORCHESTRATOR}/workflows/{workflow.get('workflow_id')}/start", {})
        named = {"workflow_id": workflow.get("workflow_id")}
        known |= self._ask("POST", f"{_ORCHESTRATOR}/schedules", {**named, "interval": 86_400})
        hook = self._ask("POST", f"{_ORCHESTRATOR}/webhooks", named)
        known |= hook
        known["token"] = str(hook.get("hook_path", "")).rpartition("/")[2]
        known |= self._ask("POST", "/api/v1/auth/api-keys", {"label": "fuzzed", "expires_in": 60})
        known |= self._find_victim()
        self._ask("PUT", f"{_ORCHESTRATOR}/secrets/API_TOKEN", {"value": "a secret for fuzzing"})
        known |= self._find_artifact()
        # Others than what these are about would be of no use in a path.
        self.known = {name: value for name, value in known.items() if isinstance(value, str)}

    def _make_parts(self, environment: str) -> dict[str, Any]:
        """What there may be in an environment, begin from one, or be lent to one; and a template that was built."""
        parts = {
            **self._ask("POST", f"{environment}/sessions", {}),
            **self._ask("POST", f"{environment}/processes", {"command": "cat", "stdin": True}),
            **self._ask("POST", f"{environment}/snapshots", {"name": "fuzzed"}),
        }
        if not self._ask("GET", f"{_SANDBOX}/templates/fuzzed"):
            self._ask("POST", f"{_SANDBOX}/templates", _TEMPLATE)
        volumes = self._list(f"{_SANDBOX}/volumes?name=fuzzed", "volumes")
        volume = volumes[0] if volumes else self._ask("POST", f"{_SANDBOX}/volumes", {"name": "fuzzed", "size_mb": 16})
        link = self._ask("POST", f"{environment}/links", {"path": "fuzzed", "method": "PUT"})
        to_port = self._ask("POST", f"{environment}/port-links/1", {})
        parts["volume_id"] = volume.get("volume_id")
        parts["link"] = _last_part(link.get("link_path"))
        parts["port_link"] = _last_part(to_port.get("link_path"))
        return parts

    def _find_artifact(self) -> dict[str, Any]:
        """With the run that has left it in a half of the cases: the other run is one that waits."""
        if "artifact_id" not in self._kept:
            made = self._ask("POST", f"{_ORCHESTRATOR}/workflows", _LEAVES_ARTIFACT)
            run = self._ask("POST", f"{_ORCHESTRATOR}/workflows/{made.get('workflow_id')}/start?wait=20", {})
            found = self._list(f"{_ORCHESTRATOR}/runs/{run.get('run_id')}/artifacts", "artifacts")
            self._kept = {"run_id": run.get("run_id"), **(found[0] if found else {})}
        names = ("artifact_id", "run_id") if self._renewed % 2 else ("artifact_id",)
        return {name: self._kept.get(name) for name in names}

    def _find_victim(self) -> dict[str, Any]:
        """A user whom requests may change and take away; made when there is none, because a password takes its time."""
        there = self._ask("GET", f"/api/v1/users/{self.known.get('user_id')}")
        if there:
            return there
        self._victims += 1
        return self._ask("POST", "/api/v1/users", {"username": f"victim-{self._victims}", "password": _PASSWORD})

    def fill_in(self, body: dict[str, Any], chance: random.Random) -> None:
        """Mostly name what is there; code ends soon."""
        if isinstance(body.get("workflow_id"), str) and chance.random() < 0.8:
            body["workflow_id"] = self.known.get("workflow_id", body["workflow_id"])
        if isinstance(body.get("template"), str) and chance.random() < 0.5:
            body["template"] = "python"
        for name in ("snapshot_id", "session_id"):
            if isinstance(body.get(name), str) and chance.random() < 0.5:
                body[name] = self.known.get(name, body[name])
        if body.get("volumes") and chance.random() < 0.5:
            body["volumes"] = [{"name": "fuzzed", "path": "/workspace/volume"}]
        # Of what is waited for; what an environment may live is another field of the same name.
        wait_s = body.get("timeout") if "code" in body or body.keys() == {"timeout"} else None
        if isinstance(wait_s, int | float) and wait_s > 1:
            body["timeout"] = 1

    def _end_old(self) -> None:
        environments = self._list(f"{ENVIRONMENTS}?limit=200", "environments")
        for each in environments[20:] if len(environments) > 40 else ():
            self._ask("DELETE", f"{ENVIRONMENTS}/{each['environment_id']}")
        for kind, key in (("snapshots", "snapshot_id"), ("volumes", "volume_id")):
            for each in self._list(f"{_SANDBOX}/{kind}?limit=200", kind)[20:]:
                self._ask("DELETE", f"{_SANDBOX}/{kind}/{each[key]}")
        runs = f"{_ORCHESTRATOR}/runs"
        for each in self._list(f"{runs}?status=waiting&status=running&status=pending&limit=200", "runs")[20:]:
            self._ask("POST", f"{runs}/{each['run_id']}/cancel")
        for each in self._list("/api/v1/auth/api-keys?limit=200", "api_keys")[20:]:
            self._ask("DELETE", f"/api/v1/auth/api-keys/{each['api_key_id']}")

    def _list(self, path: str, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("GET", path).get(name, [])
        return found

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """As the admin that no request is about."""
        answer = self._session.request(
            method,
            f"{self._address}{path}",
            json=body,
            headers={"Authorization": f"Bearer {self._maker}"},
            timeout=_TIMEOUT_S,
        )
        said: dict[str, Any] = answer.json()
        return said if answer.ok else {}


def _last_part(path: object) -> str | None:
    return path.rstrip("/").rpartition("/")[2] if isinstance(path, str) else None
