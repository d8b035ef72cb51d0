"""When cron expressions are due, above all where clocks are set."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandgate.workflows.cron import Cron, CronInvalid, parse_cron, parse_zone

MINUTE = timedelta(minutes=1)
# Zones whose clocks skip and repeat an hour, half an hour, midnight, and a whole day.
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Pacific/Apia"]
CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC), datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC), datetime(2026, 4, 4, 15, tzinfo=UTC), datetime(2026, 4, 5, 3, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC), datetime(2026, 9, 6, 4, tzinfo=UTC),
    datetime(2011, 12, 30, 10, tzinfo=UTC),
]  # fmt: skip


def _local(text: str, zone: str, start: str, count: int) -> list[str]:
    """The next times after a time of the zone's clock, as that clock shows them, with its offset."""
    cron, where = parse_cron(text, zone), ZoneInfo(zone)
    after, found = datetime.fromisoformat(start).astimezone(UTC), []
    for _ in range(count):
        tick = cron.after(after)
        assert tick is not None
        found.append(tick.astimezone(where).strftime("%d %H:%M %z"))
        after = tick
    return found


def test_a_time_that_clocks_skip_is_due_right_after() -> None:
    """In Berlin 02:30 of 29 March 2026 does not exist; what was due then is due at 03:00, once."""
    expected = ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]
    assert _local("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00+01:00", 3) == expected
    assert _local("0,30 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00+01:00", 2) == [
        "29 03:00 +0200",
        "30 02:00 +0200",
    ]


def test_a_time_that_clocks_repeat_is_due_the_first_time() -> None:
    """In Berlin 02:30 of 25 October 2026 comes twice; from between the two the next is tomorrow's."""
    expected = ["25 02:30 +0200", "26 02:30 +0100"]
    assert _local("30 2 * * *", "Europe/Berlin", "2026-10-25T00:00:00+02:00", 2) == expected
    assert _local("30 2 * * *", "Europe/Berlin", "2026-10-25T02:10:00+01:00", 1) == ["26 02:30 +0100"]


def test_what_is_due_all_the_time_follows_the_clock() -> None:
    """A star in minute or hour: what is skipped is left out, what is repeated comes again."""
    spring = ["29 01:30 +0100", "29 03:00 +0200", "29 03:30 +0200"]
    assert _local("*/30 * * * *", "Europe/Berlin", "2026-03-29T01:00:00+01:00", 3) == spring
    assert _local("*/30 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00+01:00", 1) == ["30 02:00 +0200"]
    autumn = ["25 02:00 +0200", "25 02:30 +0200", "25 02:00 +0100", "25 02:30 +0100", "25 03:00 +0100"]
    assert _local("*/30 * * * *", "Europe/Berlin", "2026-10-25T01:45:00+02:00", 5) == autumn


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@daily", ["02 00:00 +0000", "03 00:00 +0000"]),
        (" @Hourly ", ["01 01:00 +0000", "01 02:00 +0000"]),
        ("15 8-9 * jan mon-wed", ["05 08:15 +0000", "05 09:15 +0000"]),
        ("0 12 1-7/3 * *", ["01 12:00 +0000", "04 12:00 +0000"]),
        ("0 0 13 * FRI", ["02 00:00 +0000", "09 00:00 +0000"]),
        ("0 0 L * *", ["31 00:00 +0000", "28 00:00 +0000"]),
        ("0 0 * * MON#2", ["12 00:00 +0000", "09 00:00 +0000"]),
        ("0 0 * * 7", ["04 00:00 +0000", "11 00:00 +0000"]),
    ],
)
def test_the_language(text: str, expected: list[str]) -> None:
    """Names, ranges, steps, short forms; day of the month or of the week when neither is a star."""
    assert _local(text, "UTC", "2026-01-01T00:00:00+00:00", 2) == expected


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "a b c d e", "@reboot", "*/0 * * * *", "5-1 * * * *", "0 0 30 2 *",
     "* " * 101, "- - - - -", "0 0 0 * *", "\x00 * * * *", "99999999999999999999 * * * *", "²L * * * *"],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text: str) -> None:
    """With one kind of error, and a sentence."""
    with pytest.raises(CronInvalid, match=r"^(is|has) "):
        parse_cron(text, "UTC")


@pytest.mark.parametrize(
    "name", ["", "Berlin", "../../etc/passwd", "/etc/localtime", "right/UTC", "posixrules", "America", "A" * 65, "U\0"]
)
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    """No path of the machine is looked at, and no folder of the zones."""
    with pytest.raises(CronInvalid):
        parse_zone(name)


@settings(deadline=None)
@given(st.text("0123456789*/-,#LW @MONFRIJAN", max_size=30) | st.text(max_size=30))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    """Whatever is sent."""
    try:
        cron = parse_cron(text, "Europe/Berlin")
    except CronInvalid:
        return
    tick = cron.after(CHANGES[0])
    assert tick is None or tick > CHANGES[0]


def _fields(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    span = st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda pair: f"{min(pair)}-{max(pair)}")
    return st.one_of(st.just("*"), number, span, st.lists(number, min_size=2, max_size=3).map(",".join),
                     st.integers(2, 30).map(lambda step: f"*/{step}"))  # fmt: skip


def _numbers(field: str, low: int, high: int) -> set[int]:
    """What a field of the test means, read by the book."""
    span, _, step = field.partition("/")
    if span == "*":
        return set(range(low, high + 1, int(step or 1)))
    if "-" in span:
        first, last = map(int, span.split("-"))
        return set(range(first, last + 1))
    return set(map(int, span.split(",")))


def _plain(minute: str, hour: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """When ``minute hour * * *`` is due in (start, end]: every minute is looked at, as cron itself does it."""
    where = parse_zone(zone)
    minutes, hours = _numbers(minute, 0, 59), _numbers(hour, 0, 23)
    follows = minute.startswith("*") or hour.startswith("*")
    due: set[datetime] = set()
    seen: set[datetime] = set()
    now = start - timedelta(days=2)
    shown = now.astimezone(where).replace(tzinfo=None)
    while now < end:
        now += MINUTE
        before, shown = shown, now.astimezone(where).replace(tzinfo=None)
        # All that the clock has gone past since the minute before, or just this minute where it was set back.
        span = [before + MINUTE * n for n in range(1, (shown - before) // MINUTE + 1)] or [shown]
        passed = [shown] if follows else [minute for minute in span if minute not in seen]
        seen.update(passed)
        if any(moment.minute in minutes and moment.hour in hours for moment in passed):
            due.add(now)
    return sorted(moment for moment in due if moment > start)


@settings(deadline=None)
@given(
    _fields(0, 59), _fields(0, 23), st.sampled_from(ZONES), st.sampled_from(CHANGES), st.integers(-300, 300)
)  # fmt: skip
@example("*", "2", "Australia/Lord_Howe", CHANGES[4], 0)
@example("0", "0-23", "Australia/Lord_Howe", CHANGES[4], -100)
@example("30", "0", "America/Santiago", CHANGES[7], -100)
def test_against_a_clock_that_is_looked_at_every_minute(
    minute: str, hour: str, zone: str, change: datetime, offset: int
) -> None:
    """Around every change of every zone, expressions of both kinds are due when Debian's rules say."""
    start = change + offset * MINUTE
    end = start + timedelta(hours=8)
    cron: Cron = parse_cron(f"{minute} {hour} * * *", zone)
    found: list[datetime] = []
    tick = cron.after(start)
    while tick is not None and tick <= end:
        found.append(tick)
        tick = cron.after(tick)
    assert found == _plain(minute, hour, zone, start, end)
