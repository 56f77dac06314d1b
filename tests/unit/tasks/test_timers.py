# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of jobs as timers; systemd is a fake here, the scenario of molecule has the real one."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine.errors import HoldfastError, UsageError
from engine.system import systemd
from engine.system.host import Host, Paths
from engine.tasks.definitions import apply_change, load_jobs, plan_jobs
from engine.tasks.timers import apply_timers, held_back, plan_timers

HERE = Host("n1", Paths())
DAILY = "\tschedule daily\n\tall 1\n"


class FakeSystemd:
    """Remembers what it was told; every unit that was switched on is ready."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.told: list[str] = []
        self.ready: set[str] = set()
        self.units = folder / "units"
        self.stamps = folder / "stamps"
        self.stamps.mkdir()
        monkeypatch.setattr(systemd, "UNITS", str(self.units))
        monkeypatch.setattr(systemd, "STAMPS", str(self.stamps))
        monkeypatch.setattr(systemd, "runs", lambda: True)
        monkeypatch.setattr(systemd, "not_ready", lambda units: [unit for unit in units if unit not in self.ready])
        monkeypatch.setattr(systemd, "reload_units", lambda: self.told.append("reload"))
        monkeypatch.setattr(systemd, "stop", lambda units: self.told.extend(f"stop {unit}" for unit in units))
        monkeypatch.setattr(systemd, "forget_failures", lambda units: self.told.extend(f"forget {u}" for u in units))
        monkeypatch.setattr(systemd, "switch_on", self.on)
        monkeypatch.setattr(systemd, "switch_off", self.off)

    def on(self, units: tuple[str, ...]) -> None:
        self.told += [f"on {unit}" for unit in units]
        self.ready.update(units)

    def off(self, units: tuple[str, ...]) -> None:
        self.told += [f"off {unit}" for unit in units]
        self.ready.difference_update(units)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.units.iterdir())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeSystemd:
    return FakeSystemd(monkeypatch, tmp_path)


def test_timers_follow_their_jobs(fake: FakeSystemd) -> None:
    text = f"vzdump: a\n{DAILY}\nvzdump: b\n{DAILY}\tenabled 0\n\nvzdump: c\n{DAILY}\tnode n2\n\n"
    plan = plan_timers(HERE, text)
    assert plan.timer("a") == {"unit": "holdfast-job-a.timer", "reason": ""}
    assert plan.timer("b") == {"unit": None, "reason": "the job is disabled"}
    assert plan.timer("c") == {"unit": None, "reason": "the job is for node 'n2', this is 'n1'"}
    assert plan.timer("d") == {"unit": None, "reason": "the job does not exist"}
    assert not fake.units.exists()
    apply_timers(plan)
    assert fake.files() == ["holdfast-job-a.service", "holdfast-job-a.timer"]
    assert fake.told == ["reload", "on holdfast-job-a.timer"]
    assert not plan_timers(HERE, text).changed


def test_a_changed_schedule_makes_up_for_nothing(fake: FakeSystemd) -> None:
    apply_timers(plan_timers(HERE, f"vzdump: a\n{DAILY}\trepeat-missed 1\n"))
    stamp = fake.stamps / "stamp-holdfast-job-a.timer"
    stamp.touch()
    plan = plan_timers(HERE, "vzdump: a\n\tschedule 21:00\n\tall 1\n\trepeat-missed 1\n")
    before, after = plan.texts()
    assert "OnCalendar=*-*-* 00:00:00" in before
    assert "OnCalendar=*-*-* 21:00:00" in after
    assert [Path(change.path).name for change in plan.files] == ["holdfast-job-a.timer"]
    apply_timers(plan)
    assert not stamp.exists()


def test_a_command_elsewhere_leaves_the_timer_alone(fake: FakeSystemd) -> None:
    text = f"vzdump: a\n{DAILY}"
    apply_timers(plan_timers(HERE, text))
    fake.told.clear()
    apply_timers(plan_timers(HERE, text, command="/opt/bin/holdfast"))
    assert fake.told == ["reload"]
    assert "/opt/bin/holdfast run --job a" in (fake.units / "holdfast-job-a.service").read_text(encoding="utf-8")


def test_units_of_jobs_that_are_gone_are_removed(fake: FakeSystemd) -> None:
    apply_timers(plan_timers(HERE, f"vzdump: a\n{DAILY}\nvzdump: b\n{DAILY}\n"))
    (fake.units / "other.timer").touch()
    fake.told.clear()
    # One job alone leaves the others as they are.
    assert not plan_timers(HERE, f"vzdump: a\n{DAILY}", ["a"]).changed
    apply_timers(plan_timers(HERE, f"vzdump: a\n{DAILY}"))
    assert fake.told == ["off holdfast-job-b.timer", "reload", "forget holdfast-job-b.service"]
    assert fake.files() == ["holdfast-job-a.service", "holdfast-job-a.timer", "other.timer"]
    # A job that nobody can read keeps its timer, so that its run says so.
    assert not plan_timers(HERE, "vzdump: a\n\tall 1\n").changed


def test_no_timer_starts_a_job_while_it_is_removed(fake: FakeSystemd) -> None:
    apply_timers(plan_timers(HERE, f"vzdump: a\n{DAILY}"))
    fake.told.clear()
    plan = plan_timers(HERE, "")
    with held_back(plan):
        assert fake.told == ["stop holdfast-job-a.timer"]
    with pytest.raises(OSError, match="disk full"), held_back(plan):
        raise OSError("disk full")
    assert fake.told[-1] == "on holdfast-job-a.timer"


def test_a_timer_that_was_stopped_is_started_again(fake: FakeSystemd) -> None:
    text = f"vzdump: a\n{DAILY}"
    apply_timers(plan_timers(HERE, text))
    fake.ready.clear()
    plan = plan_timers(HERE, text)
    assert plan.texts() == ("holdfast-job-a.timer: not active\n", "holdfast-job-a.timer: active\n")
    apply_timers(plan)
    assert fake.ready == {"holdfast-job-a.timer"}


def test_a_schedule_that_cannot_become_a_timer_is_told(fake: FakeSystemd) -> None:
    plan = plan_timers(HERE, "vzdump: a\n\tschedule 02-30\n\tall 1\n")
    assert plan.timer("a")["unit"] is None
    assert plan.refused[0].startswith("job 'a' has no timer: the calendar event '02-30' cannot become a timer")


def test_without_systemd_or_in_a_laboratory_there_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systemd, "runs", lambda: False)
    plan = plan_timers(HERE, f"vzdump: a\n{DAILY}")
    assert plan.timer("a") == {"unit": None, "reason": "systemd does not run on this node"}
    monkeypatch.setattr(systemd, "runs", lambda: True)
    plan = plan_timers(Host("n1", Paths.under(str(tmp_path))), f"vzdump: a\n{DAILY}")
    assert not plan.changed
    assert "do not run by themselves" in plan.timer("a")["reason"]


def test_a_list_of_jobs_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    host = Host("n1", Paths.under(str(tmp_path)))
    path = Path(host.paths.jobs_cfg)
    path.parent.mkdir(parents=True)
    foreign = "realm-sync: x\n\tschedule daily\n\n"
    path.write_text(f"{foreign}vzdump: old\n{DAILY}\nvzdump: same\n{DAILY}\n", encoding="utf-8")
    wanted = {"same": {"schedule": "daily", "all": True}, "new": {"schedule": "hourly", "all": True}}
    change = plan_jobs(host, wanted, purge=True, exclusive=True)
    assert change.before_text == f"vzdump: old\n{DAILY}\n"
    assert change.after_text == "vzdump: new\n\tschedule hourly\n\tall 1\n\tenabled 1\n\n"
    assert set(change.before or ()) == {"old", "same"}
    assert set(change.after or ()) == {"same", "new"}
    for bad in ({"schedule": "daily"}, {"schedule": "02-30", "all": True}, {"schedule": "x", "all": True}):
        with pytest.raises(HoldfastError, match="cannot declare job 'bad'"):
            plan_jobs(host, {**wanted, "bad": bad})
    apply_change(host, change)
    assert list(load_jobs(host)) == ["same", "new"]
    assert path.read_text(encoding="utf-8").startswith(foreign)
    assert not plan_jobs(host, wanted, purge=True, exclusive=True).changed
    assert not plan_jobs(host, {}).changed
    with pytest.raises(UsageError, match="section of the type realm-sync"):
        plan_jobs(host, {"x": None})
