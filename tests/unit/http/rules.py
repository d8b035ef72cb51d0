"""Who may do what: one rule for every operation of the document."""

from dataclasses import dataclass
from typing import Any

import httpx

from sandgate.core.ids import make_process_id
from tests.unit.http.site import ENVIRONMENTS, PASSWORD, Site

TRANSFER = {"source": "/proc", "target": "/proc"}
NEW = {"name": "e", "template": "python"}
SNAPSHOTS = "/api/v1/sandbox/snapshots"
PROCESSES = f"{ENVIRONMENTS}/{{environment_id}}/processes"
PROCESS = f"{PROCESSES}/{{process_id}}"
TERMINAL = f"{ENVIRONMENTS}/{{environment_id}}/terminal"
SLEEPER = {"argv": ["sleep", "100"], "pty": {"rows": 24, "cols": 80}}
VOLUMES = "/api/v1/sandbox/volumes"
TEMPLATES = "/api/v1/sandbox/templates"
ORCHESTRATOR = "/api/v1/orchestrator"
WORKFLOWS = f"{ORCHESTRATOR}/workflows"
WORKFLOW = f"{WORKFLOWS}/{{workflow_id}}"
RUN = f"{ORCHESTRATOR}/runs/{{run_id}}"
SECRETS = f"{ORCHESTRATOR}/secrets"
SCHEDULES = f"{ORCHESTRATOR}/schedules"
SCHEDULE = f"{SCHEDULES}/{{schedule_id}}"
WEBHOOKS = f"{ORCHESTRATOR}/webhooks"
WEBHOOK = f"{WEBHOOKS}/{{webhook_id}}"
DEFINITION = {
    "name": "w",
    "steps": [{"name": "ask", "type": "approval"}],
    "inputs": {"event": {"type": "object"}},
}
ROLES = ("anonymous", "viewer", "user", "admin")


@dataclass(frozen=True)
class Rule:
    """What each role is answered; for things with an owner: the owner, and (``stranger``) another user."""

    anonymous: int
    viewer: int
    user: int
    admin: int
    stranger: int | None = None
    body: Any = None
    query: str = ""


# Rules for what belongs to somebody name the owner's own status per role; the things below belong to ``user``,
# so that ``viewer`` and ``stranger`` are somebody else and find nothing.
RULES: dict[tuple[str, str], Rule] = {
    ("POST", ENVIRONMENTS): Rule(401, 403, 201, 201, body=NEW),
    ("GET", ENVIRONMENTS): Rule(401, 200, 200, 200),
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}/metrics"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}/network"): Rule(401, 404, 200, 200, 404),
    ("PATCH", f"{ENVIRONMENTS}/{{environment_id}}"): Rule(401, 404, 200, 200, 404, {"name": "n"}),
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/pause"): Rule(401, 404, 200, 200, 404),
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/resume"): Rule(401, 404, 200, 200, 404),
    ("DELETE", f"{ENVIRONMENTS}/{{environment_id}}"): Rule(401, 404, 200, 200, 404),
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/snapshots"): Rule(401, 404, 201, 201, 404),
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/fork"): Rule(401, 404, 201, 201, 404),
    ("GET", SNAPSHOTS): Rule(401, 200, 200, 200),
    ("GET", f"{SNAPSHOTS}/{{snapshot_id}}"): Rule(401, 404, 200, 200, 404),
    ("DELETE", f"{SNAPSHOTS}/{{snapshot_id}}"): Rule(401, 404, 200, 200, 404),
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/execute"): Rule(401, 404, 200, 200, 404, {"code": "pass"}),
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}/executions"): Rule(401, 404, 200, 200, 404),
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/sessions"): Rule(401, 404, 201, 201, 404),
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}/sessions"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}/sessions/{{session_id}}"): Rule(401, 404, 200, 200, 404),
    ("DELETE", f"{ENVIRONMENTS}/{{environment_id}}/sessions/{{session_id}}"): Rule(401, 404, 200, 200, 404),
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/sessions/{{session_id}}/interrupt"): Rule(401, 404, 200, 200, 404),
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/sessions/{{session_id}}/restart"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}/files"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}/stat"): Rule(401, 404, 200, 200, 404, query="?path=/proc"),
    # Nothing can be done with that path: 409 says that the caller got as far as that.
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}/files/{{path}}"): Rule(401, 404, 409, 409, 404),
    ("PUT", f"{ENVIRONMENTS}/{{environment_id}}/files/{{path}}"): Rule(401, 404, 409, 409, 404),
    ("DELETE", f"{ENVIRONMENTS}/{{environment_id}}/files/{{path}}"): Rule(401, 404, 409, 409, 404),
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}/archive"): Rule(401, 404, 200, 200, 404),
    # A body that is no archive: 400 says that the caller got as far as that.
    ("PUT", f"{ENVIRONMENTS}/{{environment_id}}/archive"): Rule(401, 404, 400, 400, 404),
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}/watch"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}/search"): Rule(401, 404, 200, 200, 404),
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/links"): Rule(401, 404, 201, 201, 404, {"path": "f"}),
    # Who has the address needs nothing else; nothing can be done with that path, which 409 gets as far as.
    ("GET", "/api/v1/links/{link}"): Rule(409, 409, 409, 409),
    # It is a link to be read with.
    ("PUT", "/api/v1/links/{link}"): Rule(404, 404, 404, 404),
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/port-links/{{port}}"): Rule(401, 404, 201, 201, 404, {}),
    # Nothing listens there: 409 says that the caller got as far as that.
    **{
        (method, f"{ENVIRONMENTS}/{{environment_id}}/ports/{{port}}/{{rest}}"): Rule(401, 404, 409, 409, 404)
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    },
    # Who has the address needs nothing else.
    **{
        (method, "/api/v1/port-links/{port_link}/{rest}"): Rule(409, 409, 409, 409)
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    },
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/folders"): Rule(401, 404, 200, 200, 404, {"path": "f"}),
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/move"): Rule(401, 404, 409, 409, 404, TRANSFER),
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/copy"): Rule(401, 404, 409, 409, 404, TRANSFER),
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}/executions/{{execution_id}}"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{ENVIRONMENTS}/{{environment_id}}/executions/{{execution_id}}/events"): Rule(401, 404, 200, 200, 404),
    # The execution has ended: 409 says that the caller got as far as that.
    ("POST", f"{ENVIRONMENTS}/{{environment_id}}/executions/{{execution_id}}/cancel"): Rule(401, 404, 409, 409, 404),
    ("POST", PROCESSES): Rule(401, 404, 201, 201, 404, {"argv": ["true"]}),
    ("GET", PROCESSES): Rule(401, 404, 200, 200, 404),
    ("GET", PROCESS): Rule(401, 404, 200, 200, 404),
    ("DELETE", PROCESS): Rule(401, 404, 200, 200, 404),
    ("GET", f"{PROCESS}/output"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{PROCESS}/events"): Rule(401, 404, 200, 200, 404),
    ("POST", f"{PROCESS}/stdin"): Rule(401, 404, 200, 200, 404),
    ("POST", f"{PROCESS}/resize"): Rule(401, 404, 200, 200, 404, {"rows": 5, "cols": 5}),
    ("POST", f"{PROCESS}/signal"): Rule(401, 404, 200, 200, 404, {"signal": "SIGCONT"}),
    ("POST", f"{PROCESS}/wait"): Rule(401, 404, 200, 200, 404, {"timeout": 0}),
    ("POST", TERMINAL): Rule(401, 404, 201, 201, 404, {"command": "true"}),
    # Not over a web socket, which is looked at before whose it is: e2e/test_terminals.py asks as another one.
    ("GET", TERMINAL): Rule(401, 426, 426, 426, 426),
    ("POST", VOLUMES): Rule(401, 403, 201, 201, body={"name": "another", "size_mb": 16}),
    ("GET", VOLUMES): Rule(401, 200, 200, 200),
    ("GET", f"{VOLUMES}/{{volume_id}}"): Rule(401, 404, 200, 200, 404),
    # A viewer changes nothing, whoever's it is.
    ("DELETE", f"{VOLUMES}/{{volume_id}}"): Rule(401, 403, 200, 200, 404),
    ("GET", TEMPLATES): Rule(401, 200, 200, 200),
    ("POST", TEMPLATES): Rule(401, 403, 201, 201, body={"name": "t", "base": "python-3.9"}),
    ("GET", f"{TEMPLATES}/{{name}}"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{TEMPLATES}/{{name}}/log"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{TEMPLATES}/{{name}}/events"): Rule(401, 404, 200, 200, 404),
    # Nobody waits for it.
    ("PUT", f"{TEMPLATES}/{{name}}/archive"): Rule(401, 404, 409, 409, 404),
    ("DELETE", f"{TEMPLATES}/{{name}}"): Rule(401, 404, 200, 200, 404),
    ("POST", WORKFLOWS): Rule(401, 403, 201, 201, body=DEFINITION),
    ("GET", WORKFLOWS): Rule(401, 200, 200, 200),
    ("GET", "/api/v1/orchestrator/schema"): Rule(401, 200, 200, 200),
    ("POST", f"{WORKFLOWS}/validate"): Rule(401, 200, 200, 200, body=DEFINITION),
    ("GET", WORKFLOW): Rule(401, 404, 200, 200, 404),
    ("PUT", WORKFLOW): Rule(401, 404, 200, 200, 404, DEFINITION),
    # A run of it waits: 409 says that the caller got as far as that.
    ("DELETE", WORKFLOW): Rule(401, 404, 409, 409, 404),
    ("POST", f"{WORKFLOW}/start"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{WORKFLOW}/status"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{ORCHESTRATOR}/runs"): Rule(401, 200, 200, 200),
    ("GET", RUN): Rule(401, 404, 200, 200, 404),
    ("GET", f"{RUN}/history"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{RUN}/steps/{{step}}"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{RUN}/events"): Rule(401, 404, 200, 200, 404),
    # It waits: 409 says that the caller got as far as that.
    ("POST", f"{RUN}/retry"): Rule(401, 404, 409, 409, 404),
    ("POST", f"{RUN}/cancel"): Rule(401, 404, 200, 200, 404),
    ("POST", f"{RUN}/steps/{{step}}/approve"): Rule(401, 404, 200, 200, 404),
    ("POST", f"{RUN}/steps/{{step}}/reject"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{RUN}/artifacts"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{RUN}/artifacts/{{artifact_id}}"): Rule(401, 404, 200, 200, 404),
    # Secrets are one's own affair, also against an admin.
    ("GET", SECRETS): Rule(401, 200, 200, 200),
    ("PUT", f"{SECRETS}/{{secret_name}}"): Rule(401, 403, 200, 200, body={"value": PASSWORD}),
    ("DELETE", f"{SECRETS}/{{secret_name}}"): Rule(401, 403, 200, 404, 404),
    # Made for a workflow of the user's own; ``{workflow_id}`` in a body is filled in like one in a path.
    ("POST", SCHEDULES): Rule(401, 404, 201, 201, 404, {"workflow_id": "{workflow_id}", "cron": "@daily"}),
    ("GET", SCHEDULES): Rule(401, 200, 200, 200),
    ("GET", SCHEDULE): Rule(401, 404, 200, 200, 404),
    ("PATCH", SCHEDULE): Rule(401, 404, 200, 200, 404, {"paused": True}),
    ("DELETE", SCHEDULE): Rule(401, 404, 200, 200, 404),
    ("POST", f"{SCHEDULE}/trigger"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{SCHEDULE}/upcoming"): Rule(401, 404, 200, 200, 404),
    ("POST", WEBHOOKS): Rule(401, 404, 201, 201, 404, {"workflow_id": "{workflow_id}"}),
    ("GET", WEBHOOKS): Rule(401, 200, 200, 200),
    ("GET", WEBHOOK): Rule(401, 404, 200, 200, 404),
    ("PATCH", WEBHOOK): Rule(401, 404, 200, 200, 404, {"enabled": False}),
    ("DELETE", WEBHOOK): Rule(401, 404, 200, 200, 404),
    ("POST", f"{WEBHOOK}/rotate"): Rule(401, 404, 200, 200, 404),
    ("GET", f"{WEBHOOK}/deliveries"): Rule(401, 404, 200, 200, 404),
    # Who has the address needs nothing else.
    ("POST", "/api/v1/hooks/{token}"): Rule(200, 200, 200, 200),
    ("POST", "/api/v1/auth/token"): Rule(200, 200, 200, 200, body={"username": "user", "password": PASSWORD}),
    ("POST", "/api/v1/auth/revoke"): Rule(401, 200, 200, 200),
    ("POST", "/api/v1/auth/api-keys"): Rule(401, 403, 201, 201, body={"label": "x"}),
    ("GET", "/api/v1/auth/api-keys"): Rule(401, 200, 200, 200),
    # Keys are one's own affair, also against an admin.
    ("DELETE", "/api/v1/auth/api-keys/{api_key_id}"): Rule(401, 404, 200, 404, 404),
    ("GET", "/api/v1/me"): Rule(401, 200, 200, 200),
    ("POST", "/api/v1/users"): Rule(401, 403, 403, 201, body={"username": "new", "password": PASSWORD}),
    ("GET", "/api/v1/users"): Rule(401, 403, 403, 200),
    ("GET", "/api/v1/users/{user_id}"): Rule(401, 403, 403, 200),
    ("PATCH", "/api/v1/users/{user_id}"): Rule(401, 403, 403, 200, body={"role": "user"}),
    ("DELETE", "/api/v1/users/{user_id}"): Rule(401, 403, 403, 200),
    ("GET", "/api/v1/users/{user_id}/quota"): Rule(401, 403, 403, 200),
    ("PUT", "/api/v1/users/{user_id}/quota"): Rule(401, 403, 403, 200, body={"environments": 5}),
    ("DELETE", "/api/v1/users/{user_id}/quota"): Rule(401, 403, 403, 200),
    ("GET", "/api/v1/audit"): Rule(401, 403, 403, 200),
    ("GET", "/healthz"): Rule(200, 200, 200, 200),
    ("GET", "/readyz"): Rule(200, 200, 200, 200),
    ("GET", "/metrics"): Rule(401, 403, 403, 200),
}


async def make_things(site: Site, path: str = "") -> dict[str, str]:
    """One of each kind of thing, the user's own; a session or a process only where the path asks for one."""
    environment_id = await site.create_environment()
    execution = await site.post(f"{ENVIRONMENTS}/{environment_id}/execute", {"code": "pass"})
    key = await site.post("/api/v1/auth/api-keys", {"label": "mine"})
    workflow = await site.post(WORKFLOWS, DEFINITION)
    workflow_id = workflow.json()["workflow_id"]
    run = await site.post(f"{WORKFLOWS}/{workflow_id}/start", {})
    await site.send("PUT", f"{SECRETS}/API_TOKEN", json={"value": PASSWORD})
    artifact = await site.add_artifact(run.json()["run_id"], "out.txt", b"out")
    schedule = await site.post(SCHEDULES, {"workflow_id": workflow_id, "cron": "@daily"})
    webhook = (await site.post(WEBHOOKS, {"workflow_id": workflow_id})).json()
    session_id = "session-06evrhy3k000t5v8c0p9x2m4qj"
    if "{session_id}" in path:
        session_id = (await site.post(f"{ENVIRONMENTS}/{environment_id}/sessions", {})).json()["session_id"]
    snapshot_id = "snap-06evrhxq8g000wmabyzsqnd3wf"
    if "{snapshot_id}" in path:
        made = await site.post(f"{ENVIRONMENTS}/{environment_id}/snapshots")
        snapshot_id = made.json()["snapshot_id"]
    process_id: str = make_process_id()
    if "{process_id}" in path:
        process_id = (await site.post(PROCESSES.format(environment_id=environment_id), SLEEPER)).json()["process_id"]
    volume = await site.post(VOLUMES, {"name": "data", "size_mb": 16})
    link = (await site.post(f"{ENVIRONMENTS}/{environment_id}/links", {"path": "/proc"})).json()
    port_link = (await site.post(f"{ENVIRONMENTS}/{environment_id}/port-links/8000", {})).json()
    return {
        "port": "8000",
        "port_link": port_link["link_path"].split("/")[-2],
        "rest": "",
        "session_id": session_id,
        "snapshot_id": snapshot_id,
        "process_id": process_id,
        "link": link["link_path"].rpartition("/")[2],
        "artifact_id": artifact.artifact_id,
        "secret_name": "API_TOKEN",
        "environment_id": environment_id,
        "volume_id": volume.json()["volume_id"],
        "execution_id": execution.json()["execution_id"],
        "api_key_id": key.json()["api_key_id"],
        "user_id": site.accounts["user"].principal.user_id,
        "name": (await site.add_template()).template_id,
        "path": "/proc",
        "workflow_id": workflow_id,
        "run_id": run.json()["run_id"],
        "schedule_id": schedule.json()["schedule_id"],
        "webhook_id": webhook["webhook_id"],
        "token": webhook["hook_path"].rpartition("/")[2],
        "step": "ask",
    }


async def ask(site: Site, key: tuple[str, str], who: str, things: dict[str, str]) -> httpx.Response:
    """Send the request of a rule as somebody, with the things in its path and body."""
    rule, (method, path) = RULES[key], key
    named = {} if rule.body is None else {"json": filled(rule.body, things)}
    whom = None if who == "anonymous" else who
    return await site.send(method, path.format(**things) + rule.query, whom, **named)


def filled(body: dict[str, Any], things: dict[str, str]) -> dict[str, Any]:
    """The body with the things that it names."""
    marks = {f"{{{name}}}": value for name, value in things.items()}
    return {name: marks.get(value, value) if isinstance(value, str) else value for name, value in body.items()}
