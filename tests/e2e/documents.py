"""Commands as documents show them: found, run in a shell, their answers kept for the commands that follow."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Commands whose code imports what templates of the server do not have.
NEEDS_PACKAGES = re.compile(r"import (pandas|matplotlib)")
SHOWN_ADDRESS = "http://127.0.0.1:8080"
# Which field of an answer is meant by a name that a document writes behind a dollar sign.
KEPT = {
    "access_token": "TOKEN",
    "environment_id": "ENVIRONMENT_ID",
    "execution_id": "EXECUTION_ID",
    "session_id": "SESSION_ID",
    "snapshot_id": "SNAPSHOT_ID",
    "process_id": "PROCESS_ID",
    "position": "POSITION",
    "volume_id": "VOLUME_ID",
    "user_id": "USER_ID",
    "workflow_id": "WORKFLOW_ID",
    "run_id": "RUN_ID",
    "artifact_id": "ARTIFACT_ID",
    "schedule_id": "SCHEDULE_ID",
    "webhook_id": "WEBHOOK_ID",
    "hook_path": "HOOK_PATH",
    "link_path": "LINK_PATH",
    "link_url": "LINK_URL",
    "signing_secret": "SIGNING_SECRET",
    "api_key_id": "API_KEY_ID",
    "api_key": "API_KEY",
}


def commands(document: Path) -> Iterator[str]:
    """The commands of a document in their order: paragraphs of its ``sh`` blocks that call curl."""
    for block in BLOCK.findall(document.read_text(encoding="utf-8")):
        yield from (part for part in block.split("\n\n") if "curl" in part)


@dataclass
class Shell:
    """Runs commands in ``folder`` against a server, with the values of earlier answers as variables.

    ``instead`` are names of hosts that documents show, and where the test has them.
    """

    address: str
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)

    def run(self, command: str) -> Mapping[str, Any]:
        """The parsed answer; a status that is no success fails the test."""
        script = command.replace(SHOWN_ADDRESS, self.address).replace("curl -s", "curl -sS --fail-with-body")
        # A reader looks again; what comes late is to be seen here at once.
        script = script.replace("timeout 1 ", "timeout 5 ")
        for shown, own in self.instead.items():
            script = script.replace(shown, own)
        name = re.match(r"([A-Z_]+)=\$\(", command)
        if name:
            script += f'\nprintf \'{{"access_token": "%s"}}\' "${name.group(1)}"'
        environ = {"PATH": os.environ["PATH"], **self.variables}
        done = subprocess.run(
            ["sh", "-euc", script],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        answer: dict[str, Any] = (
            {"events": done.stdout} if done.stdout.startswith("retry:") else json.loads(done.stdout)
        )
        if isinstance(answer, dict):
            self._keep(answer)
            # A list of these is the only way to learn of them.
            for row in answer.get("artifacts", ()):
                self._keep(row)
        return answer

    def _keep(self, answer: Mapping[str, Any]) -> None:
        for key, variable in KEPT.items():
            # What is asked about oneself is no new user to work with.
            if isinstance(answer.get(key), str) and "credential" not in answer:
                self.variables[variable] = answer[key]
