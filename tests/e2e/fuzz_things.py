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
        known: dict[str, Any] = {"secret_name": "API_TOKEN", "name": "python", "step": "ask"}
        made = self._ask("POST", ENVIRONMENTS, {"name": "fuzzed", "template": "python", "timeout": 600})
        known |= made
        known |= self._ask("POST", f"{ENVIRONMENTS}/{made.get('environment_id')}/execute", {"code": "pass"})
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
        known.setdefault("artifact_id", "artifact-" + "0" * 26)
        # Others than what these are about would be of no use in a path.
        self.known = {name: value for name, value in known.items() if isinstance(value, str)}

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
        if "code" in body and isinstance(body.get("timeout"), int | float) and body["timeout"] > 1:
            body["timeout"] = 1

    def _end_old(self) -> None:
        environments = self._list(f"{ENVIRONMENTS}?limit=200", "environments")
        for each in environments[20:] if len(environments) > 40 else ():
            self._ask("DELETE", f"{ENVIRONMENTS}/{each['environment_id']}")
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
