# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calendar events by worked examples: the grammar, the next runs, clock changes, what is refused."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from engine.errors import UsageError
from engine.rules.calendar import KEYWORDS, parse_event
from engine.rules.schedule import next_runs, why_never
from engine.rules.systemd import to_systemd

VIENNA = ZoneInfo("Europe/Vienna")
UTC = ZoneInfo("UTC")


def at(text: str, zone: ZoneInfo = UTC, fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp())


def runs(event: str, last: str, count: int, zone: ZoneInfo = UTC) -> list[int]:
    return next_runs(parse_event(event), at(last, zone), zone, count)


# 2026-03-04 is a Wednesday. A last member "none" means that the event has no further run.
EXAMPLES = [
    ("daily", "2026-03-04 00:00:00", ["2026-03-05 00:00"]),
    ("daily", "2026-03-04 00:00:01", ["2026-03-05 00:00"]),
    ("21:00", "2026-03-04 20:59:59", ["2026-03-04 21:00"]),
    ("21:00", "2026-03-04 21:00:00", ["2026-03-05 21:00"]),
    ("hourly", "2026-03-04 10:15:30", ["2026-03-04 11:00"]),
    ("minutely", "2026-03-04 10:15:30", ["2026-03-04 10:16"]),
    ("weekly", "2026-03-04 10:00", ["2026-03-09 00:00"]),
    ("monthly", "2026-01-31 12:00", ["2026-02-01 00:00"]),
    ("quarterly", "2026-02-10", ["2026-04-01 00:00"]),
    ("semiannually", "2026-02-10", ["2026-07-01 00:00"]),
    ("semi-annually", "2026-07-01 00:00", ["2027-01-01"]),
    ("yearly", "2026-02-10", ["2027-01-01"]),
    ("annually", "2026-02-10", ["2027-01-01"]),
    ("mon..fri 22", "2026-03-04 10:00", ["2026-03-04 10:22", "2026-03-04 11:22", "2026-03-04 12:22"]),
    ("mon..fri 22:00", "2026-03-06 22:00", ["2026-03-09 22:00", "2026-03-10 22:00"]),
    ("30", "2026-03-04 10:00", ["2026-03-04 10:30", "2026-03-04 11:30"]),
    ("*", "2026-03-04 10:00", ["2026-03-04 10:01", "2026-03-04 10:02"]),
    ("*/5", "2026-03-04 10:02", ["2026-03-04 10:05", "2026-03-04 10:10"]),
    ("0/5", "2026-03-04 23:58", ["2026-03-05 00:00", "2026-03-05 00:05"]),
    ("*/25", "2026-03-04 10:59:59", ["2026-03-04 11:00", "2026-03-04 11:25"]),
    ("*/6:00", "2026-03-04 18:00", ["2026-03-05 00:00", "2026-03-05 06:00"]),
    ("8:00/15", "2026-03-04 08:30", ["2026-03-04 08:45", "2026-03-05 08:00"]),
    ("mon..wed 30/10", "2026-03-04 23:45", ["2026-03-04 23:50", "2026-03-09 00:30"]),
    ("mon..fri 8..17,22:0/15", "2026-03-06 17:45", ["2026-03-06 22:00", "2026-03-06 22:15"]),
    (
        "fri 12..13:5/20",
        "2026-03-06 12:50",
        ["2026-03-06 13:05", "2026-03-06 13:25", "2026-03-06 13:45", "2026-03-13 12:05"],
    ),
    ("12/2:5", "2026-03-04 21:00", ["2026-03-04 22:05", "2026-03-05 12:05"]),
    ("4..10/2:0", "2026-03-04 09:00", ["2026-03-04 10:00", "2026-03-05 04:00"]),
    ("5,10:4,8", "2026-03-04 06:00", ["2026-03-04 10:04", "2026-03-04 10:08", "2026-03-05 05:04"]),
    ("2..4:0..10/5", "2026-03-04 03:06", ["2026-03-04 03:10", "2026-03-04 04:00", "2026-03-04 04:05"]),
    ("*-05", "2026-03-05 00:00", ["2026-04-05", "2026-05-05"]),
    ("Sat *-1..7 15:00", "2026-03-01", ["2026-03-07 15:00", "2026-04-04 15:00", "2026-05-02 15:00"]),
    ("2015-10-21", "2026-01-01", ["none"]),
    ("2030-01-01 06:30", "2026-01-01", ["2030-01-01 06:30", "none"]),
    ("sat 18:15", "2026-03-07 18:15:00", ["2026-03-14 18:15"]),
    ("fri..mon 12:00", "2026-03-04 13:00", [f"2026-03-0{day} 12:00" for day in (6, 7, 8, 9)]),
    ("sun..sat 3:00", "2026-03-04 13:00", ["2026-03-05 03:00", "2026-03-06 03:00"]),
    ("mon,wed,fri 2:30", "2026-03-04 13:00", ["2026-03-06 02:30", "2026-03-09 02:30", "2026-03-11 02:30"]),
    ("*-*-*/2 1:00", "2026-03-30 02:00", ["2026-03-31 01:00", "2026-04-01 01:00", "2026-04-03 01:00"]),
    ("02-29", "2026-01-01", ["2028-02-29", "2032-02-29"]),
    ("02-29", "2096-03-01", ["2104-02-29"]),
    ("mon 02-29", "2026-01-01", ["2044-02-29"]),
    ("02-30", "2026-01-01", ["none"]),
    ("*-*/3-1", "2026-03-04", ["2026-04-01", "2026-07-01", "2026-10-01", "2027-01-01"]),
    ("2025..2027-01-01", "2026-06-01", ["2027-01-01", "none"]),
    ("2026/2-12-24 18:00", "2026-12-24 18:00", ["2028-12-24 18:00"]),
    ("*:*:0/30", "2026-03-04 10:00:00", ["2026-03-04 10:00:30", "2026-03-04 10:01:00"]),
    ("*-*-31 1:00", "2026-01-31 02:00", ["2026-03-31 01:00", "2026-05-31 01:00", "2026-07-31 01:00"]),
    ("24:00", "2026-03-04 00:00", ["2026-03-04 00:24", "2026-03-04 01:24"]),
    ("25:30", "2026-03-04 00:00", ["2026-03-04 00:25:30", "2026-03-04 01:25:30"]),
    ("*/25:00", "2026-03-04 00:10", ["2026-03-04 00:25", "2026-03-04 00:50"]),
    ("3/24:00", "2026-03-04 00:00", ["2026-03-04 00:03", "2026-03-04 00:27", "2026-03-04 00:51"]),
    ("8:00,9:00", "2026-03-04 07:00", ["2026-03-04 08:00", "2026-03-04 08:09"]),
    (
        "mon..fri *-*-1..3 4:00",
        "2026-05-29",
        ["2026-06-01 04:00", "2026-06-02 04:00", "2026-06-03 04:00"],
    ),
    ("10-15", "2026-03-04", ["2026-10-15 00:00"]),
    ("5/0", "2026-03-04 00:00", ["2026-03-04 00:05", "2026-03-04 01:05"]),
    ("5..9/0", "2026-03-04 00:00", ["2026-03-04 00:05", "2026-03-04 01:05"]),
    ("mon8:00", "2026-03-04 00:00", ["2026-03-09 08:00"]),
    ("2026-07-*12:00", "2026-03-04 00:00", ["2026-07-01 12:00"]),
    ("monUTC", "2026-03-04 00:00", ["2026-03-09 00:00"]),
    ("dailyUTC", "2026-03-04 00:00", ["2026-03-05 00:00"]),
    ("mon\t*-*-*\t 8:00", "2026-03-04 00:00", ["2026-03-09 08:00"]),
    ("  8:00  ", "2026-03-04 00:00", ["2026-03-04 08:00"]),
    ("007:05", "2026-03-04 00:00", ["2026-03-04 07:05"]),
    ("0-0", "2026-03-04 00:00", ["none"]),
    ("26-01-01", "2026-03-04 00:00", ["none"]),
]

# The original skips the start of a repetition after a wrap; here it is included, as in systemd.
REPETITIONS = [
    ("*/7", "2026-03-04 10:50", ["2026-03-04 10:56", "2026-03-04 11:00", "2026-03-04 11:07"]),
    ("*/25", "2026-03-04 10:00", ["2026-03-04 10:25", "2026-03-04 10:50", "2026-03-04 11:00", "2026-03-04 11:25"]),
    ("*/45", "2026-03-04 10:00", ["2026-03-04 10:45", "2026-03-04 11:00", "2026-03-04 11:45"]),
    ("*/5:0", "2026-03-04 18:00", ["2026-03-04 20:00", "2026-03-05 00:00", "2026-03-05 05:00"]),
    ("*-*-1/10", "2026-01-31", ["2026-02-01", "2026-02-11", "2026-02-21", "2026-03-01"]),
    ("*-*/5-1", "2026-11-01", ["2027-01-01", "2027-06-01", "2027-11-01"]),
]


@pytest.mark.parametrize(("event", "last", "expected"), [*EXAMPLES, *REPETITIONS])
def test_next_runs(event: str, last: str, expected: list[str]) -> None:
    found = runs(event, last, len(expected))
    assert found == [at(text) for text in expected if text != "none"]


@pytest.mark.parametrize(("keyword", "spec"), KEYWORDS.items())
def test_a_keyword_stands_for_an_event(keyword: str, spec: str) -> None:
    assert runs(keyword, "2026-03-04 10:15:30", 20) == runs(spec, "2026-03-04 10:15:30", 20)


@pytest.mark.parametrize(
    ("event", "last", "fold", "expected"),
    [
        ("2:30", "2026-03-28 12:00", 0, [("2026-03-30 02:30", 0)]),
        ("3:00", "2026-03-28 12:00", 0, [("2026-03-29 03:00", 0)]),
        ("*:0", "2026-03-29 00:30", 0, [("2026-03-29 01:00", 0), ("2026-03-29 03:00", 0), ("2026-03-29 04:00", 0)]),
        ("*/30", "2026-10-25 01:30", 0, [("2026-10-25 02:00", 0), ("2026-10-25 02:30", 0), ("2026-10-25 03:00", 0)]),
        ("2:30", "2026-10-24 12:00", 0, [("2026-10-25 02:30", 0), ("2026-10-26 02:30", 0)]),
        ("*/30", "2026-10-25 02:10", 1, [("2026-10-25 02:30", 1), ("2026-10-25 03:00", 0)]),
        ("mon..fri UTC", "2018-10-28 00:00", 0, [("2018-10-29 01:00", 0)]),
        ("02:00 UTC", "2026-03-28 12:00", 0, [("2026-03-29 04:00", 0)]),
    ],
)
def test_next_runs_where_clocks_change(event: str, last: str, fold: int, expected: list[tuple[str, int]]) -> None:
    found = next_runs(parse_event(event), at(last, VIENNA, fold), VIENNA, len(expected))
    assert found == [at(text, VIENNA, one) for text, one in expected]


def test_a_day_that_a_zone_left_out_is_skipped() -> None:
    # Samoa went from 29 December 2011 straight to the 31st.
    apia = ZoneInfo("Pacific/Apia")
    assert runs("12:00", "2011-12-29 13:00", 1, apia) == [at("2011-12-31 12:00", apia)]


def test_utc_events_are_the_same_instants_everywhere() -> None:
    event = parse_event("*/6:15 UTC")
    assert next_runs(event, 0, VIENNA, 50) == next_runs(event, 0, ZoneInfo("Asia/Kathmandu"), 50)


@pytest.mark.parametrize(
    "event",
    ["", "UTC", "   ", "61", "60", "60:00", "*/60", "*/0", "*,5", "5,*", "5,", "mon,", ",mon", ":30", "8:", "-5",
     "1:2:3:4", "13-01", "*-13-1", "*-*-32", "2200-01-01", "Daily", "daily 8:00", "tues", "tues 8:00", "8:00 mon",
     "mon 0 0", "mon-fri", "mon .. fri", "mon, tue", "5:00 utc", "2026-03-04T06:00", "*-*~1", "8..6:00", "22..6:00",
     "8:00 Europe/Vienna", "8:00,,9", "\u017fun", "\u0661:00", "8:00\n9:00"],
)  # fmt: skip
def test_what_is_no_event(event: str) -> None:
    with pytest.raises(UsageError, match="calendar event") as info:
        parse_event(event)
    assert info.value.hint


def test_the_message_shows_from_where_on_it_is_wrong() -> None:
    with pytest.raises(UsageError, match="at 's 8:00'"):
        parse_event("tues 8:00")


def test_length() -> None:
    items = ",".join(["1"] * 64)
    assert len(items) == 127
    assert parse_event(f"0{items}").minutes == (1,)
    with pytest.raises(UsageError, match="longer than 128"):
        parse_event(f"00{items}")


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("02-30", "none of its months has a day 30"),
        ("4,6,9,11-31", "none of its months has a day 31"),
        ("0-5", "counted from 1"),
        ("*-*-0", "counted from 1"),
        ("26-01-01", "before 1970"),
        ("2027-02-29", "in none of its years"),
        ("sun 2026-03-04", "falls on one of its weekdays"),
    ],
)
def test_impossible_dates_are_explained(event: str, reason: str) -> None:
    parsed = parse_event(event)
    assert reason in why_never(parsed)
    assert next_runs(parsed, 0, UTC, 5) == []
    with pytest.raises(UsageError, match=reason):
        to_systemd(parsed)


@pytest.mark.parametrize("event", ["daily", "02-29", "2015-10-21", "mon 02-29"])
def test_what_can_happen_is_not_called_impossible(event: str) -> None:
    assert why_never(parse_event(event)) == ""


@pytest.mark.parametrize("after", [10**15, -(10**15)])
def test_times_beyond_every_calendar(after: int) -> None:
    with pytest.raises(UsageError, match="no time that a calendar knows"):
        next_runs(parse_event("daily"), after, UTC)


@pytest.mark.parametrize(
    ("event", "lines"),
    [
        ("30", ["*-*-* *:30:00"]),
        ("mon 30", ["Mon *-*-* *:30:00"]),
        ("*/5", ["*-*-* *:00..55/5:00"]),
        ("*/25", ["*-*-* *:00..50/25:00"]),
        ("*/6:00", ["*-*-* 00..18/6:00:00"]),
        ("5..9/0", ["*-*-* *:05:00"]),
        ("fri..mon", ["Mon,Fri,Sat,Sun *-*-* 00:00:00"]),
        ("sun..sat 3:00", ["*-*-* 03:00:00"]),
        ("mon8:00", ["Mon *-*-* 08:00:00"]),
        ("dailyUTC", ["*-*-* 00:00:00 UTC"]),
        ("25:30", ["*-*-* *:25:30"]),
        ("3/24:00", ["*-*-* *:03..51/24:00"]),
        ("8:00,9:00", ["*-*-* 08:00,09:00"]),
        ("*-05", ["*-*-05 00:00:00"]),
        ("2026/2-12-24 18:00", ["2026..2198/2-12-24 18:00:00"]),
        ("*/2-1-1", ["1970..2198/2-01-01 00:00:00"]),
        ("26,2030-1-1", ["2030-01-01 00:00:00"]),
        ("8..17,22:0/15", ["*-*-* 08..17,22:00..45/15:00"]),
        ("mon..fri *-*-1..3 4:00", ["Mon,Tue,Wed,Thu,Fri *-*-01..03 04:00:00"]),
        ("5,7,1..3,9:0", ["*-*-* 01..03,05..09/2:00:00"]),
        ("2..4:0..10/5", ["*-*-* 02..04:00..10/5:00"]),
    ],
)
def test_what_systemd_is_told(event: str, lines: list[str]) -> None:
    assert to_systemd(parse_event(event)) == lines
