# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calendar events: Proxmox VE's grammar (``mon..fri 21:00``, ``*/15``, ``*-*-1 02:30 UTC``) and the next runs.

The grammar is the original's, with its traps (a lone number is minutes). One difference on purpose: a repetition that
does not divide its unit (``*/25``) starts again in every unit (11:00, 11:25, 11:50), as in systemd, which is the
scheduler here; the original skips the start after a wrap.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Iterator

from ..errors import UsageError

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY = r"(?:mon(?:day)?|tue(?:sday)?|wed(?:nesday)?|thu(?:rsday)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)"
_WEEKDAYS = re.compile(rf"{_DAY}(?:\.\.{_DAY})?(?:,{_DAY}(?:\.\.{_DAY})?)*", re.IGNORECASE)
_ITEM = r"[0-9]+(?:\.\.[0-9]+)?(?:/[0-9]+)?"
_LIST = rf"(\*(?:/[0-9]+)?|{_ITEM}(?:,{_ITEM})*)"
_DATE3 = re.compile(rf"{_LIST}-{_LIST}-{_LIST}")
_DATE2 = re.compile(rf"{_LIST}-{_LIST}")
_TIMES = tuple(re.compile(":".join([_LIST] * parts)) for parts in (3, 2, 1))
_LIMITS = {"year": 2199, "month": 12, "day": 31, "hour": 23, "minute": 59, "second": 59}
_KEYWORDS = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "semi-annually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
}


@dataclass(frozen=True)
class Event:
    """A parsed event: the values of each field that match, ascending; ``years`` empty means any.

    :param weekdays: 0 is Monday; :param utc: times are UTC instead of the node's zone.
    """

    text: str
    weekdays: frozenset[int]
    years: tuple[int, ...]
    months: tuple[int, ...]
    days: frozenset[int]
    hours: tuple[int, ...]
    minutes: tuple[int, ...]
    seconds: tuple[int, ...]
    utc: bool = False


def parse_event(text: str) -> Event:
    """Parse an event.

    :raises UsageError: it cannot be parsed; the message shows from where on.
    """
    body = text.strip()
    if len(body) > 128:
        raise UsageError("the calendar event is longer than 128 characters")
    utc = body.endswith("UTC")
    if utc:
        body = body[:-3].rstrip()
    if not body:
        raise UsageError("unable to parse calendar event - event is empty", hint="for example: mon..fri 21:00")
    rest = _KEYWORDS.get(body, body)
    weekdays, rest = _take_weekdays(rest)
    years, months, days, rest, has_date = _take_date(rest)
    hours, minutes, seconds, rest = _take_time(rest, days_only=has_date or len(weekdays) < 7 or rest == "")
    if rest:
        raise UsageError(
            f"unable to parse calendar event {text!r} at {rest!r}",
            hint="for example: mon..fri 21:00, *-*-1 02:30, */15",
        )
    return Event(text, weekdays, years, months, frozenset(days), hours, minutes, seconds, utc)


def next_runs(event: Event, after: int, tz: tzinfo | None = None, count: int = 1) -> list[int]:
    """The next instants of an event, each strictly later than the one before.

    A local time that does not exist (clocks put forward) is skipped; one that exists twice counts once, the first time.

    :param after: seconds since 1970; :param tz: zone of the times, ``None`` for the node's; an event may say UTC.
    :returns: up to ``count`` times in seconds since 1970; fewer when the event ends.
    """
    zone = timezone.utc if event.utc else tz
    start = datetime.fromtimestamp(after + 1, zone)
    runs: list[int] = []
    for wall in _walls(event, start.replace(tzinfo=None, fold=0)):
        if len(runs) >= count:
            break
        for fold in (0, 1) if start.fold else (0,):
            instant = wall.replace(tzinfo=zone, fold=fold)
            epoch = int(instant.timestamp())
            exists = datetime.fromtimestamp(epoch, zone).replace(tzinfo=None, fold=0) == wall
            if exists and epoch > max([after, *runs[-1:]]):
                runs.append(epoch)
                break
    return runs


def _walls(event: Event, start: datetime) -> Iterator[datetime]:
    """Matching wall times from ``start`` on."""
    for day in _dates(event, start.date()):
        first = start.time() if day == start.date() else None
        for hour in event.hours:
            if first and hour < first.hour:
                continue
            for minute in event.minutes:
                if first and (hour, minute) < (first.hour, first.minute):
                    continue
                for second in event.seconds:
                    if not first or (hour, minute, second) >= (first.hour, first.minute, first.second):
                        yield datetime(day.year, day.month, day.day, hour, minute, second)


def _dates(event: Event, start: date) -> Iterator[date]:
    for year in event.years or range(start.year, _LIMITS["year"] + 1):
        if year < start.year:
            continue
        for month in event.months:
            if (year, month) < (start.year, start.month):
                continue
            day = date(year, month, 1)
            while day.month == month:
                if day >= start and day.day in event.days and day.weekday() in event.weekdays:
                    yield day
                day += timedelta(days=1)


def _take_weekdays(text: str) -> tuple[frozenset[int], str]:
    match = _WEEKDAYS.match(text)
    if match is None:
        return frozenset(range(7)), text
    found: set[int] = set()
    for part in match[0].lower().split(","):
        first, _dots, last = part.partition("..")
        begin, end = _weekday(first), _weekday(last or first)
        found.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(found), text[match.end() :].lstrip(" \t")


def _weekday(name: str) -> int:
    return next(index for index, day in enumerate(_DAYS) if day.startswith(name))


def _take_date(text: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], str, bool]:
    for pattern, fields in ((_DATE3, ("year", "month", "day")), (_DATE2, ("month", "day"))):
        match = pattern.match(text)
        values = _fields(match, fields) if match else None
        if match and values is not None:
            years = values[0] if len(values) == 3 else ()
            any_year = match[1] == "*"
            return () if any_year else years, values[-2], values[-1], text[match.end() :].lstrip(" \t"), True
    return (), tuple(range(1, 13)), tuple(range(1, 32)), text, False


def _take_time(text: str, days_only: bool) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], str]:
    if not text and days_only:
        return (0,), (0,), (0,), ""
    layouts = (("hour", "minute", "second"), ("hour", "minute"), ("minute", "second"), ("minute",))
    for fields in layouts:
        match = _TIMES[3 - len(fields)].match(text)
        values = _fields(match, fields) if match else None
        if match and values is not None:
            found = dict(zip(fields, values))
            every = tuple(range(24))
            return found.get("hour", every), found["minute"], found.get("second", (0,)), text[match.end() :]
    return (), (), (), text


def _fields(match: re.Match[str], fields: tuple[str, ...]) -> list[tuple[int, ...]] | None:
    values = [_expand(match[index], field) for index, field in enumerate(fields, 1)]
    return None if any(value is None for value in values) else [value for value in values if value is not None]


def _expand(text: str, field: str) -> tuple[int, ...] | None:
    """All values of a list; ``None`` when a number is out of range or a repetition makes no sense."""
    most = _LIMITS[field]
    least = 1 if field in ("month", "day") else 0
    found: set[int] = set()
    for part in text.split(","):
        span, _slash, step_text = part.partition("/")
        step = int(step_text) if step_text else None
        if step is not None and step > most:
            return None
        if span == "*":
            if step == 0:
                return None
            found.update(range(least, most + 1, step or 1))
            continue
        first_text, dots, last_text = span.partition("..")
        first, last = int(first_text), int(last_text) if dots else int(first_text)
        if first > most or last > most or first > last:
            return None
        if step == 0:
            last = first
        elif step and not dots:
            last = most
        found.update(range(first, last + 1, step or 1))
    return tuple(sorted(value for value in found if value >= least))
