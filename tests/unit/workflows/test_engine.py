"""The engine on rows: what it starts, kills, takes over and gives up, whatever the database does."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import pytest

from sandgate.config.settings import Settings
from sandgate.core.errors import StoreUnavailable
from sandgate.core.run import RunStatus, StepStatus
from sandgate.testing.faults import PlannedFaults
from sandgate.testing.faulty_store import RUN_EVENTS
from sandgate.workflows.advance import advance
from sandgate.workflows.events import Changes, Event
from sandgate.workflows.state import Graph, RunState
from tests.unit.workflows.conftest import MakeOrchestra
from tests.unit.workflows.orchestra import LEASE_S, LIMIT_S, LOOP, Orchestra, code

FAILS_ONCE = "import os\nif os.environ['SANDGATE_ATTEMPT'] == '1':\n    raise ValueError('once')"
LOST_ONCE = "import os\nif os.environ['SANDGATE_ATTEMPT'] == '1':\n    while True: pass"


async def test_steps_follow_one_another_with_their_data(orchestra: Orchestra) -> None:
    """Each in a sandbox of its own, which is gone afterwards."""
    steps = await orchestra.play(
        code("a", "outputs['n'] = 5\nprint('said')"),
        code("b", "outputs['m'] = inputs['n']", config={"inputs": {"n": "${{ steps.a.outputs.n }}"}}),
        code("each", "outputs['x'] = inputs['i']", foreach=[1, 2, 3], config={"inputs": {"i": "${{ item }}"}}),
    )
    assert {row.status for row in steps.values()} == {StepStatus.SUCCEEDED}
    assert (steps["a"].stdout, steps["b"].outputs) == ("said\n", {"m": 5})
    assert [steps[f"each.{n}"].outputs for n in range(3)] == [{"x": 1}, {"x": 2}, {"x": 3}]
    assert len({spec.environment_id for spec in orchestra.runtime.made}) >= 5
    await orchestra.until(lambda: orchestra.engine.live_count == 0)


async def test_a_step_is_tried_again_when_its_time_has_come(orchestra: Orchestra) -> None:
    """Not before, and by the injected clock."""
    run_id = await orchestra.begin(code("a", FAILS_ONCE, retry={"max_attempts": 2, "delay": 60}))
    await orchestra.until_step(run_id, "a", "waiting")
    orchestra.engine.look()
    assert (await orchestra.row(run_id)).status is RunStatus.WAITING
    orchestra.clock.advance(60)
    orchestra.engine.look()
    assert (await orchestra.until_over(run_id)).status is RunStatus.SUCCEEDED
    assert (await orchestra.steps(run_id))["a"].attempt == 2


async def test_no_more_steps_than_slots(make_orchestra: MakeOrchestra) -> None:
    """What is beyond waits for its turn, and is cancelled without ever having had it."""
    one = make_orchestra(settings=Settings(max_steps=2))
    await one.start()
    run_id = await one.begin(code("each", LOOP, foreach=list(range(6))))
    await one.until_running(2)
    cancelled = await one.service.cancel(one.user, run_id)
    assert cancelled.status is RunStatus.CANCELLED
    assert {row.status for row in (await one.steps(run_id)).values()} == {StepStatus.CANCELLED}
    assert one.runtime.most_making <= 8


@pytest.mark.parametrize("fault", ["before=fail", "after=unknown"])
@pytest.mark.parametrize("event", [kind for kind in RUN_EVENTS if kind not in ("run_timed_out", "cancel_asked")])
async def test_a_write_that_breaks_is_written_in_the_end(event: str, fault: str, make_orchestra: MakeOrchestra) -> None:
    """Whether it was done or not: once, and the run ends as it would have."""
    one = make_orchestra(faults=PlannedFaults(f"runs.apply.{event}.{fault}"))
    await one.start()
    workflow = {
        "succeeded": [code("a"), code("b", FAILS_ONCE, retry={"max_attempts": 2}), code("c", **{"if": "false"})],
        "failed": [code("a"), code("b", "raise ValueError('x')"), code("c", LOOP, timeout=0.1, needs=["a"])],
        "cancelled": [code("a"), code("b", LOOP)],
        "waiting": [code("a"), {"name": "b", "type": "sleep", "config": {"seconds": 60}}],
    }
    runs = {kind: await one.begin(*steps) for kind, steps in workflow.items()}
    await one.until_step(runs["waiting"], "b", "waiting")
    one.clock.advance(60)
    one.engine.look()
    await one.until_step(runs["cancelled"], "b", "running")
    cancelled = await one.service.cancel(one.user, runs["cancelled"])
    ended = {kind: (await one.until_over(run_id)).status for kind, run_id in runs.items()}
    assert ended == {"succeeded": "succeeded", "failed": "failed", "cancelled": "cancelled", "waiting": "succeeded"}
    assert cancelled.status is RunStatus.CANCELLED
    await one.until(lambda: one.engine.live_count == 0)
    assert one.faults.waiting == []
    for run_id in runs.values():
        history = await one.store.runs.list_history(run_id)
        assert [entry.number for entry in history] == list(range((await one.row(run_id)).events))
        assert len([entry for entry in history if entry.kind.startswith("run_")]) == len(("run_started", "its end"))


async def test_an_end_whose_answer_got_lost_is_answered(make_orchestra: MakeOrchestra) -> None:
    """Who waits for the run is told how it ended, not how it stood before."""
    one = make_orchestra(faults=PlannedFaults("runs.apply.run_succeeded.after=unknown"))
    await one.start()
    run = await one.service.start(one.user, await one.make(code("a")), {}, LIMIT_S)
    assert run.status is RunStatus.SUCCEEDED
    assert one.faults.waiting == []


async def test_a_run_whose_start_got_lost_is_found(make_orchestra: MakeOrchestra) -> None:
    """Nobody knows of it but the database; the patrol takes it up, and it ends."""
    one = make_orchestra(faults=PlannedFaults("runs.insert.after=unknown"))
    await one.start()
    workflow_id = await one.make(code("a"))
    with pytest.raises(StoreUnavailable):
        await one.service.start(one.user, workflow_id, {}, 0)
    (run_id,) = await one.store.runs.list_live(workflow_id)
    assert one.engine.find(run_id) is None
    for _round in range(2):
        await one.patrol()
    assert (await one.until_over(run_id)).status is RunStatus.SUCCEEDED


async def test_a_run_whose_client_went_away_is_found(orchestra: Orchestra) -> None:
    """A start that is cancelled while the row is being written begins all the same."""
    workflow_id = await orchestra.make(code("a"))
    starting = asyncio.ensure_future(orchestra.service.start(orchestra.user, workflow_id, {}, 0))
    await orchestra.until(lambda: orchestra.faults.reached["runs.insert.before"])
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    async with asyncio.timeout(30):
        while (run := await orchestra.store.runs.find_newest(workflow_id)) is None:
            pass
    for _round in range(2):
        await orchestra.patrol()
    assert (await orchestra.until_over(run.run_id)).status is RunStatus.SUCCEEDED


async def test_a_crash_loses_attempts_and_nothing_else(make_orchestra: MakeOrchestra) -> None:
    """The next process takes everything up at once: what ran is tried again, what waited goes on waiting."""
    one = make_orchestra()
    await one.start()
    run_id = await one.begin(code("a", "outputs['n'] = 1"), code("b", LOST_ONCE), code("c"))
    asked = await one.begin({"name": "ask", "type": "approval"}, code("after"))
    await one.until_running()
    await one.crash()
    two = make_orchestra(clock=one.clock, machine=one.machine, user=one.user)
    await two.start()
    assert (await two.until_over(run_id)).status is RunStatus.SUCCEEDED
    steps = await two.steps(run_id)
    assert [steps[name].attempt for name in "abc"] == [1, 2, 1]
    assert steps["b"].losses == 1
    await two.service.decide(two.user, asked, "ask", approved=True, comment="")
    assert (await two.until_over(asked)).status is RunStatus.SUCCEEDED


async def test_a_process_that_slept_through_its_lease_gives_up(make_orchestra: MakeOrchestra) -> None:
    """What it comes to afterwards is not written, and its code is killed."""
    one, two = make_orchestra(), make_orchestra(owner="two")
    await one.start()
    await two.start()
    run_id = await one.begin(code("a", LOST_ONCE))
    await one.until_running()
    two.clock.advance(LEASE_S + 1)
    await two.patrol()
    ended = await two.until_over(run_id)
    assert (ended.status, ended.lease_owner, ended.fence) == (RunStatus.SUCCEEDED, "two", 2)
    before = await two.words(run_id)
    (sandbox,) = (sandbox for sandbox in one.machine.values() if sandbox._running)
    await one.patrol()
    await one.until(lambda: sandbox.failure is not None)
    assert one.engine.live_count == 0
    assert await two.words(run_id) == before


async def test_a_late_result_of_a_run_that_was_taken_is_dropped(make_orchestra: MakeOrchestra) -> None:
    """The fence decides, also when the patrol has not come by yet."""
    one, two = make_orchestra(), make_orchestra(owner="two")
    await one.start()
    await two.start()
    run_id = await one.begin(code("a", "import time\ntime.sleep(20)"), code("b"))
    await one.until_running()
    two.clock.advance(LEASE_S + 1)
    await two.patrol()
    await two.until_running()
    one.runtime.wake()
    two.runtime.wake()
    assert (await two.until_over(run_id)).status is RunStatus.SUCCEEDED
    await one.until(lambda: one.engine.live_count == 0)
    assert {row.attempt for row in (await two.steps(run_id)).values()} <= {1, 2}
    assert [word for word in await two.words(run_id) if word.startswith("run_")] == ["run_started", "run_succeeded"]


async def test_code_does_not_outlive_its_lease(make_orchestra: MakeOrchestra) -> None:
    """While a shared database is away leases run out: what runs is killed then, and begun again afterwards."""
    fails = [f"runs.renew.before=fail@{number}" for number in range(1, 4)]
    one = make_orchestra(faults=PlannedFaults(*fails))
    one.faulty.runs.is_shared = True  # type: ignore[misc]
    await one.start()
    run_id = await one.begin(code("a", LOST_ONCE))
    await one.until_running()
    for _round in range(2):
        await one.patrol()
        one.clock.advance(LEASE_S - 1)
    await one.until_running()
    one.clock.advance(2)
    await one.patrol()
    await one.until(lambda: one.engine.live_count == 0)
    for _round in range(3):
        await one.patrol()
    assert (await one.until_over(run_id)).status is RunStatus.SUCCEEDED
    steps = await one.steps(run_id)
    assert (steps["a"].attempt, steps["a"].losses) == (2, 1)


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
async def test_the_clock_may_be_set(seconds: float, orchestra: Orchestra) -> None:
    """Forward or back by an hour: what runs goes on undisturbed, and no attempt is lost."""
    run_id = await orchestra.begin(code("a", "import time\ntime.sleep(20)"), code("b"))
    await orchestra.until_running()
    orchestra.clock.advance(seconds)
    await orchestra.engine._leases._claim(own=False)
    await orchestra.patrol()
    orchestra.runtime.wake()
    assert (await orchestra.until_over(run_id)).status is RunStatus.SUCCEEDED
    assert {row.attempt for row in (await orchestra.steps(run_id)).values()} == {1}


async def test_sandboxes_live_while_they_are_held(orchestra: Orchestra) -> None:
    """Made to end by themselves within two leases, and told to live on with every patrol."""
    await orchestra.begin(code("a", LOOP))
    await orchestra.until_running()
    (spec, *_more) = orchestra.runtime.made
    assert spec.lifetime_s == 2 * LEASE_S
    (sandbox,) = (sandbox for sandbox in orchestra.machine.values() if sandbox._running)
    first = sandbox._timer.when()
    await asyncio.sleep(0.01)
    await orchestra.patrol()
    assert sandbox._timer.when() > first


async def test_idle_means_idle(orchestra: Orchestra) -> None:
    """Without runs the patrol writes no lease; with runs that wait it does nothing but that."""
    orchestra.clock.advance(120)
    await orchestra.patrol()
    assert orchestra.faults.reached["runs.renew.before"] == 0
    await orchestra.begin({"name": "ask", "type": "approval"})
    reached = sum(orchestra.faults.reached.values())
    await orchestra.patrol()
    await asyncio.sleep(0.01)
    assert orchestra.faults.reached["runs.renew.before"] == 1
    assert sum(orchestra.faults.reached.values()) - reached == 2


async def test_a_bug_that_one_run_meets_ends_that_run_only(
    orchestra: Orchestra, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails with all that it has under way, the others go on, and so does the server."""

    def fail_on_one(graph: Graph, state: RunState, events: Sequence[Event], now: datetime) -> Changes:
        if "ask" in graph.steps and events:
            raise RuntimeError("a bug")
        return advance(graph, state, events, now)

    monkeypatch.setattr("sandgate.workflows.engine.advance", fail_on_one)
    other = await orchestra.begin(code("a", LOOP), code("b"))
    met = await orchestra.begin(code("a"), code("loop", LOOP, needs=[]), {"name": "ask", "type": "approval"})
    ended = await orchestra.until_over(met)
    assert ended.status is RunStatus.FAILED
    assert ended.error is not None
    assert ended.error.name == "InternalError"
    assert {row.status for row in (await orchestra.steps(met)).values()} <= {StepStatus.FAILED, StepStatus.SUCCEEDED}
    assert (await orchestra.service.cancel(orchestra.user, other)).status is RunStatus.CANCELLED
    await orchestra.until(lambda: not orchestra.runtime.sandboxes)
