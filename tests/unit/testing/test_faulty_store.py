"""Every durable write has its points, and what a test asks for happens there, once."""

import ast
import inspect
from pathlib import Path
from typing import get_type_hints

import pytest

import sandgate.workflows
from sandgate.core.errors import StoreUnavailable
from sandgate.core.run import RunStatus, StepStatus
from sandgate.store.base import RunChange, Store
from sandgate.store.sql_store import SqlStore
from sandgate.testing.faults import FileFaults, PlannedFaults, parse_fault
from sandgate.testing.faulty_store import FAULT_POINTS, PARTS, READS, RUN_EVENTS, WRITES, FaultyStore
from tests.contract.store.records import a_run, a_workflow
from tests.sqlite_store import database_path, empty_database, store

__all__ = ["database_path", "empty_database", "store"]


def _methods() -> set[str]:
    parts = get_type_hints(Store)
    assert set(parts) == set(PARTS)
    return {
        f"{name}.{method}"
        for name, protocol in parts.items()
        for method, function in vars(protocol).items()
        if inspect.isfunction(function) and not method.startswith("_")
    }


def test_every_method_of_every_store_is_known() -> None:
    """A new one has to be listed as a read, or as a write with points that the crash tests go through."""
    unlisted = _methods() - READS - set(WRITES)
    assert not unlisted, f"List these in WRITES or READS of sandgate.testing.faulty_store: {sorted(unlisted)}"
    gone = (READS | set(WRITES)) - _methods()
    assert not gone, f"Take these out of WRITES and READS: {sorted(gone)}"
    assert not READS & set(WRITES)
    assert len(FAULT_POINTS) == len(set(FAULT_POINTS))


def _noted_words() -> set[str]:
    """The words that the rules of runs put into the histories of runs that are there, as they stand in the source."""
    folder = Path(sandgate.workflows.__path__[0])
    # Webhooks note deliveries, which are rows of their own.
    calls = [
        node
        for file in folder.glob("*.py")
        if file.stem != "webhooks"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("_note", "note")
    ]
    words: set[str] = set()
    for call in calls:
        match call.args[0]:
            case ast.Constant(value=str() as word):
                words.add(word)
            case ast.JoinedStr(values=[ast.Constant(value="step_"), _]):
                words |= {f"step_{status}" for status in StepStatus}
            case ast.JoinedStr(values=[ast.Constant(value="run_"), _]):
                words |= {f"run_{status}" for status in RunStatus}
            case other:
                raise AssertionError(f"Teach this test to read {ast.unparse(other)}")
    return words - {"run_started", "step_pending", "step_running", "run_pending", "run_running", "run_waiting"}


def test_every_event_of_a_run_is_a_point() -> None:
    """What the rules write into a run's history can be hit by name."""
    assert _noted_words() == set(RUN_EVENTS)


async def test_fail_comes_before_the_write_and_unknown_after(store: SqlStore) -> None:
    """Once each; then the store works as before."""
    faults = PlannedFaults("workflows.insert.before=fail", "runs.insert.after=unknown@2")
    faulty = FaultyStore(store, faults)
    workflow = a_workflow()
    with pytest.raises(StoreUnavailable) as failed:
        await faulty.workflows.insert(workflow)
    assert failed.value.details == {}
    assert await store.workflows.find(workflow.workflow_id) is None
    await faulty.workflows.insert(workflow)
    first, second = a_run(workflow.workflow_id), a_run(workflow.workflow_id)
    assert await faulty.runs.insert(RunChange(first))
    with pytest.raises(StoreUnavailable) as lost:
        await faulty.runs.insert(RunChange(second))
    assert lost.value.details == {"outcome": "unknown"}
    assert await faulty.runs.find(second.run_id) == second
    assert not faults.waiting


def test_a_fault_in_a_file_happens_once(tmp_path: Path) -> None:
    """At the asked occurrence; a process that starts afterwards meets it no more."""
    path = tmp_path / "fault"
    path.write_text("runs.renew.before=kill@2")
    faults = FileFaults(path)
    assert faults.take("runs.renew.after") is None
    assert faults.take("runs.renew.before") is None
    fault = faults.take("runs.renew.before")
    assert fault is not None
    assert (fault.action, path.exists()) == ("kill", False)
    assert FileFaults(path).take("runs.renew.before") is None
    with pytest.raises(ValueError, match="is no fault"):
        parse_fault("runs.renew.before")


def test_faults_in_a_file_happen_one_after_the_other(tmp_path: Path) -> None:
    """The second one waits until the first one has happened."""
    path = tmp_path / "fault"
    path.write_text("runs.renew.before=kill\nruns.renew.after=fail")
    assert FileFaults(path).take("runs.renew.after") is None
    assert FileFaults(path).take("runs.renew.before") is not None
    assert FileFaults(path).take("runs.renew.before") is None
    fault = FileFaults(path).take("runs.renew.after")
    assert fault is not None
    assert (fault.action, path.exists()) == ("fail", False)
