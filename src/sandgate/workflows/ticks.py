"""When a schedule is due, and what is to be done about it: pure functions of its row and the time.

A tick is a time that the schedule names. Each is decided once, in order: it starts a run, waits in the queue, or is
skipped. ``decide`` answers the next single change; whoever carries it out writes it by compare and set, and asks again.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

from sandgate.core.trigger import CatchUp, Overlap, Schedule, SkipReason, Timing
from sandgate.workflows.cron import parse_cron

MISSED_AFTER_S = 60
"""A tick that is decided later than this was missed."""

_SECOND = timedelta(seconds=1)


class Rhythm(Protocol):
    """What names ticks."""

    def after(self, instant: datetime) -> datetime | None:
        """The first tick after the instant."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """Ticks ``interval_s`` apart, of which one is at ``anchor_at``."""

    interval_s: int
    anchor_at: datetime

    def after(self, instant: datetime) -> datetime | None:
        """See ``Rhythm``."""
        step = self.interval_s * _SECOND
        return self.anchor_at + ((instant - self.anchor_at) // step + 1) * step


def rhythm_of(timing: Timing) -> Rhythm:
    """What names the ticks. Raises ``CronInvalid``."""
    if timing.cron is not None:
        return parse_cron(timing.cron, timing.timezone)
    if timing.interval_s is None or timing.anchor_at is None:
        raise ValueError("a timing has either a cron expression or an interval with its anchor")
    return Every(timing.interval_s, timing.anchor_at)


def next_tick(timing: Timing, instant: datetime) -> datetime | None:
    """The first tick after the instant, within what ``start_at`` and ``end_at`` allow."""
    if timing.start_at is not None and instant < timing.start_at:
        # A tick may be at the start itself.
        instant = timing.start_at - timedelta(microseconds=1)
    found = rhythm_of(timing).after(instant)
    return None if found is None or (timing.end_at is not None and found > timing.end_at) else found


def ticks_after(timing: Timing, instant: datetime) -> Iterator[datetime]:
    """All ticks after the instant, in order."""
    found = next_tick(timing, instant)
    while found is not None:
        yield found
        found = next_tick(timing, found)


def delay_of(schedule: Schedule) -> timedelta:
    """How long after its ticks this schedule acts: the same for all of them, so that they keep their order."""
    if not schedule.timing.jitter_s:
        return timedelta()
    digest = hashlib.sha256(schedule.schedule_id.encode()).digest()
    return timedelta(milliseconds=int.from_bytes(digest[:8], "big") % (1000 * schedule.timing.jitter_s))


def with_next(schedule: Schedule, tick: datetime | None) -> Schedule:
    """The schedule with its next undecided tick, and when it is due."""
    return replace(schedule, next_tick_at=tick, due_at=None if tick is None else tick + delay_of(schedule))


def begin_anew(schedule: Schedule, now: datetime) -> Schedule:
    """The schedule after its times have been changed, or it was paused or resumed: only what comes now counts."""
    if schedule.paused:
        return replace(with_next(schedule, None), queue=())
    return with_next(schedule, next_tick(schedule.timing, now))


def upcoming(schedule: Schedule, now: datetime, count: int) -> Sequence[datetime]:
    """The next times at which it is due, as if it were not paused."""
    delay = delay_of(schedule)
    after = now
    if schedule.next_tick_at is not None:
        after = max(now - delay, schedule.next_tick_at - timedelta(microseconds=1))
    return [tick + delay for tick, _ in zip(ticks_after(schedule.timing, after), range(count), strict=False)]


def due_ticks(schedule: Schedule, now: datetime) -> Sequence[datetime]:
    """The undecided ticks up to now that are to be acted on, oldest first; all others up to now were missed.

    ``none`` keeps the last one if it is not late, ``last`` the last one, ``all`` as many of the last as allowed.
    """
    policy, first = schedule.policy, schedule.next_tick_at
    now -= delay_of(schedule)
    if first is None or first > now:
        return ()
    late_s = MISSED_AFTER_S if policy.catch_up is CatchUp.NONE else max(MISSED_AFTER_S, policy.catch_up_window_s)
    most = policy.catch_up_limit if policy.catch_up is CatchUp.ALL else 1
    return _last_ticks(schedule.timing, max(first, now - timedelta(seconds=late_s)), now, most)


def _last_ticks(timing: Timing, first: datetime, last: datetime, most: int) -> Sequence[datetime]:
    """At most ``most`` ticks from ``first`` to ``last``, the last ones. Looks back in steps that grow.

    A rhythm can only be asked what comes next, and the time to look through may hold ten thousand ticks.
    """
    back = timedelta(seconds=MISSED_AFTER_S)
    while True:
        start = max(first, last - back)
        found: list[datetime] = []
        for tick in ticks_after(timing, start - timedelta(microseconds=1)):
            if tick > last:
                break
            found.append(tick)
        if len(found) >= most or start == first:
            return found[-most:]
        back *= 2


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is to be done before ``due_at``, or before a run of the schedule is over."""


@dataclass(frozen=True, slots=True)
class Note:
    """The schedule becomes ``after``; no run is started."""

    after: Schedule


@dataclass(frozen=True, slots=True)
class Begin:
    """A run for the tick is started, and with that the schedule becomes ``after``."""

    tick_at: datetime
    after: Schedule


@dataclass(frozen=True, slots=True)
class CancelLive:
    """The runs of the schedule are to be cancelled; when they are over, ask again."""


Move: TypeAlias = Rest | Note | Begin | CancelLive


def decide(schedule: Schedule, now: datetime, live: int) -> Move:
    """The next change of a schedule of which ``live`` runs are not over. Raises ``CronInvalid``."""
    if schedule.paused:
        return Rest()
    if schedule.queue and not live:
        return _begin(replace(schedule, queue=schedule.queue[1:]), schedule.queue[0])
    if schedule.next_tick_at is None or schedule.next_tick_at > now - delay_of(schedule):
        is_waiting = schedule.queue and schedule.policy.overlap is Overlap.CANCEL_PREVIOUS
        return CancelLive() if is_waiting else Rest()
    ticks = due_ticks(schedule, now)
    if not ticks:
        return Note(_after_missed(schedule, now))
    tick = ticks[0]
    moved = with_next(schedule, next_tick(schedule.timing, tick))
    if tick != schedule.next_tick_at:
        moved = replace(moved, last_skipped_at=schedule.next_tick_at, last_skip_reason=SkipReason.MISSED)
    if schedule.policy.overlap is Overlap.ALLOW or not (live or schedule.queue):
        return _begin(moved, tick)
    return Note(_without_run(moved, tick))


def _after_missed(schedule: Schedule, now: datetime) -> Schedule:
    moved = with_next(schedule, next_tick(schedule.timing, now - delay_of(schedule)))
    return replace(moved, last_skipped_at=schedule.next_tick_at, last_skip_reason=SkipReason.MISSED)


def _begin(after: Schedule, tick: datetime) -> Begin:
    return Begin(tick, replace(after, last_tick_at=tick, last_error=None))


def _without_run(moved: Schedule, tick: datetime) -> Schedule:
    """What becomes of a tick while a run is not over."""
    match moved.policy.overlap:
        case Overlap.QUEUE if len(moved.queue) < moved.policy.queue_limit:
            return replace(moved, queue=(*moved.queue, tick))
        case Overlap.QUEUE:
            return replace(moved, last_skipped_at=tick, last_skip_reason=SkipReason.QUEUE_FULL)
        case Overlap.CANCEL_PREVIOUS if moved.queue:
            skipped = {"last_skipped_at": moved.queue[-1], "last_skip_reason": SkipReason.SUPERSEDED}
            return replace(moved, queue=(tick,), **skipped)  # type: ignore[arg-type]
        case Overlap.CANCEL_PREVIOUS:
            return replace(moved, queue=(tick,))
        case _:
            return replace(moved, last_skipped_at=tick, last_skip_reason=SkipReason.OVERLAP)
