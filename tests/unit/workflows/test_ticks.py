"""What becomes of each tick, whatever the policy and whatever the clock does, against a model that is plain to read."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandgate.core.ids import ScheduleId, UserId, WorkflowId
from sandgate.core.trigger import CatchUp, Overlap, Policy, Schedule, SkipReason, Timing
from sandgate.workflows.ticks import (
    MISSED_AFTER_S,
    Begin,
    CancelLive,
    Note,
    Rest,
    begin_anew,
    decide,
    delay_of,
    due_ticks,
    next_tick,
    upcoming,
)

START = datetime(2026, 3, 28, 22, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def a_schedule(timing: Timing, policy: Policy | None = None, **changes: object) -> Schedule:
    """A new schedule."""
    schedule = Schedule(
        ScheduleId("schedule-1"),
        WorkflowId("workflow-1"),
        UserId("user-1"),
        "",
        timing,
        policy or Policy(),
        START,
        START,
    )
    return begin_anew(replace(schedule, **changes), START)  # type: ignore[arg-type]


def every(interval_s: int, **more: object) -> Timing:
    """Ticks a number of seconds apart."""
    return Timing(interval_s=interval_s, anchor_at=START, **more)  # type: ignore[arg-type]


@dataclass
class World:
    """A clock, runs that end when the test says so, and a server that is up or down."""

    schedule: Schedule
    now: datetime = START
    live: int = 0
    started: list[tuple[datetime, datetime]] = field(default_factory=list)
    skipped: list[datetime] = field(default_factory=list)
    seen: set[datetime] = field(default_factory=set)
    cancelled: bool = False
    latest: datetime = START

    def look(self) -> None:
        """What a ticker does that comes by."""
        self.cancelled = False
        self.latest = max(self.latest, self.now)
        for _ in range(100_000):
            move = decide(self.schedule, self.now, self.live)
            match move:
                case Rest():
                    return
                case CancelLive():
                    assert self.live
                    self.cancelled = True
                    return
                case Note(after):
                    self._check(after)
                case Begin(tick, after):
                    self._check(after)
                    self._check_start(tick)
                    self.started.append((tick, self.now))
                    self.live += 1
                    assert after.last_tick_at == tick
            self.schedule = after
        raise AssertionError("it never comes to rest")

    def _check(self, after: Schedule) -> None:
        """Every change takes a tick out of the future for good."""
        before = self.schedule
        assert after != before
        if after.next_tick_at is not None:
            assert before.next_tick_at is not None
            assert after.next_tick_at >= before.next_tick_at
        assert (after.due_at is None) == (after.next_tick_at is None)
        assert len(after.queue) <= max(1, after.policy.queue_limit)

    def _check_start(self, tick: datetime) -> None:
        assert tick not in self.seen, "a tick started twice"
        self.seen.add(tick)
        # One that waits in the queue was due before it was put there, whatever the clock has shown since.
        assert tick + delay_of(self.schedule) <= self.latest, "a tick started before its time"
        if self.schedule.policy.overlap is not Overlap.ALLOW:
            assert not self.live, "a run was started beside another"


_policies = st.builds(
    Policy,
    st.sampled_from(CatchUp),
    st.integers(1, 5),
    st.sampled_from([0, 30, 600, 86_400]),
    st.sampled_from(Overlap),
    st.integers(1, 3),
)
_timings = st.one_of(
    st.builds(every, st.sampled_from([1, 7, 60, 90, 3600, 86_400]), jitter_s=st.sampled_from([0, 0, 50])),
    st.builds(
        Timing,
        st.sampled_from(["* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "@daily", "0,30 1-3 * * *"]),
        st.sampled_from(["UTC", "Europe/Berlin"]),
        jitter_s=st.sampled_from([0, 0, 600]),
    ),
)
_seconds = st.one_of(st.integers(0, 5), st.integers(0, 120), st.integers(0, 3 * 86_400))
# Time goes by, jumps forward, jumps back; a run ends; the server is looked in on, or is not.
_acts = st.one_of(
    st.tuples(st.just("wait"), _seconds),
    st.tuples(st.just("back"), st.integers(1, 4000)),
    st.tuples(st.just("end"), st.integers(1, 3)),
    st.tuples(st.just("look"), st.just(0)),
)


@settings(deadline=None)
@given(_timings, _policies, st.lists(_acts, max_size=25))
def test_no_tick_starts_twice_and_the_policies_hold(
    timing: Timing, policy: Policy, acts: list[tuple[str, int]]
) -> None:
    """Whatever the clock does: one start a tick, never early, in order; and it always comes to rest."""
    world = World(a_schedule(timing, policy))
    for act, number in acts:
        if act == "wait":
            world.now += number * SECOND
        elif act == "back":
            world.now -= number * SECOND
        elif act == "end":
            world.live = max(0, world.live - number)
        else:
            world.look()
    ticks = [tick for tick, _ in world.started]
    assert ticks == sorted(ticks)
    # Each is a tick by name, and none was started that is older than what the policy lets through.
    for tick, at in world.started:
        assert next_tick(timing, tick - timedelta(microseconds=1)) == tick
        if policy.overlap in (Overlap.ALLOW, Overlap.SKIP):
            window_s = 0 if policy.catch_up is CatchUp.NONE else policy.catch_up_window_s
            assert at - tick - delay_of(world.schedule) <= max(window_s, MISSED_AFTER_S) * SECOND


def _named(timing: Timing, first: datetime, last: datetime) -> list[datetime]:
    """All ticks from ``first`` to ``last``: every second or minute is asked whether it is one."""
    if timing.interval_s:
        ahead = range(int((last - START) / SECOND) + 1)
        found = [START + s * SECOND for s in ahead if s % timing.interval_s == 0]
    else:
        minutes = range(int((last - START) / SECOND) // 60 + 1)
        times = [START + m * 60 * SECOND for m in minutes]
        found = [at for at in times if next_tick(timing, at - timedelta(microseconds=1)) == at]
    return [at for at in found if first <= at <= last]


@settings(deadline=None)
@given(_timings, _policies, st.integers(0, 6 * 3600))
def test_what_was_missed_is_caught_up_as_the_policy_says(timing: Timing, policy: Policy, away_s: int) -> None:
    """After any time without a server, the ticks that run are those that one finds by going through all of them."""
    schedule = a_schedule(timing, policy)
    now = START + away_s * SECOND
    effective = now - delay_of(schedule)
    first = schedule.next_tick_at
    assert first is not None
    missed = _named(timing, first, effective) if first <= effective else []
    window_s = MISSED_AFTER_S if policy.catch_up is CatchUp.NONE else max(policy.catch_up_window_s, MISSED_AFTER_S)
    fresh = [tick for tick in missed if tick >= effective - window_s * SECOND]
    expected = fresh[-policy.catch_up_limit :] if policy.catch_up is CatchUp.ALL else fresh[-1:]
    assert list(due_ticks(schedule, now)) == expected


@settings(deadline=None)
@given(_timings, st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_a_server_that_looks_in_time_misses_nothing(timing: Timing, waits: list[int]) -> None:
    """With ``allow``, whatever is caught up: each tick starts one run, as long as no two of them wait to be seen."""
    schedule = a_schedule(timing, Policy(catch_up=CatchUp.NONE))
    world = World(schedule)
    for wait_s in waits:
        end = world.now + wait_s * SECOND
        while world.schedule.due_at is not None and world.schedule.due_at <= end:
            world.now = max(world.now, world.schedule.due_at)
            world.look()
        world.now = end
    first = schedule.next_tick_at
    assert first is not None
    assert [tick for tick, _ in world.started] == _named(timing, first, world.now - delay_of(schedule))


@settings(deadline=None)
@given(_timings, st.lists(st.integers(1, 5), max_size=6), st.integers(0, 7200))
def test_the_clock_going_back_repeats_nothing(timing: Timing, backs: list[int], ahead_s: int) -> None:
    """Ticks go on where the clock has been before, and not sooner."""
    world = World(a_schedule(timing, Policy(CatchUp.ALL, 100, 86_400)))
    world.now += ahead_s * SECOND
    world.look()
    before = len(world.started)
    highest = world.now
    for hours in backs:
        world.now = highest - hours * 3600 * SECOND
        world.look()
        assert len(world.started) == before
    world.now = highest
    world.look()
    assert len(world.started) == before


def _ticks_of(world: World) -> list[int]:
    return [int((tick - START) / SECOND) for tick, _ in world.started]


def test_skip_leaves_out_what_comes_too_early() -> None:
    """And says so; the next tick after the run starts one again."""
    world = World(a_schedule(every(10), Policy(overlap=Overlap.SKIP)))
    for _ in range(35):
        world.now += SECOND
        if world.now == START + 25 * SECOND:
            world.live = 0
        world.look()
    assert _ticks_of(world) == [10, 30]
    assert world.schedule.last_skip_reason is SkipReason.OVERLAP
    assert world.schedule.last_skipped_at == START + 20 * SECOND


def test_queue_keeps_ticks_up_to_its_bound() -> None:
    """Each runs when the one before is over; what does not fit is left out."""
    world = World(a_schedule(every(10), Policy(overlap=Overlap.QUEUE, queue_limit=2)))
    for _ in range(45):
        world.now += SECOND
        world.look()
    assert _ticks_of(world) == [10]
    assert [int((tick - START) / SECOND) for tick in world.schedule.queue] == [20, 30]
    assert world.schedule.last_skip_reason is SkipReason.QUEUE_FULL
    for _ in range(2):
        world.live = 0
        world.look()
    assert _ticks_of(world) == [10, 20, 30]
    assert world.schedule.queue == ()


def test_cancel_previous_waits_until_the_run_is_over() -> None:
    """It asks for the end again each time it looks; a newer tick takes the place of one that waits."""
    world = World(a_schedule(every(10), Policy(overlap=Overlap.CANCEL_PREVIOUS)))
    for second in range(1, 36):
        world.now += SECOND
        world.look()
        assert world.cancelled == (second >= 20)
    assert _ticks_of(world) == [10]
    assert world.schedule.last_skip_reason is SkipReason.SUPERSEDED
    world.live = 0
    world.look()
    assert _ticks_of(world) == [10, 30]


def test_a_late_tick_within_the_grace_is_on_time() -> None:
    """A restart of less than a minute costs no tick, even with ``none``; a longer one does, and it is noted."""
    late = World(a_schedule(every(3600), Policy(CatchUp.NONE)))
    late.now += (3600 + MISSED_AFTER_S) * SECOND
    late.look()
    assert _ticks_of(late) == [3600]
    later = World(a_schedule(every(3600), Policy(CatchUp.NONE)))
    later.now += (3600 + MISSED_AFTER_S + 1) * SECOND
    later.look()
    assert _ticks_of(later) == []
    assert later.schedule.last_skip_reason is SkipReason.MISSED
    assert later.schedule.next_tick_at == START + 7200 * SECOND


def test_start_and_end_are_kept() -> None:
    """Both belong to it; afterwards it is never due."""
    timing = every(60, start_at=START + 120 * SECOND, end_at=START + 240 * SECOND)
    world = World(a_schedule(timing, Policy(CatchUp.ALL)))
    world.now += timedelta(hours=1)
    world.look()
    assert _ticks_of(world) == [120, 180, 240]
    assert world.schedule.due_at is None
    assert upcoming(world.schedule, world.now, 5) == []


def test_a_paused_schedule_rests_and_starts_anew() -> None:
    """What comes while it is paused is not caught up; it still tells its times."""
    schedule = a_schedule(every(60), Policy(CatchUp.ALL), paused=True)
    assert schedule.due_at is None
    assert decide(schedule, START + timedelta(days=1), 0) == Rest()
    assert upcoming(schedule, START, 2) == [START + 60 * SECOND, START + 120 * SECOND]
    resumed = begin_anew(replace(schedule, paused=False), START + timedelta(days=1))
    assert resumed.next_tick_at == START + timedelta(days=1, minutes=1)


@pytest.mark.parametrize("jitter_s", [1, 30, 3600])
def test_jitter_is_the_schedule_s_own(jitter_s: int) -> None:
    """Below its bound, the same each time, and different for most others."""
    schedules = [
        replace(a_schedule(every(10, jitter_s=jitter_s)), schedule_id=ScheduleId(f"schedule-{n}")) for n in range(50)
    ]
    delays = [delay_of(schedule) for schedule in schedules]
    assert all(timedelta() <= delay < jitter_s * SECOND for delay in delays)
    assert len(set(delays)) > 40
    assert delays == [delay_of(schedule) for schedule in schedules]
