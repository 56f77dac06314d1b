# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Retention by worked examples and by what must hold for every policy and every set of archives."""

from __future__ import annotations

import dataclasses
import random
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from engine.errors import UsageError
from engine.rules.retention import RULES, Entry, Keep, emptied, format_keep, parse_keep, prune_plan
from hypothesis import given, settings
from hypothesis import strategies as st

UTC, VIENNA = timezone.utc, ZoneInfo("Europe/Vienna")
MARKS = {"K": "keep", "R": "remove", "P": "protected"}

# Options without "keep-"; archives newest first, each with its mark. A time means 02:00 and a year 2026 if not given.
EXAMPLES = [
    ("last=2", "03-10 K, 03-09 K, 03-08 R, 03-07 R"),
    ("all=1", "03-10 K, 03-09 K, 03-08 K"),
    ("", "03-10 K, 03-09 K, 03-08 K"),
    ("last=0,daily=0", "03-10 K, 03-09 K, 03-08 K"),
    ("last=10", "03-10 K, 03-09 K, 03-08 K, 03-07 K, 03-06 K"),
    ("daily=3", "03-10 22:00 K, 03-10 R, 03-09 K, 03-07 K, 03-06 R"),
    ("last=1,daily=2", "03-10 22:00 K, 03-10 R, 03-09 22:00 K, 03-09 R, 03-08 K, 03-07 R"),
    ("hourly=2", "03-10 10:50 K, 03-10 10:10 R, 03-10 09:59:59 K, 03-10 09:00 R, 03-10 08:00 R"),
    ("weekly=1,monthly=1", "04-03 K, 03-31 R, 03-20 K, 02-20 R"),
    ("last=1,weekly=1,monthly=1", "04-03 K, 03-31 R, 03-20 K, 02-20 K"),
    ("monthly=2", "04-03 K, 03-31 K, 03-20 R, 02-20 R"),
    ("weekly=2", "03-10 K, 03-09 R, 03-08 K, 03-07 R, 03-06 R, 03-05 R, 03-04 R, 03-03 R, 03-02 R, 03-01 R, 02-28 R"),
    ("weekly=1,monthly=2", "02-02 K, 02-01 R, 01-31 K, 01-25 R, 2025-12-31 K"),
    ("yearly=2", "01-01 00:00:00 K, 2025-12-31 23:59:59 K, 2025-01-01 R, 2024-06-01 R"),
    ("weekly=2", "2021-01-04 K, 2021-01-03 K, 2020-12-28 R, 2020-12-27 R"),
    ("weekly=2", "2024-12-31 K, 2024-12-30 R, 2024-12-29 K"),
    ("weekly=2", "2020-01-01 K, 2019-12-30 R, 2019-12-29 K"),
    ("last=2", "03-10 P, 03-09 K, 03-08 P, 03-07 K, 03-06 R"),
    ("daily=2", "03-10 22:00 P, 03-10 K, 03-09 K, 03-08 R"),
    ("daily=1,weekly=1", "2020-12-07 K, 2020-12-04 K, 2020-12-03 R"),
    ("daily=1,weekly=1,monthly=1", "2020-01-01 K, 2019-12-31 R, 2019-12-25 K"),
    ("last=3", "03-10 K, 03-10 R, 03-09 K, 03-08 K, 03-07 R"),
    ("monthly=3", "03-31 K, 01-31 K, 2025-11-30 K, 2025-10-31 R"),
    (
        "last=1,hourly=1,daily=1,weekly=1,monthly=1,yearly=1",
        "03-10 12:30 K, 03-10 12:10 R, 03-10 11:10 K, 03-09 11:10 K, 03-08 K, 03-03 R, 02-28 K, 02-01 R, 2025-12-31 K,"
        " 2025-01-05 R",
    ),
    ("all=1", "03-10 P, 03-09 K"),
    ("last=1", "03-10 P, 03-09 P"),
    ("daily=7", "03-10 K, 03-08 K, 03-06 K, 03-04 K, 03-02 K, 02-28 K, 02-26 K, 02-24 R, 02-22 R"),
    ("weekly=4", "03-10 K, 03-03 K, 02-24 K, 02-17 K, 02-10 R, 02-03 R"),
    ("last=1,monthly=1", "03-31 K, 03-30 R, 02-28 K, 02-27 R"),
    ("daily=1,monthly=12", "03-31 K, 03-30 R, 02-28 K, 02-27 R, 01-31 K"),
    ("last=1,yearly=1", "03-31 K, 01-02 R, 2025-12-30 K, 2024-12-30 R"),
    ("weekly=3", "03-09 00:00 K, 03-08 23:59:59 K, 03-02 00:00 R, 03-01 23:59:59 K, 02-23 R, 02-22 R"),
]  # fmt: skip
IN_VIENNA = [
    ("daily=2", "03-10 23:30 K, 03-10 00:30 R, 03-09 23:30 K, 03-08 12:00 R"),
    ("hourly=2", "03-29 03:10 K, 03-29 01:50 K, 03-29 01:10 R, 03-29 00:10 R"),
]


def at(text: str, zone: tzinfo) -> int:
    full = text if text[4:5] == "-" else f"2026-{text}"
    return int(datetime.fromisoformat(full if " " in full else f"{full} 02:00").replace(tzinfo=zone).timestamp())


def keep_of(options: str) -> Keep:
    return parse_keep(",".join(f"keep-{part}" for part in options.split(",") if part))


def marks(entries: list[Entry], keep: Keep, zone: tzinfo = UTC) -> list[str]:
    return [one.mark for one in prune_plan(entries, keep, zone)]


@pytest.mark.parametrize(
    ("options", "archives", "zone"),
    [*((*example, UTC) for example in EXAMPLES), *((*example, VIENNA) for example in IN_VIENNA)],
)
def test_examples(options: str, archives: str, zone: tzinfo) -> None:
    parts = [part.strip().rsplit(" ", 1) for part in archives.split(",")]
    entries = [Entry(f"{n:03}", "qemu/100", at(time, zone), mark == "P") for n, (time, mark) in enumerate(parts)]
    expected = [MARKS[mark] for _time, mark in parts]
    assert marks(entries, keep_of(options), zone) == expected
    order = list(range(len(entries)))
    random.Random(options).shuffle(order)
    assert marks([entries[n] for n in order], keep_of(options), zone) == [expected[n] for n in order]


def test_hourly_backups_of_a_day() -> None:
    newest = at("03-10 23:00", UTC)
    entries = [Entry(str(n), "qemu/100", newest - n * 3600) for n in range(30)]
    assert marks(entries, keep_of("hourly=24")) == ["keep"] * 24 + ["remove"] * 6


def test_both_passes_of_a_repeated_hour_are_one_hour() -> None:
    first = datetime(2026, 10, 25, 2, 30, tzinfo=VIENNA)
    times = [int(first.replace(fold=fold).timestamp()) for fold in (1, 0)]
    entries = [Entry(str(n), "lxc/105", time) for n, time in enumerate([times[0] + 3600, *times, times[1] - 3600])]
    assert marks(entries, keep_of("hourly=3"), VIENNA) == ["keep", "keep", "remove", "keep"]


def test_500_days_of_a_usual_policy() -> None:
    newest = datetime(2026, 3, 10, 2, tzinfo=UTC)
    days = [newest - timedelta(days=n) for n in range(500)]
    entries = [Entry(f"{day:%F}", "qemu/100", int(day.timestamp())) for day in days]
    plan = prune_plan(entries, keep_of("last=3,daily=13,weekly=8,monthly=11,yearly=9"), UTC)
    assert [one.entry.name for one in plan if one.mark == "keep"] == [
        *(f"{day:%F}" for day in days[:16]),
        *("2026-02-22", "2026-02-15", "2026-02-08", "2026-02-01", "2026-01-25", "2026-01-18", "2026-01-11"),
        *("2026-01-04", "2025-12-28", "2025-11-30", "2025-10-31", "2025-09-30", "2025-08-31", "2025-07-31"),
        *("2025-06-30", "2025-05-31", "2025-04-30", "2025-03-31", "2025-02-28", "2024-12-31"),
    ]
    assert plan[0].rule == "keep-last"
    assert plan[5].rule == "keep-daily"
    assert plan[69].rule == "keep-weekly keeps a newer one of the same period"
    assert plan[499].rule == "keep-yearly keeps a newer one of the same period"
    assert prune_plan(entries, keep_of("last=3"), UTC)[3].rule == "no rule keeps it"


def test_groups_do_not_compete_and_renamed_archives_stay() -> None:
    groups = ["qemu/100", "lxc/100", "lxc/101", None]
    entries = [Entry(f"{group} {n}", group, n) for group in groups for n in (1, 2)]
    assert marks(entries, keep_of("last=1")) == ["remove", "keep"] * 3 + ["renamed"] * 2
    assert marks([Entry("x", None, 0, True)], keep_of("last=1")) == ["protected"]


def test_of_two_in_one_second_the_name_decides() -> None:
    entries = [Entry(name, "qemu/100", 5) for name in ("b", "a")]
    assert marks(entries, keep_of("last=1")) == ["remove", "keep"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("keep-last=3,keep-daily=7", {"keep-last": 3, "keep-daily": 7}),
        ("keep-daily=7,keep-last=3", {"keep-last": 3, "keep-daily": 7}),
        ({"keep_last": 3, "daily": "7", "keep-weekly": None}, {"keep-last": 3, "keep-daily": 7}),
        ("", {"keep-all": 1}),
        ("  ", {"keep-all": 1}),
        ("keep-all=1", {"keep-all": 1}),
        ("keep-all=0", {"keep-all": 1}),
        ("keep-all=Yes", {"keep-all": 1}),
        ("keep-all=0,keep-last=3", {"keep-last": 3}),
        ("keep-all=off,keep-last=3", {"keep-last": 3}),
        ("keep-all=1,keep-last=0", {"keep-all": 1}),
        ("keep-last=0,keep-daily=0", {"keep-all": 1}),
        ("keep-last=3,,", {"keep-last": 3}),
        ("keep-last=+1,keep-daily=01,keep-weekly=-0", {"keep-last": 1, "keep-daily": 1}),
        (f"keep-last={10**30}", {"keep-last": 10**30}),
        ({"keep_all": True}, {"keep-all": 1}),
        ({"keep_all": None, "keep_last": 1}, {"keep-last": 1}),
        ({}, {"keep-all": 1}),
    ],
)
def test_option(value: object, expected: dict[str, int]) -> None:
    assert parse_keep(value).to_dict() == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    ["keep-all=1,keep-last=3", "keep-foo=1", "last=3", "keep-last=1,keep-last=2", "3", "keep-all", "keep-last=", "=3",
     "keep-last=-1", "keep-last=x", "keep-last=1.0", "keep-last=1e2", "keep-last=0x10", "keep-last=\u0663",
     "keep-all=2", "keep-all=maybe", "keep-last=1, keep-daily=2", "keep-last= 1", "keep-last=1 ",
     "keep-last=1;keep-daily=2", "keep-last=" + "9" * 5000, {"keep_last": True}, {"keep_last": 1, "keep-last": 2},
     {"keep_all": True, "last": 1}],
)  # fmt: skip
def test_what_is_no_option(value: object) -> None:
    with pytest.raises(UsageError, match="retention"):
        parse_keep(value)  # type: ignore[arg-type]


KEEPS = st.dictionaries(st.sampled_from(RULES), st.integers(0, 5)).map(parse_keep)
TIMES = st.integers(0, 500).map(lambda hours: 1_767_225_600 + hours * 7 * 3600)
ENTRIES = st.lists(
    st.builds(
        Entry,
        name=st.just(""),
        group=st.sampled_from(["qemu/100", "lxc/100", None]),
        time=TIMES,
        protected=st.integers(0, 5).map(lambda n: n == 0),
    ),
    max_size=25,
).map(lambda found: [dataclasses.replace(entry, name=f"{n:02}") for n, entry in enumerate(found)])


@settings(max_examples=60, deadline=None)
@given(ENTRIES, KEEPS, st.sampled_from([UTC, VIENNA]))
def test_what_every_plan_respects(entries: list[Entry], keep: Keep, zone: tzinfo) -> None:
    plan = prune_plan(entries, keep, zone)
    assert [one.entry for one in plan] == entries
    for one in plan:
        assert (one.mark == "protected") == one.entry.protected
        assert (one.mark == "renamed") == (one.entry.group is None and not one.entry.protected)
        assert one.rule
        assert not keep.all or one.mark != "remove"
    for group in {entry.group for entry in entries} - {None}:
        open_to_removal = [one for one in plan if one.entry.group == group and not one.entry.protected]
        if open_to_removal:
            newest = max(open_to_removal, key=lambda one: (one.entry.time, -int(one.entry.name)))
            assert newest.mark == "keep"
        assert sum(one.mark == "keep" for one in open_to_removal) <= sum(dict(keep.counts).values()) or keep.all
    left = [one.entry for one in plan if one.mark != "remove"]
    assert all(one.mark != "remove" for one in prune_plan(left, keep, zone))
    assert emptied(plan) == []


@settings(max_examples=60, deadline=None)
@given(ENTRIES, st.sampled_from(RULES), st.integers(1, 5), st.integers(1, 5))
def test_a_larger_count_of_one_rule_keeps_no_less(entries: list[Entry], rule: str, count: int, more: int) -> None:
    few, many = (
        {one.entry for one in prune_plan(entries, Keep(((rule, number),)), UTC) if one.mark == "keep"}
        for number in (count, count + more)
    )
    assert few <= many


@settings(max_examples=60, deadline=None)
@given(ENTRIES, KEEPS)
def test_a_larger_count_of_the_last_rule_keeps_no_less(entries: list[Entry], keep: Keep) -> None:
    if keep.all:
        return
    rule, count = keep.counts[-1]
    larger = Keep((*keep.counts[:-1], (rule, count + 1)))
    few, many = (
        {one.entry for one in prune_plan(entries, policy, UTC) if one.mark == "keep"} for policy in (keep, larger)
    )
    assert few <= many


@settings(max_examples=40, deadline=None)
@given(ENTRIES, KEEPS, st.randoms(use_true_random=False))
def test_the_order_of_the_list_does_not_matter(entries: list[Entry], keep: Keep, rand: random.Random) -> None:
    shuffled = rand.sample(entries, len(entries))
    assert {one.entry: one.mark for one in prune_plan(shuffled, keep, UTC)} == {
        one.entry: one.mark for one in prune_plan(entries, keep, UTC)
    }


@given(KEEPS)
def test_text_round_trip(keep: Keep) -> None:
    assert parse_keep(format_keep(keep)) == keep


def test_a_guest_that_would_lose_its_last_good_archive() -> None:
    bad = Entry("new", "qemu/100", 9, good=False)
    good = [Entry("a", "qemu/100", 2), Entry("b", "qemu/100", 1)]
    other = [Entry("c", "lxc/105", 3), Entry("d", "lxc/105", 1)]
    (lost,) = emptied(prune_plan([bad, *good, *other], keep_of("last=1"), UTC))
    assert (lost.group, lost.removed) == ("qemu/100", ("a", "b"))
    assert emptied(prune_plan([bad, *good], keep_of("last=2"), UTC)) == []
    safe = dataclasses.replace(good[1], protected=True)
    assert emptied(prune_plan([bad, good[0], safe], keep_of("last=1"), UTC)) == []
    assert emptied(prune_plan([bad], keep_of("last=1"), UTC)) == []
