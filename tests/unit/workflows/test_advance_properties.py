"""Whatever the graph and whatever happens: the rules of runs, against a model that is plain to read."""

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sandgate.core.run import RunStatus, StepResult, StepRun, StepStatus
from sandgate.core.workflow import RetryPolicy, StepDefinition, WorkflowDefinition
from sandgate.workflows.events import AttemptEnded, CancelAsked, Entered, TakenOver
from tests.unit.workflows.walk import (
    CANCELLED,
    FAILED,
    LOST,
    SUCCEEDED,
    TIMED_OUT,
    Walk,
    a_child,
    a_definition,
    a_sleep,
    a_step,
    an_approval,
)

_RESULTS = [SUCCEEDED, SUCCEEDED, SUCCEEDED, FAILED, TIMED_OUT, LOST, CANCELLED]
_GOOD = StepStatus.SUCCEEDED


@st.composite
def _steps(draw: st.DrawFn, prefix: str, most: int, misfits: bool) -> tuple[StepDefinition, ...]:
    made: list[StepDefinition] = []
    for number in range(draw(st.integers(0 if prefix != "s" else 1, most))):
        needs = draw(st.lists(st.sampled_from(made), unique_by=lambda step: step.name, max_size=3)) if made else []
        foreach = draw(st.sampled_from([None, None, None, [], [1], [1, 2, 3]]))
        make, more = draw(_kinds(misfits=misfits and foreach is not None))
        made.append(
            make(
                f"{prefix}{number}",
                *(step.name for step in needs),
                condition=draw(st.sampled_from([None, None, "always()", "failure()", "success()", "cancelled()"])),
                foreach=foreach,
                max_parallel=draw(st.sampled_from([None, 1, 2])),
                **more,
            )
        )
    return tuple(made)


@st.composite
def _kinds(draw: st.DrawFn, *, misfits: bool) -> tuple[Callable[..., StepDefinition], dict[str, Any]]:
    match draw(st.sampled_from(["code", "code", "code", "child", "sleep", "approval"])):
        case "sleep":
            texts = [{"seconds": 2}, {"until": "2026-01-01T00:00:02Z"}, {"until": "2025-01-01T00:00:00+01:00"}]
            # An item that has no such time fails alone.
            by_item = [{"seconds": "${{ item }}"}, {"until": "${{ item }}"}] if misfits else []
            return a_sleep, {"config": draw(st.sampled_from(texts + by_item))}
        case "approval":
            return an_approval, {"timeout_s": draw(st.sampled_from([None, 2.5]))}
        case kind:
            retry = RetryPolicy(draw(st.integers(1, 3)), draw(st.sampled_from([0.0, 1.0])))
            return a_child if kind == "child" else a_step, {"retry": retry}


@st.composite
def _definitions(draw: st.DrawFn, *, misfits: bool = True) -> WorkflowDefinition:
    return a_definition(
        *draw(_steps("s", 7, misfits)), on_error=draw(_steps("e", 2, misfits)), final=draw(_steps("f", 2, misfits)),
        timeout_s=draw(st.sampled_from([None, None, 3.0])), concurrency_group=draw(st.sampled_from([None, None, "g"])),
    )  # fmt: skip


def _check_order(walk: Walk, definition: WorkflowDefinition) -> None:
    """No step has begun before all that it needs was over."""
    over: set[str] = set()
    children = [event.details["child_run_id"] for event in walk.history if "child_run_id" in event.details]
    assert len(children) == len(set(children)), "two attempts are the same run"
    for event in walk.history:
        if event.kind in ("step_started", "step_waiting") and event.step is not None:
            needs = walk.graph.steps[event.step].needs
            assert over.issuperset(needs), f"{event.step} began before {needs} were over"
        elif event.item is None and event.step is not None and event.kind != "attempt_failed":
            over.add(event.step)


def _check_end(walk: Walk, definition: WorkflowDefinition) -> None:
    """Everything has one ending; what needs nothing and asks nothing in ``finally`` has run."""
    assert not walk.run.is_live
    assert walk.run.wake_at is None
    assert set(walk.endings.values()) <= {1}
    assert all(not row.is_live for row in walk.steps.values())
    assert set(walk.graph.steps) == set(walk.statuses())
    for step in definition.final if walk.run.started_at is not None else ():
        if step.condition in (None, "always()"):
            assert walk.statuses()[step.name] is not StepStatus.SKIPPED
    _check_order(walk, definition)


@settings(max_examples=40, deadline=None)
@given(definition=_definitions(), data=st.data())
def test_every_run_ends_as_the_model_says(definition: WorkflowDefinition, data: st.DataObject) -> None:
    """Without a time limit each step comes to what its needs and its attempts make of it, in whatever order."""
    walk = Walk(definition)

    def outcome(_row: StepRun) -> StepResult:
        return data.draw(st.sampled_from(_RESULTS))

    walk.play(outcome, lambda count: data.draw(st.integers(0, count - 1)))
    _check_end(walk, definition)
    statuses = walk.statuses()
    timed_out = walk.run.status is RunStatus.TIMED_OUT
    if timed_out:
        assert definition.timeout_s is not None
        return
    assert StepStatus.CANCELLED not in {row.status for row in walk.steps.values()}, "the run was not"
    bad = {name for name, status in statuses.items() if status in (StepStatus.FAILED, StepStatus.TIMED_OUT)}
    assert walk.run.status is (RunStatus.FAILED if bad else RunStatus.SUCCEEDED)
    main_failed = bool(bad & {step.name for step in definition.steps})
    unwanted = {step.name for step in definition.on_error} if not main_failed else set()
    assert all(statuses[name] is StepStatus.SKIPPED for name in unwanted)
    for step in definition.steps:
        assert (statuses[step.name] is StepStatus.SKIPPED) == (not _model_runs(walk, step))


def _model_runs(walk: Walk, step: StepDefinition) -> bool:
    statuses = walk.statuses()
    ancestors = [statuses[name] for name in walk.graph.ancestors(step.name)]
    match step.condition:
        case None | "success()":
            return all(statuses[need] is _GOOD for need in step.needs)
        case "failure()":
            return any(status in (StepStatus.FAILED, StepStatus.TIMED_OUT) for status in ancestors)
        case "cancelled()":
            return False
        case _:
            return True


@settings(max_examples=30, deadline=None)
@given(definition=_definitions(), data=st.data())
def test_crashes_and_cancels_leave_nothing_open(definition: WorkflowDefinition, data: st.DataObject) -> None:
    """A run that is taken over and cancelled at any moment ends, with one result a step, and tidies up."""
    walk = Walk(definition)
    cancelled = False

    walk.feed()
    if walk.run.waits_for_slot and data.draw(st.booleans()):
        cancelled = True
        walk.feed(CancelAsked("somebody"))
        assert not walk.run.is_live, "what waits for its turn is cancelled at once"
    elif walk.run.waits_for_slot:
        walk.feed(TakenOver())
        walk.feed(Entered(walk.now))
    while walk.run.is_live:
        keys = [*walk.running, *walk.undecided()]
        if not keys:
            walk.wait()
            continue
        row = walk.steps[keys[0]]
        what = data.draw(st.sampled_from(["end", "end", "end", "crash", "cancel"]))
        if what == "crash":
            below = {key for key, row in walk.running.items() if row.child_run_id}
            again = walk.feed(TakenOver())
            assert below <= {row.key for row in again.start}, "somebody has to wait for the runs below"
        if what == "cancel" and not cancelled and walk.graph.phase_of[row.step] == "steps":
            cancelled = True
            walk.feed(CancelAsked("somebody"))
        result = CANCELLED if row.key in walk.killed else data.draw(st.sampled_from(_RESULTS))
        # After a crash another attempt runs; the word of this one comes too late then.
        walk.feed(AttemptEnded(row.key, row.attempt, result))
        if row.key in walk.undecided():
            walk.decide(row.key, result == SUCCEEDED)
    _check_end(walk, definition)
    if cancelled:
        assert walk.run.status is RunStatus.CANCELLED


def test_a_late_word_changes_nothing() -> None:
    """The result of an attempt that is over is not taken, nor is one that was never begun."""
    walk = Walk(a_definition(a_step("a"), a_step("b", "a")))
    walk.feed()
    walk.end(("a", None), SUCCEEDED)
    before = dict(walk.steps)
    for late in (AttemptEnded(("a", None), 1, FAILED), AttemptEnded(("b", None), 2, FAILED)):
        changes = walk.feed(late)
        assert (changes.steps, changes.history, changes.start) == ([], [], [])
    assert walk.steps == before
