"""Records to put into a store."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sandgate.core.environment import Environment
from sandgate.core.execution import ErrorReport, Execution, Usage
from sandgate.core.ids import (
    EnvironmentId,
    RunId,
    UserId,
    WorkflowId,
    make_api_key_id,
    make_environment_id,
    make_execution_id,
    make_run_id,
    make_schedule_id,
    make_signal_id,
    make_snapshot_id,
    make_user_id,
    make_workflow_id,
)
from sandgate.core.limits import Limits
from sandgate.core.principal import ApiKey, Role, User
from sandgate.core.run import HistoryEvent, Run, RunSignal, RunStatus, SignalKind, StepRun, StepStatus
from sandgate.core.snapshot import Snapshot
from sandgate.core.states import EnvironmentStatus, ExecutionStatus, Isolation
from sandgate.core.trigger import CatchUp, Overlap, Policy, Schedule, Timing
from sandgate.core.workflow import Workflow

NOW = datetime(2026, 3, 1, 12, 30, 15, 123_457, tzinfo=UTC)
OWNER = UserId("user-000000000001")
OTHER = UserId("user-000000000002")

# Every kind of character that a database may treat in a way of its own.
STRANGE_TEXT = (
    "NUL \0, backslash \\ \\0 \\u0000, quote ' \" %s :x ?, 4 bytes \U0001f40d, e\u0301 \u00e9, \u202e, \ud800"
)


def an_environment(**changes: Any) -> Environment:
    """A new environment that is being made."""
    environment = Environment(
        environment_id=make_environment_id(),
        owner_id=OWNER,
        name="data-1",
        template="python-3.11",
        isolation=Isolation.STANDARD,
        status=EnvironmentStatus.CREATING,
        timeout_s=3600,
        created_at=NOW,
        expires_at=NOW + timedelta(seconds=3600),
        limits=Limits(),
    )
    return replace(environment, **changes)


def a_snapshot(**changes: Any) -> Snapshot:
    """A snapshot of somebody's."""
    snapshot = Snapshot(
        snapshot_id=make_snapshot_id(),
        owner_id=OWNER,
        environment_id=EnvironmentId("env-000000000001"),
        name="prepared",
        template="python-3.11",
        isolation=Isolation.GVISOR,
        created_at=NOW,
        size_bytes=2**40,
        disk_bytes=2**39,
        files=12,
        skipped=1,
        is_consistent=False,
        sha256=bytes(range(32)),
        server_id="server",
    )
    return replace(snapshot, **changes)


def a_running_execution(**changes: Any) -> Execution:
    """An execution that has just begun."""
    execution = Execution(
        execution_id=make_execution_id(),
        environment_id=EnvironmentId("env-000000000001"),
        owner_id=OWNER,
        status=ExecutionStatus.RUNNING,
        timeout_s=0.1,
        started_at=NOW,
    )
    return replace(execution, **changes)


def ended(execution: Execution, **changes: Any) -> Execution:
    """The same execution after code that failed."""
    end = replace(
        execution,
        status=ExecutionStatus.FAILED,
        finished_at=NOW + timedelta(milliseconds=20),
        duration_ms=20,
        exit_code=1,
        stdout="Hello\n",
        stderr="Oh\n",
        stdout_truncated=False,
        stderr_truncated=True,
        error=ErrorReport("ValueError", "no", 'File "<code>", line 3'),
        usage=Usage(cpu_ms=12, peak_memory_bytes=9_437_184),
    )
    return replace(end, **changes)


def a_user(**changes: Any) -> User:
    """An enabled user."""
    user_id = make_user_id()
    user = User(user_id, f"name-{user_id}", Role.USER, "$argon2id$x", False, NOW, NOW)
    return replace(user, **changes)


def an_admin(**changes: Any) -> User:
    """An enabled admin."""
    return a_user(role=Role.ADMIN, **changes)


def an_api_key(user: User, **changes: Any) -> ApiKey:
    """A key of the user that was never used and does not expire."""
    key = ApiKey(make_api_key_id(), user.user_id, "ci", bytes(range(32)), NOW, None, None)
    return replace(key, **changes)


def a_workflow(**changes: Any) -> Workflow:
    """The first version of a workflow."""
    definition = {
        "name": "report",
        "steps": [{"name": "a", "type": "code_execution", "config": {"code": STRANGE_TEXT}}],
    }
    workflow = Workflow(make_workflow_id(), OWNER, "report", 1, definition, NOW, NOW)
    return replace(workflow, **changes)


def a_run(workflow_id: WorkflowId, **changes: Any) -> Run:
    """A run that a process has just begun to work on."""
    run = Run(
        run_id=make_run_id(),
        workflow_id=workflow_id,
        owner_id=OWNER,
        workflow_name="report",
        workflow_version=1,
        status=RunStatus.RUNNING,
        created_at=NOW,
        inputs={"day": STRANGE_TEXT},
        started_at=NOW,
        deadline_at=NOW + timedelta(hours=1),
        lease_owner="one",
        lease_until=NOW + timedelta(seconds=10),
        outputs={"total": STRANGE_TEXT},
        parent_run_id=RunId("run-000000000001"),
        parent_step="child",
        depth=2,
    )
    return replace(run, **changes)


def a_last_word(run_id: RunId) -> RunSignal:
    """What is said to a run whose workflow is deleted."""
    return RunSignal(make_signal_id(), run_id, SignalKind.CANCEL, NOW, {"who": STRANGE_TEXT})


def a_step(run: Run, **changes: Any) -> StepRun:
    """A step that has failed."""
    step = StepRun(
        run_id=run.run_id,
        step="a",
        status=StepStatus.FAILED,
        attempt=2,
        losses=1,
        started_at=NOW,
        finished_at=NOW + timedelta(milliseconds=20),
        wake_at=NOW + timedelta(seconds=1),
        duration_ms=20,
        exit_code=1,
        outputs={"rows": [1, 2.5, None, STRANGE_TEXT]},
        error=ErrorReport("ValueError", "no", 'File "<code>", line 3'),
        stdout=STRANGE_TEXT,
        stderr="Oh\n",
        child_run_id=RunId("run-000000000002"),
    )
    return replace(step, **changes)


def an_event(run: Run, number: int, **changes: Any) -> HistoryEvent:
    """Something that happened to a run."""
    event = HistoryEvent(run.run_id, number, NOW, "step_failed", "a", None, 2, {"reason": "failed"})
    return replace(event, **changes)


def a_schedule(workflow_id: WorkflowId, **changes: Any) -> Schedule:
    """One that is due, every field of its timing and policy filled."""
    schedule = Schedule(
        schedule_id=make_schedule_id(),
        workflow_id=workflow_id,
        owner_id=OWNER,
        name="nightly",
        timing=Timing("0 3 * * *", "Europe/Berlin", start_at=NOW, end_at=NOW + timedelta(minutes=9), jitter_s=5),
        policy=Policy(CatchUp.ALL, 3, 600, Overlap.QUEUE, 2),
        created_at=NOW,
        updated_at=NOW,
        inputs={"day": STRANGE_TEXT},
        next_tick_at=NOW,
        due_at=NOW,
    )
    return replace(schedule, **changes)
