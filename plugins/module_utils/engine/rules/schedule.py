# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a calendar event happens: its next runs in a time zone, or why it never happens.

The search is bounded: it goes from day to day at most to the last year that an event can name.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Iterator

from ..errors import UsageError
from .calendar import LIMITS, Event

FIRST_YEAR, LAST_YEAR = 1970, LIMITS["years"][1]


def next_runs(event: Event, after: int, tz: tzinfo | None = None, count: int = 1) -> list[int]:
    """The next instants of an event, each strictly later than the one before.

    A local time that does not exist (clocks put forward) is skipped; one that exists twice counts once, the first time.

    :param after: seconds since 1970; :param tz: zone of the times, ``None`` for the node's; an event may say UTC.
    :returns: up to ``count`` times in seconds since 1970; fewer when the event ends.
    :raises UsageError: no calendar reaches ``after``.
    """
    zone = timezone.utc if event.utc else tz
    try:
        start = datetime.fromtimestamp(after + 1, zone)
    except (OverflowError, ValueError, OSError) as exc:
        raise UsageError(f"{after} is no time that a calendar knows", hint="give seconds since 1970") from exc
    runs: list[int] = []
    for wall in _walls(event, start.replace(tzinfo=None, fold=0)):
        if len(runs) >= count:
            break
        # Whoever starts in the second pass of a repeated hour goes on within it.
        for fold in (0, 1) if start.fold else (0,):
            epoch = int(wall.replace(tzinfo=zone, fold=fold).timestamp())
            exists = datetime.fromtimestamp(epoch, zone).replace(tzinfo=None, fold=0) == wall
            if exists and epoch > (runs[-1] if runs else after):
                runs.append(epoch)
                break
    return runs


def why_never(event: Event) -> str:
    """Why no day at all matches an event; empty when one does, be it long ago."""
    if not event.months or not event.days:
        return "months and days are counted from 1"
    if event.years and event.years[-1] < FIRST_YEAR:
        return f"its years lie before {FIRST_YEAR}"
    if any(True for _day in _dates(event, date(FIRST_YEAR, 1, 1))):
        return ""
    if not any(True for _day in _dates(Event("", months=event.months, days=event.days), date(FIRST_YEAR, 1, 1))):
        return f"none of its months has a day {event.days[0]}"
    return f"in none of its years up to {LAST_YEAR} that date exists and falls on one of its weekdays"


def _walls(event: Event, start: datetime) -> Iterator[datetime]:
    """Matching wall times from ``start`` on."""
    for day in _dates(event, start.date()):
        first = (start.hour, start.minute, start.second) if day == start.date() else (0, 0, 0)
        for hour in event.hours:
            for minute in event.minutes:
                if (hour, minute) < first[:2]:
                    continue
                for second in event.seconds:
                    if (hour, minute, second) >= first:
                        yield datetime(day.year, day.month, day.day, hour, minute, second)


def _dates(event: Event, start: date) -> Iterator[date]:
    for year in event.years or range(start.year, LAST_YEAR + 1):
        for month in event.months:
            if (year, month) < (start.year, start.month):
                continue
            for number in event.days:
                if number > _length(year, month):
                    break
                day = date(year, month, number)
                if day >= start and day.weekday() in event.weekdays:
                    yield day


def _length(year: int, month: int) -> int:
    following = date(year + month // 12, month % 12 + 1, 1)
    return (following - timedelta(days=1)).day
