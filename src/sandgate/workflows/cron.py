"""Cron expressions in time zones: the one place that knows the library behind them.

What is not in a crontab's manual is what happens when clocks are set. Debian's cron, which comes from Vixie's, tells
two kinds of expressions apart (Source: https://manpages.debian.org/cron, "Local time changes of less than three
hours"):

- Minute and hour both name times (``30 2 * * *``): a time that the clocks skip is due as soon as they are past it, a
  time that they repeat is due once, the first time.
- Minute or hour starts with a star (``*/15 * * * *``, ``0 * * * *``): it is due as the clock shows it, so that what is
  skipped is not due and what is repeated is due twice.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

LONGEST_CRON = 200
LONGEST_ZONE = 64

_SHORT = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")
# Files beside the zones that are none, or the same zones by a clock with leap seconds.
_NO_ZONES = ("right", "posix", "posixrules", "localtime", "Factory", "leapseconds")
_FIELDS = 5
# Samoa went over the date line once, and left out a day.
_LARGEST_CHANGE = timedelta(hours=26)


class CronInvalid(ValueError):
    """The text is no cron expression, or the name no time zone; the message says what would be right."""


class Cron:
    """An expression in a time zone."""

    def __init__(self, text: str, zone: tzinfo) -> None:
        self._text = text
        self._zone = zone
        minute, hour = text.split()[:2]
        self._follows_clock = minute.startswith("*") or hour.startswith("*")

    def after(self, instant: datetime) -> datetime | None:
        """The first time after the instant that it is due; None when that is not within about fifty years."""
        if self._follows_clock:
            return self._after_by_clock(instant)
        for tick in CronSim(self._text, instant.astimezone(self._zone)):
            found = tick.astimezone(UTC)
            # The library starts from what the clock shows, which in a repeated hour was shown before.
            if found > instant:
                return found
        return None

    def _after_by_clock(self, instant: datetime) -> datetime | None:
        """Looks through stretches of time in which the clocks are not set, each as a zone of its own.

        The library loses its way where the clocks are set by half an hour.
        """
        offset = self._offset(instant)
        while True:
            tick = next(CronSim(self._text, instant.astimezone(timezone(offset))), None)
            if tick is None:
                return None
            found = tick.astimezone(UTC)
            if found - instant > _LARGEST_CHANGE:
                # Whatever is done to the clocks until then, it is not due before.
                instant = found - _LARGEST_CHANGE
                offset = self._offset(instant)
            elif self._offset(found) == offset:
                return found
            else:
                change = self._find_change(instant, found)
                offset = self._offset(change)
                instant = change - timedelta(microseconds=1)

    def _offset(self, instant: datetime) -> timedelta:
        return instant.astimezone(self._zone).utcoffset() or timedelta()

    def _find_change(self, before: datetime, after: datetime) -> datetime:
        """The second from which on the clocks show what they show at ``after``."""
        shown = self._offset(after)
        before = before.replace(microsecond=0)
        while after - before > timedelta(seconds=1):
            middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
            if self._offset(middle) == shown:
                after = middle
            else:
                before = middle
        return after


@lru_cache(maxsize=1024)
def parse_cron(text: str, zone: str) -> Cron:
    """The expression. Raises ``CronInvalid``."""
    if len(text) > LONGEST_CRON:
        raise CronInvalid(f"is longer than {LONGEST_CRON} characters")
    found = parse_zone(zone)
    fields = _SHORT.get(text.strip().lower(), text)
    if fields.startswith("@"):
        raise CronInvalid(f"has to be five fields or one of {', '.join(_SHORT)}")
    if len(fields.split()) != _FIELDS:
        raise CronInvalid("has to have five fields: minute, hour, day of the month, month, day of the week")
    try:
        CronSim(fields, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise CronInvalid(f"is no cron expression: {str(error).lower()}") from None
    return Cron(fields, found)


@lru_cache(maxsize=256)
def parse_zone(name: str) -> tzinfo:
    """The time zone. Raises ``CronInvalid``."""
    if name == "UTC":
        return UTC
    if len(name) <= LONGEST_ZONE and _ZONE.fullmatch(name) and name.split("/")[0] not in _NO_ZONES:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, OSError, ValueError):
            pass
    raise CronInvalid("is no time zone; name one as in Europe/Berlin, America/New_York or UTC")
