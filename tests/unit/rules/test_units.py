# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Units of jobs: names, texts, and that systemd takes them as they are meant."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from engine.errors import UsageError
from engine.rules.calendar import parse_event
from engine.rules.systemd import to_systemd
from engine.rules.units import service_unit, shown_lines, timer_unit, unit_name


@pytest.mark.parametrize(
    ("job_id", "name"),
    [
        ("nightly", "holdfast-job-nightly"),
        ("backup-1a2b_c", "holdfast-job-backup-1a2b_c"),
        ("0123abcd:4", "holdfast-job-0123abcd:4"),
        ("a/b@c", r"holdfast-job-a\x2fb\x40c"),
        ("\u00fc%", r"holdfast-job-\xc3\xbc\x25"),
        (r"a\x2fb", r"holdfast-job-a\x5cx2fb"),
    ],
)
def test_names(job_id: str, name: str) -> None:
    assert unit_name(job_id) == name


def test_a_name_that_systemd_cannot_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="too long for a systemd unit"):
        unit_name("\u20ac" * 50)


def test_a_timer() -> None:
    times = to_systemd(parse_event("mon..fri 21:00"))
    text = timer_unit("nightly", "mon..fri 21:00", times, persistent=True)
    assert shown_lines(text) == ["OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* 21:00:00", "Persistent=true"]
    assert "WantedBy=timers.target" in text
    assert "Persistent=false" in timer_unit("nightly", "daily", times, persistent=False)


def test_a_service_names_the_job_literally() -> None:
    text = service_unit("a%b$c", ["/opt/my tools/holdfast", "run", "--job", 'a%b$c"'])
    assert shown_lines(text) == [r'ExecStart="/opt/my tools/holdfast" run --job "a%%b$$c\""']
    assert "Description=Backup job a%%b$c\n" in text


@pytest.mark.parametrize("job_id", ["nightly", "a%b/c@d", "\u00fc:1"])
@pytest.mark.parametrize("schedule", ["mon..fri 21:00", "*/2:00", "2030..2032-02-29 0..23/5:*/7:30 UTC"])
def test_systemd_takes_the_units(tmp_path: Path, job_id: str, schedule: str) -> None:
    timer, service = (tmp_path / f"{unit_name(job_id)}.{kind}" for kind in ("timer", "service"))
    timer.write_text(timer_unit(job_id, schedule, to_systemd(parse_event(schedule)), persistent=True), encoding="utf-8")
    service.write_text(service_unit(job_id, ["/bin/true", "run", "--job", job_id]), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(timer), str(service)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "holdfast-job-" in line]
    assert complaints == []
