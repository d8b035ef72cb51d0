"""Runs and their steps as rows, and back."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import Row

from sandgate.core.execution import ErrorReport
from sandgate.core.run import Run, RunStatus, StepRun, StepStatus
from sandgate.core.trigger import TriggerType

NO_ITEM = -1
"""In the place of the item, for a step as a whole."""


def run_row_of(run: Run) -> dict[str, Any]:
    """What stands in the row of a run."""
    row = {field.name: getattr(run, field.name) for field in fields(run)}
    row["error"] = _plain(run.error)
    row["templates"] = dict(run.templates) or None
    return row


def step_row_of(step: StepRun) -> dict[str, Any]:
    """What stands in the row of a step."""
    row = {field.name: getattr(step, field.name) for field in fields(step)}
    row["item"] = NO_ITEM if step.item is None else step.item
    row["error"] = _plain(step.error)
    return row


def _plain(error: ErrorReport | None) -> Mapping[str, str] | None:
    return None if error is None else {"name": error.name, "value": error.value, "traceback": error.traceback}


def _report(value: Mapping[str, str] | None) -> ErrorReport | None:
    return None if value is None else ErrorReport(**value)


def parse_run(row: Row[Any], **changes: Any) -> Run:
    """What a row of a run says, but for the changes."""
    values = dict(row._mapping)
    values["status"] = RunStatus(values["status"])
    values["trigger_type"] = TriggerType(values["trigger_type"])
    values["error"] = _report(values["error"])
    values["templates"] = values["templates"] or {}
    return Run(**{**values, **changes})


def parse_step(row: Row[Any]) -> StepRun:
    """What a row of a step says."""
    values = dict(row._mapping)
    values["status"] = StepStatus(values["status"])
    values["item"] = None if values["item"] == NO_ITEM else values["item"]
    values["error"] = _report(values["error"])
    return StepRun(**values)
