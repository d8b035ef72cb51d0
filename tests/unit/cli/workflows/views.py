"""Runs as a server shows them, for tests."""

from typing import Any

from sandgate.sdk.answers import RunView

TIME = "2026-01-01T00:00:00Z"


def attempt(status: str = "succeeded", **more: Any) -> dict[str, Any]:
    """What a step and an item have in common."""
    ended = status not in ("pending", "running", "waiting")
    facts: dict[str, Any] = {
        "status": status, "attempts": int(status != "pending"), "started_at": None if status == "pending" else TIME,
        "finished_at": TIME if ended else None, "duration_ms": 5 if ended else None, "exit_code": None,
        "outputs": None, "stdout": "", "stderr": "", "error": None,
    }  # fmt: skip
    return facts | more


def step(name: str, status: str = "succeeded", **more: Any) -> dict[str, Any]:
    """A step; ``items`` are statuses or whole items."""
    items = more.pop("items", None)
    if items is not None:
        rows = [each if isinstance(each, dict) else attempt(each) for each in items]
        items = [row | {"index": index} for index, row in enumerate(rows)]
    return attempt(status, **({"type": "code_execution"} | more)) | {"name": name, "items": items}


def run(*steps: dict[str, Any], status: str = "running", **more: Any) -> dict[str, Any]:
    """A run, as JSON."""
    live = status in ("pending", "running", "waiting")
    facts: dict[str, Any] = {
        "run_id": "run-1", "workflow_id": "workflow-1", "workflow_name": "w", "workflow_version": 1, "status": status,
        "creation_time": TIME, "started_at": TIME, "finished_at": None if live else "2026-01-01T00:00:02Z",
        "inputs": {}, "error": None,
    }  # fmt: skip
    return facts | {"steps": list(steps)} | more


def view(*steps: dict[str, Any], **more: Any) -> RunView:
    """A run, as the client answers it."""
    return RunView.model_validate(run(*steps, **more))
