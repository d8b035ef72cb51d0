"""The end of a run that the server cannot work on: a bug met it, or its definition cannot be read any more."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from sandgate.core.execution import ErrorReport
from sandgate.core.run import HistoryEvent, Run, RunStatus, StepRun, StepStatus
from sandgate.workflows.events import Changes

_KIND = "run_failed"


def condemn(run: Run, steps: Iterable[StepRun], reason: str, now: datetime) -> Changes:
    """What is to be written so that the run is over as ``failed``, with everything of it that has not ended.

    ``reason`` is for the user.
    """
    error = ErrorReport("InternalError", reason, "")
    ended = [
        replace(row, status=StepStatus.FAILED, finished_at=now, wake_at=None, error=error)
        for row in steps
        if row.is_live
    ]
    over = replace(run, status=RunStatus.FAILED, finished_at=now, wake_at=None, error=error, events=run.events + 1)
    history = [HistoryEvent(run.run_id, run.events, now, _KIND, details={"reason": reason})]
    return Changes(over, ended, history, [], [])
