# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calendar events as systemd timers understand them.

An event is never passed on as text: the two grammars share words and differ in their meaning. The values of the parsed
event are written out again, every one of them, so that the timer elapses when :mod:`.schedule` says.
"""

from __future__ import annotations

from ..errors import UsageError
from .calendar import DAYS, LIMITS, Event
from .schedule import FIRST_YEAR, why_never


def to_systemd(event: Event) -> list[str]:
    """The values of ``OnCalendar=`` for an event.

    :raises UsageError: systemd cannot be told, because the event never happens.
    """
    reason = why_never(event)
    if reason:
        raise UsageError(
            f"the calendar event {event.text!r} cannot become a timer: it never happens, {reason}",
            hint="correct the event, or disable the job",
        )
    weekdays = ",".join(DAYS[day][:3].capitalize() for day in event.weekdays) if len(event.weekdays) < 7 else ""
    # systemd reads years of two digits as of this century; they are long past here.
    years = _field("years", tuple(year for year in event.years if year >= FIRST_YEAR)) if event.years else "*"
    day = f"{years}-{_field('months', event.months)}-{_field('days', event.days)}"
    time = ":".join(_field(name, getattr(event, name)) for name in ("hours", "minutes", "seconds"))
    return [" ".join(part for part in (weekdays, day, time, "UTC" if event.utc else "") if part)]


def _field(name: str, values: tuple[int, ...]) -> str:
    """One field: ``*`` for all values, else a list in which neighbours with equal distances are one repetition.

    Repetitions are closed by their last value: an open one makes systemd miss runs on days when clocks change.
    """
    least, most = LIMITS[name]
    if len(values) == most - least + 1:
        return "*"
    parts: list[str] = []
    rest = list(values)
    while rest:
        run = _equal_steps(rest)
        if len(run) < 3:
            run = rest[:1]
            parts.append(f"{run[0]:02d}")
        else:
            step = run[1] - run[0]
            parts.append(f"{run[0]:02d}..{run[-1]:02d}" + (f"/{step}" if step > 1 else ""))
        del rest[: len(run)]
    return ",".join(parts)


def _equal_steps(values: list[int]) -> list[int]:
    """The longest beginning in which all neighbours have the same distance."""
    length = min(len(values), 2)
    while length < len(values) and values[length] - values[length - 1] == values[1] - values[0]:
        length += 1
    return values[:length]
