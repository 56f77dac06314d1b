# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calendar events in Proxmox VE's grammar: ``mon..fri 21:00``, ``*/15``, ``*-*-1 02:30 UTC``.

The grammar is the original's, with its traps (a lone number is minutes). One difference on purpose: a repetition that
does not divide its unit (``*/25``) starts again in every unit (11:00, 11:25, 11:50), as in systemd, which is the
scheduler here; the original skips the start after a wrap.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Sequence

from ..errors import UsageError

MOST_CHARACTERS = 128
LIMITS = {
    "years": (0, 2199),
    "months": (1, 12),
    "days": (1, 31),
    "hours": (0, 23),
    "minutes": (0, 59),
    "seconds": (0, 59),
}
"""Smallest and largest value of each field. A month or day 0 can be written, and never matches."""

KEYWORDS = {
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
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY = "(?:" + "|".join(f"{day[:3]}(?:{day[3:]})?" for day in DAYS) + ")"
_WEEKDAYS = re.compile(rf"{_DAY}(?:\.\.{_DAY})?(?:,{_DAY}(?:\.\.{_DAY})?)*", re.IGNORECASE | re.ASCII)
_ITEM = r"[0-9]+(?:\.\.[0-9]+)?(?:/[0-9]+)?"
_LIST = rf"(\*(?:/[0-9]+)?|{_ITEM}(?:,{_ITEM})*)"
_DATES = (("years", "months", "days"), ("months", "days"))
_TIMES = (("hours", "minutes", "seconds"), ("hours", "minutes"), ("minutes", "seconds"), ("minutes",))
_HINT = "for example: mon..fri 21:00, *-*-1 02:30, */15"


@dataclass(frozen=True)
class Event:
    """A parsed event: the values of each field that match, ascending.

    :param weekdays: 0 is Monday; :param years: empty means any; :param utc: times are UTC, not the node's.
    """

    text: str
    weekdays: tuple[int, ...] = tuple(range(7))
    years: tuple[int, ...] = ()
    months: tuple[int, ...] = tuple(range(1, 13))
    days: tuple[int, ...] = tuple(range(1, 32))
    hours: tuple[int, ...] = tuple(range(24))
    minutes: tuple[int, ...] = (0,)
    seconds: tuple[int, ...] = (0,)
    utc: bool = False


def parse_event(text: str) -> Event:
    """Parse an event.

    :raises UsageError: it cannot be parsed; the message shows from where on.
    """
    body = text.strip()
    if len(body) > MOST_CHARACTERS:
        raise UsageError(f"the calendar event is longer than {MOST_CHARACTERS} characters", hint="use several jobs")
    utc = body.endswith("UTC")
    if utc:
        body = body[:-3].rstrip(" ")
    if not body:
        raise UsageError("unable to parse calendar event - event is empty", hint=_HINT)
    weekdays, rest = _take_weekdays(KEYWORDS.get(body, body))
    date, rest = _take(rest, "-", _DATES)
    # Days without a time mean midnight.
    time, left = _take(rest, ":", _TIMES) if rest else ({"hours": (0,)}, "")
    if left or not time:
        where = left if time else rest
        raise UsageError(f"unable to parse calendar event {text!r} at {where!r}", hint=_HINT)
    return Event(text, weekdays, utc=utc, **date, **time)


def _take_weekdays(text: str) -> tuple[tuple[int, ...], str]:
    match = _WEEKDAYS.match(text)
    if match is None:
        return tuple(range(7)), text
    found: set[int] = set()
    for part in match[0].lower().split(","):
        first, _dots, last = part.partition("..")
        begin, end = _weekday(first), _weekday(last or first)
        found.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return tuple(sorted(found)), text[match.end() :].lstrip(" \t")


def _weekday(name: str) -> int:
    return next(index for index, day in enumerate(DAYS) if day.startswith(name))


def _take(text: str, separator: str, layouts: Sequence[tuple[str, ...]]) -> tuple[dict[str, tuple[int, ...]], str]:
    """Values by the first layout of fields that fits the beginning of the text, and what follows them."""
    for fields in layouts:
        match = re.match(separator.join([_LIST] * len(fields)), text)
        if match is None:
            continue
        try:
            found = {field: _expand(part, field) for field, part in zip(fields, match.groups())}
        except ValueError:
            continue
        rest = text[match.end() :]
        return found, rest.lstrip(" \t") if separator == "-" else rest
    return {}, text


def _expand(text: str, field: str) -> tuple[int, ...]:
    """All values of a list; ``ValueError`` when a number is out of range or a repetition makes no sense."""
    least, most = LIMITS[field]
    if text == "*" and field == "years":
        return ()
    found: set[int] = set()
    for part in text.split(","):
        span, _slash, step_text = part.partition("/")
        step = int(step_text) if step_text else None
        if (step is not None and step > most) or (span == "*" and step == 0):
            raise ValueError(part)
        if span == "*":
            found.update(range(least, most + 1, step or 1))
            continue
        first_text, dots, last_text = span.partition("..")
        first, last = int(first_text), int(last_text) if dots else int(first_text)
        if last > most or first > last:
            raise ValueError(part)
        if step == 0:
            last = first
        elif step and not dots:
            last = most
        found.update(range(first, last + 1, step or 1))
    return tuple(sorted(value for value in found if value >= least))
