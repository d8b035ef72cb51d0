"""The reference that clients are written from: its usage examples, as printed but for host, token and ids."""

import json
import subprocess
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import Server

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39, pytest.mark.needs_curl]

CREATE_ENVIRONMENT = r"""
curl -X POST \
  -H "Authorization: Bearer <token>" \
  -H "Content-Type: application/json" \
  -d '{"name": "test-env", "template": "python-3.9"}' \
  https://api.sandbox.example.com/api/v1/sandbox/environments
"""
EXECUTE = r"""
curl -X POST \
  -H "Authorization: Bearer <token>" \
  -H "Content-Type: application/json" \
  -d '{"code": "print(\"Hello, World!\")"}' \
  https://api.sandbox.example.com/api/v1/sandbox/environments/env-123456/execute
"""
CREATE_WORKFLOW = r"""
curl -X POST \
  -H "Authorization: Bearer <token>" \
  -H "Content-Type: application/json" \
  -d '{
    "name": "example-workflow",
    "steps": [
      {
        "name": "step1",
        "type": "code_execution",
        "config": {
          "code": "print(\"Step 1\")"
        }
      }
    ]
  }' \
  https://api.sandbox.example.com/api/v1/orchestrator/workflows
"""
START = r"""
curl -X POST \
  -H "Authorization: Bearer <token>" \
  https://api.sandbox.example.com/api/v1/orchestrator/workflows/workflow-123456/start
"""
STATUS = r"""
curl -X GET \
  -H "Authorization: Bearer <token>" \
  https://api.sandbox.example.com/api/v1/orchestrator/workflows/workflow-123456/status
"""


class Reader:
    """Somebody who has the reference, a token, and nothing else."""

    def __init__(self, server: Server) -> None:
        self._address = f"http://127.0.0.1:{server.port}"
        credentials = {"username": "admin", "password": server.password}
        with Connection(server.port) as connection:
            self._token: str = connection.expect(200, "POST", "/api/v1/auth/token", credentials)["access_token"]

    def type(self, command: str, **ids: str) -> tuple[int, Any]:
        """Status and parsed body of the answer to a command of the reference."""
        command = command.replace("<token>", self._token).replace("https://api.sandbox.example.com", self._address)
        for shown, real in ids.items():
            command = command.replace(f"{shown}-123456", real)
        said = f"curl -sS -w '\\n%{{http_code}}' {command.strip().removeprefix('curl')}"
        done = subprocess.run(["sh", "-euc", said], capture_output=True, text=True, timeout=60, check=True)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body)


def test_environments_as_printed(server: Server) -> None:
    """Created with 201 and the three fields of the reference, and used at once."""
    reader = Reader(server)
    status, made = reader.type(CREATE_ENVIRONMENT)
    assert (status, made["status"]) == (201, "creating")
    assert made["environment_id"].startswith("env-")
    assert made["creation_time"].endswith("Z")
    status, ran = reader.type(EXECUTE, env=made["environment_id"])
    assert (status, ran["status"], ran["stdout"]) == (200, "completed", "Hello, World!\n")


def test_workflows_as_printed(server: Server) -> None:
    """Created, started without a body, and looked at."""
    reader = Reader(server)
    status, made = reader.type(CREATE_WORKFLOW)
    assert (status, made["name"]) == (201, "example-workflow")
    workflow_id = made["workflow_id"]
    status, started = reader.type(START, workflow=workflow_id)
    assert (status, started["workflow_id"]) == (200, workflow_id)
    status, seen = reader.type(STATUS, workflow=workflow_id)
    assert (status, seen["run_id"]) == (200, started["run_id"])
    assert [step["name"] for step in seen["steps"]] == ["step1"]
