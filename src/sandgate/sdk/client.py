"""A client of the API: one method for each thing that can be asked, typed answers, one kind of error.

Every method raises ``ApiError`` when the server refuses, ``ServerUnreachable`` when it does not answer, and
``UnexpectedAnswer`` when what answers is no such server.
"""

import os
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from types import TracebackType
from typing import Self

import httpx

from sandgate.sdk.answers import Attempted, IssuedKey, Me, Plan, Run, RunView, Token, Workflow
from sandgate.sdk.environments import EnvironmentCalls
from sandgate.sdk.errors import InvalidAddress
from sandgate.sdk.events import ServerEvent
from sandgate.sdk.reading import quote_part, read_answer
from sandgate.sdk.transport import Asked, Json, RetryPolicy, Transport

_AUTH = "/api/v1/auth"
_WORKFLOWS = "/api/v1/orchestrator/workflows"
_RUNS = "/api/v1/orchestrator/runs"
# Killing takes no time, but what tidies up afterwards may take its own.
_CANCEL_S = 300.0


class Client(EnvironmentCalls):
    """A server, asked as the owner of ``credential``, a token or an API key. A context manager; safe for threads.

    ``timeout_s`` bounds each answer, on top of what was asked to be waited for. ``connections`` and ``sleep`` are for
    tests. Raises ``InvalidAddress``.
    """

    def __init__(
        self,
        address: str,
        credential: str | None = None,
        *,
        timeout_s: float = 30.0,
        retries: RetryPolicy | None = None,
        connections: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = Transport(
            address,
            credential,
            timeout_s=timeout_s,
            retries=retries or RetryPolicy(),
            connections=connections,
            sleep=sleep,
        )

    @classmethod
    def from_variables(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """The server and credential of ``SANDGATE_URL`` with ``SANDGATE_API_KEY`` or ``SANDGATE_TOKEN``.

        Raises ``InvalidAddress`` where one of them is missing.
        """
        address = environ.get("SANDGATE_URL", "")
        credential = environ.get("SANDGATE_API_KEY") or environ.get("SANDGATE_TOKEN")
        for value, names in ((address, "SANDGATE_URL"), (credential, "SANDGATE_API_KEY or SANDGATE_TOKEN")):
            if not value:
                raise InvalidAddress(f"{names} is not set")
        return cls(address, credential)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    @property
    def address(self) -> str:
        """The base URL of the server."""
        return self._transport.address

    def close(self) -> None:
        """End the connections."""
        self._transport.close()

    # Who asks

    def issue_token(self, username: str, password: str) -> Token:
        """A token for a name and a password."""
        credentials = {"username": username, "password": password}
        return self._get(Token, Asked("POST", f"{_AUTH}/token", credentials))

    def revoke_token(self) -> None:
        """End the token that this client uses."""
        self._transport.ask(Asked("POST", f"{_AUTH}/revoke"))

    def create_api_key(self, label: str, expires_in_s: int | None = None) -> IssuedKey:
        """A new API key that acts as the owner of this client's token; its secret is in this answer only."""
        # Never sent twice: the answer to the second request would lack the secret.
        body = {"label": label} | ({} if expires_in_s is None else {"expires_in": expires_in_s})
        return self._get(IssuedKey, Asked("POST", f"{_AUTH}/api-keys", body))

    def delete_api_key(self, api_key_id: str) -> None:
        """End an API key."""
        self._transport.ask(Asked("DELETE", f"{_AUTH}/api-keys/{quote_part(api_key_id)}"))

    def get_me(self) -> Me:
        """Who the credential belongs to."""
        return self._get(Me, Asked("GET", "/api/v1/me"))

    # Workflows

    def validate_workflow(self, definition: Json) -> Plan:
        """What a definition would do. Raises ``ApiError`` ``WORKFLOW_INVALID`` with all that is wrong with it."""
        answer = self._transport.ask(Asked("POST", f"{_WORKFLOWS}/validate", definition))
        return read_answer(Plan, answer.get("plan") if isinstance(answer, dict) else answer)

    def create_workflow(self, definition: Json, *, key: str | None = None) -> Workflow:
        """Make a workflow. ``key`` makes it safe to call again with the same one; without it a new one is taken."""
        return self._get(Workflow, Asked("POST", _WORKFLOWS, definition, key=key or make_key()))

    def replace_workflow(self, workflow_id: str, definition: Json) -> Workflow:
        """Make the next version of a workflow."""
        return self._get(Workflow, Asked("PUT", f"{_WORKFLOWS}/{quote_part(workflow_id)}", definition))

    def get_workflow(self, workflow_id: str) -> Workflow:
        """One workflow with its newest version."""
        return self._get(Workflow, Asked("GET", f"{_WORKFLOWS}/{quote_part(workflow_id)}"))

    def delete_workflow(self, workflow_id: str, *, force: bool = False) -> None:
        """Delete a workflow; ``force`` cancels its runs."""
        query = {"force": "true"} if force else None
        self._transport.ask(
            Asked("DELETE", f"{_WORKFLOWS}/{quote_part(workflow_id)}", query=query, patience_s=_CANCEL_S)
        )

    def list_workflows(self, *, name: str | None = None) -> Generator[Workflow, None, None]:
        """The workflows, newest first, asked for page by page."""
        return self._list(Workflow, _WORKFLOWS, "workflows", {"name": name})

    # Runs

    def start_workflow(
        self,
        workflow_id: str,
        inputs: Mapping[str, Json] | None = None,
        *,
        wait_s: float = 0.0,
        key: str | None = None,
    ) -> Run:
        """Start a run, and wait for its end for up to ``wait_s`` (0 to 60). About ``key`` see ``create_workflow``."""
        path = f"{_WORKFLOWS}/{quote_part(workflow_id)}/start"
        query = {"wait": f"{wait_s:g}"} if wait_s else None
        asked = Asked("POST", path, {"inputs": dict(inputs or {})}, query, key or make_key(), wait_s)
        return self._get(Run, asked)

    def get_run(self, run_id: str) -> RunView:
        """One run and how far each of its steps is."""
        return self._get(RunView, Asked("GET", f"{_RUNS}/{quote_part(run_id)}"))

    def get_newest_run(self, workflow_id: str) -> RunView:
        """The newest run of a workflow."""
        return self._get(RunView, Asked("GET", f"{_WORKFLOWS}/{quote_part(workflow_id)}/status"))

    def get_run_step(self, run_id: str, step: str, *, item: int | None = None) -> Attempted:
        """A step of a run, or one of its items, with all of its output."""
        query = None if item is None else {"item": str(item)}
        path = f"{_RUNS}/{quote_part(run_id)}/steps/{quote_part(step)}"
        return self._get(Attempted, Asked("GET", path, query=query))

    def list_runs(self, *, workflow_id: str | None = None, status: str | None = None) -> Generator[Run, None, None]:
        """The runs, newest first, asked for page by page."""
        filters = {"workflow_id": workflow_id, "status": status}
        return self._list(Run, _RUNS, "runs", filters)

    def cancel_run(self, run_id: str) -> Run:
        """Kill what runs, and answer once the run has ended."""
        return self._get(Run, Asked("POST", f"{_RUNS}/{quote_part(run_id)}/cancel", patience_s=_CANCEL_S))

    def approve_step(self, run_id: str, step: str, comment: str = "", *, item: int | None = None) -> RunView:
        """Let a run go on that waits for an approval; ``item`` is needed where each item of a step is approved."""
        return self._decide(run_id, step, "approve", comment, item)

    def reject_step(self, run_id: str, step: str, comment: str = "", *, item: int | None = None) -> RunView:
        """Refuse an approval: the step, or the item of it, fails."""
        return self._decide(run_id, step, "reject", comment, item)

    def retry_run(self, run_id: str) -> Run:
        """Run again what has failed of a run, and what depends on it, with the outputs of the rest."""
        return self._get(Run, Asked("POST", f"{_RUNS}/{quote_part(run_id)}/retry"))

    def stream_run_events(
        self, run_id: str, last_event_id: str = "", *, silence_s: float = 60.0
    ) -> Generator[ServerEvent, None, None]:
        """What happens to a run, from the beginning or after ``last_event_id``, until the server ends the stream.

        A connection that breaks, or on which nothing comes for ``silence_s``, raises ``ServerUnreachable``; call again
        with the id of the last event to go on. Close the generator to stop early.
        """
        yield from self._stream(Asked("GET", f"{_RUNS}/{quote_part(run_id)}/events"), last_event_id, silence_s)

    def _decide(self, run_id: str, step: str, decision: str, comment: str, item: int | None) -> RunView:
        path = f"{_RUNS}/{quote_part(run_id)}/steps/{quote_part(step)}/{decision}"
        body = {"comment": comment} | ({} if item is None else {"item": item})
        return self._get(RunView, Asked("POST", path, body))


def make_key() -> str:
    """A new ``Idempotency-Key``."""
    return uuid.uuid4().hex
