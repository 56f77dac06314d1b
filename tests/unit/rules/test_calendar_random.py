# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random calendar events against an evaluator that looks at every minute, and against systemd's own."""

from __future__ import annotations

import os
import random
import re
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
from engine.rules.calendar import DAYS, LIMITS, MOST_CHARACTERS, parse_event
from engine.rules.schedule import next_runs, why_never
from engine.rules.systemd import to_systemd
from hypothesis import assume, given, settings
from hypothesis import strategies as st

VIENNA = ZoneInfo("Europe/Vienna")
START = int(datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp())
INSTANTS = st.integers(START, START + 4 * 366 * 86400)
Names = tuple[str, ...]
DATES: Names = ("years", "months", "days")
TIMES: Names = ("hours", "minutes", "seconds")


@dataclass(frozen=True)
class Item:
    """``first..last/step`` of a list; ``first`` is ``None`` for ``*``."""

    first: int | None
    last: int | None = None
    step: int | None = None

    def text(self) -> str:
        span = "*" if self.first is None else str(self.first) if self.last is None else f"{self.first}..{self.last}"
        return span if self.step is None else f"{span}/{self.step}"

    def matches(self, value: int, least: int) -> bool:
        first = least if self.first is None else self.first
        if self.step == 0 or (self.first is not None and self.last is None and self.step is None):
            return value == first
        return first <= value <= (9999 if self.last is None else self.last) and (value - first) % (self.step or 1) == 0


@dataclass(frozen=True)
class Made:
    """An event that was put together from parts; what it means is told by the parts, not by parsing its text."""

    text: str
    weekdays: frozenset[int]
    fields: dict[str, list[Item]]

    def matches(self, wall: datetime) -> bool:
        values = (wall.year, wall.month, wall.day, wall.hour, wall.minute, wall.second)
        return wall.weekday() in self.weekdays and all(
            any(item.matches(value, LIMITS[name][0]) for item in self.fields[name])
            for name, value in zip((*DATES, *TIMES), values)
        )


def make_items(rand: random.Random, name: str) -> list[Item]:
    least, most = (2024, 2034) if name == "years" else LIMITS[name]
    if rand.random() < 0.3:
        return [Item(None, step=rand.choice([None, rand.randint(1, most if most < 100 else 4)]))]
    items = []
    for _one in range(rand.choice([1, 1, 2, 4])):
        first = rand.randint(least, most)
        last = rand.randint(first, most) if rand.random() < 0.4 else None
        step = rand.randint(0, most if most < 100 else 4) if rand.random() < 0.4 else None
        items.append(Item(first, last, step))
    return items


def make_event(rand: random.Random, *, whole_minutes: bool = False) -> Made:
    """Any event that the grammar allows, also such that never happen."""
    any_value, zero = [Item(None)], [Item(0)]
    fields = {**dict.fromkeys(DATES, any_value), **dict.fromkeys(TIMES, zero)}
    weekdays, parts = frozenset(range(7)), []
    if rand.random() < 0.4:
        texts, found = [], set()
        for _one in range(rand.choice([1, 1, 2])):
            first, length = rand.randrange(7), rand.choice([1, 1, 3, 7])
            days = [(first + step) % 7 for step in range(length)]
            found.update(days)
            names = [rand.choice([DAYS[day], DAYS[day][:3].capitalize()]) for day in (days[0], days[-1])]
            texts.append(names[0] if length == 1 else "..".join(names))
        weekdays = frozenset(found)
        parts.append(",".join(texts))
    if rand.random() < 0.4:
        chosen = rand.choice([DATES, DATES[1:]])
        fields.update({name: make_items(rand, name) for name in chosen})
        parts.append("-".join(",".join(item.text() for item in fields[name]) for name in chosen))
    if not parts or rand.random() < 0.8:
        chosen = rand.choice([TIMES[1:2], TIMES[:2], TIMES[:2]] if whole_minutes else [TIMES[1:2], TIMES[:2], TIMES])
        fields["hours"] = any_value
        fields.update({name: make_items(rand, name) for name in chosen})
        parts.append(":".join(",".join(item.text() for item in fields[name]) for name in chosen))
    text = " ".join(parts)
    if len(f"{text} UTC") > MOST_CHARACTERS:
        return make_event(rand, whole_minutes=whole_minutes)
    return Made(text, weekdays, fields)


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False), INSTANTS, st.sampled_from([timezone.utc, VIENNA]))
def test_every_run_matches_and_none_is_missed(rand: random.Random, after: int, zone: timezone | ZoneInfo) -> None:
    made = make_event(rand, whole_minutes=True)
    if datetime.fromtimestamp(after, zone).fold:
        # Who starts in the second pass of a repeated hour goes on within it; a table test shows that.
        after += 3600
    until = after + 2 * 86400
    minutes = range(after // 60 * 60 + 60, until, 60)
    walls = ((minute, datetime.fromtimestamp(minute, zone)) for minute in minutes)
    expected = [minute for minute, wall in walls if not wall.fold and made.matches(wall)]
    found = next_runs(parse_event(made.text), after, zone, len(expected) + 1)
    assert [run for run in found if run < until] == expected


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), INSTANTS, INSTANTS)
def test_runs_are_later_and_in_order(rand: random.Random, one: int, other: int) -> None:
    event = parse_event(make_event(rand).text)
    early, late = sorted((one, other))
    first, second = (next_runs(event, after, timezone.utc, 4) for after in (early, late))
    for after, found in ((early, first), (late, second)):
        assert all(earlier < later for earlier, later in zip([after, *found], found))
    if second:
        assert first[0] <= second[0]
    if first and first[0] > late:
        assert first == second


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_what_systemd_is_told_says_the_same(rand: random.Random) -> None:
    event = parse_event(make_event(rand).text)
    if why_never(event):
        assert next_runs(event, 0, timezone.utc) == []
        return
    (line,) = to_systemd(event)
    assume(len(line) <= MOST_CHARACTERS)
    assert next_runs(parse_event(line), START, VIENNA, 5) == next_runs(event, START, VIENNA, 5)


def systemd_runs(lines: list[str], zone: str, base: str, count: int) -> list[list[int]]:
    """What ``systemd-analyze calendar`` (Debian package systemd) says of every line."""
    done = subprocess.run(
        ["systemd-analyze", "calendar", f"--iterations={count}", f"--base-time={base}", *lines],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "TZ": zone, "LC_ALL": "C"},
    )
    answers = done.stdout.split("Normalized form:")[1:]
    pattern = re.compile(r"\(in UTC\): \w+ (\S+ \S+) UTC" if zone != "UTC" else r"(?:elapse|#\d+): \w+ (\S+ \S+) UTC")
    return [
        [int(datetime.fromisoformat(f"{text}+00:00").timestamp()) for text in pattern.findall(answer)]
        for answer in answers
    ]


@pytest.mark.parametrize(
    ("zone", "base"),
    [
        ("UTC", "2026-03-04 10:11:12"),
        ("UTC", "2028-02-28 23:59:59"),
        ("Europe/Vienna", "2026-03-28 12:00:00"),
        ("Europe/Vienna", "2026-10-24 12:00:00"),
        ("Australia/Lord_Howe", "2026-04-04 12:00:00"),
    ],
)
def test_systemd_has_the_same_next_runs(zone: str, base: str) -> None:
    rand = random.Random(f"{zone} {base}")
    made = [make_event(rand).text + rand.choice(["", "", " UTC"]) for _one in range(200)]
    events = [event for event in map(parse_event, made) if not why_never(event)]
    lines = [line for event in events for line in to_systemd(event)]
    assert len(lines) == len(events) > 100
    start = int(datetime.fromisoformat(base).replace(tzinfo=ZoneInfo(zone)).timestamp())
    for event, line, theirs in zip(events, lines, systemd_runs(lines, zone, base, 5)):
        assert (event.text, line, next_runs(event, start, ZoneInfo(zone), 5)) == (event.text, line, theirs)
