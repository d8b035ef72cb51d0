"""What the OpenAPI document says of groups of operations, and of parameters that mean the same wherever they are."""

from collections.abc import Mapping
from typing import Any

#: In the order in which somebody who is new here needs them.
GROUPS: Mapping[str, str] = {
    "authentication": "Tokens and API keys: what every other request sends along.",
    "environments": "Places to run code in: made, listed, changed, paused and ended.",
    "executions": "Pieces of code that are run once in an environment, each in a fresh interpreter.",
    "sessions": "Interpreters that stay between executions, with all that their code has made.",
    "processes": "Commands in the background of environments, and terminals.",
    "files": "Files and folders of environments: up, down, as archives, found, watched, and by links for others.",
    "network": "What an environment may reach, and has reached.",
    "ports": "Servers that listen in environments, asked from outside.",
    "templates": "What environments are made from: those of the server, and those that users have built.",
    "snapshots": "Files of environments at one moment, kept to start others from, and copies of environments.",
    "volumes": "Folders that outlive environments.",
    "workflows": "Definitions of steps that are brought to their end whatever crashes.",
    "runs": "Workflows while they happen, and afterwards.",
    "artifacts": "Files that steps of runs have left.",
    "secrets": "Values for code that nobody can read back.",
    "schedules": "Workflows that are started at times.",
    "webhooks": "Workflows that are started by requests of others.",
    "users": "For admins: who may use the service, and how much of it.",
    "audit": "For admins: who did what to which.",
    "health": "For probes and for Prometheus.",
}

_PARAMETERS: Mapping[tuple[str, str], str] = {
    ("path", "api_key_id"): "The id of the API key.",
    ("path", "artifact_id"): "The id of the artifact, from the list of its run.",
    ("path", "environment_id"): "The id of the environment, which its creation has answered.",
    ("path", "execution_id"): "The id of the execution.",
    ("path", "link"): "The signed part of a link's address.",
    ("path", "name"): "The template: its `name` for the newest version, `name@version`, or an id.",
    ("path", "path"): "From the work folder on; with another slash before it, as in `files//tmp/a`, from the root on.",
    ("path", "port"): "What the server inside listens on.",
    ("path", "port_link"): "The signed part of a link's address.",
    ("path", "process_id"): "The id of the process.",
    ("path", "rest"): "What the server inside is asked for; it is passed on as it stands, with its query.",
    ("path", "run_id"): "The id of the run.",
    ("path", "schedule_id"): "The id of the schedule.",
    ("path", "secret_name"): "The name of the secret: 1 to 64 of `A-Z`, `0-9` and `_`.",
    ("path", "session_id"): "The id of the session.",
    ("path", "snapshot_id"): "The id of the snapshot.",
    ("path", "step"): "The name of the step.",
    ("path", "token"): "The part of the webhook's address that is its credential.",
    ("path", "user_id"): "The id of the user.",
    ("path", "volume_id"): "The id of the volume.",
    ("path", "webhook_id"): "The id of the webhook.",
    ("path", "workflow_id"): "The id of the workflow.",
    ("query", "cols"): "Columns of the terminal.",
    ("query", "count"): "How many.",
    ("query", "cursor"): "The `next_cursor` of the page before.",
    ("query", "format"): "What kind of archive it is.",
    ("query", "limit"): "How many items a page has at most.",
    ("query", "name"): "Only those with this name.",
    ("query", "outcome"): "Only those with this outcome.",
    ("query", "process_id"): "A process that has a terminal; without it a new shell.",
    ("query", "rows"): "Rows of the terminal.",
    ("query", "step"): "Only those of this step.",
    ("query", "template"): "Only those of this template.",
    ("query", "workflow_id"): "Only those of this workflow.",
}


def describe(document: dict[str, Any]) -> None:
    """Put it into a document, wherever an operation says nothing of its own."""
    document["tags"] = [{"name": name, "description": text} for name, text in GROUPS.items()]
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                text = _PARAMETERS.get((parameter.get("in"), parameter.get("name")))
                if text is not None:
                    parameter.setdefault("description", text)
