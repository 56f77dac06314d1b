# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Jobs as definitions: planned, merged, written, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine.errors import ConfigError, HoldfastError, UsageError
from engine.settings.jobs import JobsFile, parse_jobs_cfg
from engine.system.host import Host, Paths
from engine.tasks import definitions
from engine.tasks.definitions import (
    apply_change,
    explain_config,
    get_job,
    job_dict,
    load_jobs,
    next_job_runs,
    plan_job,
)
from engine.tasks.info import jobs_info


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host("n1", Paths.under(str(tmp_path)))


def test_a_job_is_declared_changed_and_removed(host: Host) -> None:
    wanted = {
        "schedule": "mon..fri 21:00",
        "exclude": ["102", 103],
        "storage": "nas",
        "mode": "snapshot",
        "prune-backups": {"keep_daily": 7},
        "fleecing": {"enabled": True, "storage": "local"},
        "repeat_missed": True,
        "zstd": None,
    }
    change = plan_job(host, "nightly", wanted)
    assert change.before is None
    assert change.after is not None
    assert change.after["exclude"] == ["102", "103"]
    apply_change(host, change)
    assert not plan_job(host, "nightly", wanted).changed
    job = get_job(host, "nightly")
    assert job.options["prune_backups"] == {"keep-daily": 7}
    assert job.repeat_missed
    changed = plan_job(host, "nightly", {"vmid": [100], "enabled": False})
    assert changed.after is not None
    assert changed.after["vmid"] == ["100"]
    assert "exclude" not in changed.after
    assert changed.after["storage"] == "nas"
    apply_change(host, changed)
    assert next_job_runs(get_job(host, "nightly"), 0, 3) == []
    apply_change(host, plan_job(host, "nightly", {"pool": "gold", "comment": " a: b "}))
    assert job_dict(get_job(host, "nightly"))["comment"] == "a: b"
    assert "vmid" not in job_dict(get_job(host, "nightly"))
    assert not plan_job(host, "nightly", {"comment": " a: b "}).changed
    purged = plan_job(host, "nightly", {"all": True}, purge=True)
    assert purged.after == {"id": "nightly", "schedule": "mon..fri 21:00", "enabled": True, "all": True}
    apply_change(host, plan_job(host, "nightly", None))
    with pytest.raises(UsageError, match="job 'nightly' does not exist"):
        get_job(host, "nightly")


def test_next_runs(host: Host) -> None:
    apply_change(host, plan_job(host, "hourly", {"schedule": "*-*-* *:00 UTC", "all": True}))
    runs = next_job_runs(get_job(host, "hourly"), 0, 2)
    assert runs == [
        {"time": "1970-01-01T01:00:00Z", "epoch": 3600},
        {"time": "1970-01-01T02:00:00Z", "epoch": 7200},
    ]


@pytest.mark.parametrize(
    "wanted",
    [
        {"all": True},
        {"schedule": "every now and then", "all": True},
        {"schedule": "daily", "mode": "warp"},
        {"schedule": "daily", "bogus": 1},
        {"schedule": "daily"},
        {"schedule": "daily", "vmid": ["100"], "all": True},
        {"schedule": "daily", "all": True, "job_id": "x"},
        {"schedule": "daily", "all": "maybe"},
        {"schedule": "daily", "all": True, "enabled": "maybe"},
        {"schedule": "daily", "all": True, "comment": "x" * 513},
        {"schedule": "02-30", "all": True},
    ],
)
def test_refusals(host: Host, wanted: dict[str, object]) -> None:
    with pytest.raises(HoldfastError):
        plan_job(host, "nightly", wanted)
    with pytest.raises(UsageError):
        plan_job(host, "bad id", {"schedule": "daily", "all": True})
    assert not Path(host.paths.jobs_cfg).exists()


def test_foreign_sections_survive(host: Host) -> None:
    Path(host.paths.jobs_cfg).parent.mkdir(parents=True)
    text = "realm-sync: x\n\tschedule daily\n\trealm y\n\n"
    Path(host.paths.jobs_cfg).write_text(text, encoding="utf-8")
    apply_change(host, plan_job(host, "nightly", {"schedule": "daily", "all": True}))
    assert job_dict(get_job(host, "nightly"))["all"] is True
    apply_change(host, plan_job(host, "nightly", None))
    assert Path(host.paths.jobs_cfg).read_text(encoding="utf-8") == text
    assert explain_config("jobs", text) == ({}, [])


def write(host: Host, text: str) -> Path:
    path = Path(host.paths.jobs_cfg)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_what_people_wrote_stays_until_it_is_changed(host: Host) -> None:
    text = "vzdump: a\n\tall 1\n\tschedule daily\n\n"
    path = write(host, text + "vzdump: b\n\tschedule daily\n\tmode warp\n\tfoo bar\n\tall 1\n\n")
    assert not plan_job(host, "a", {"schedule": "daily", "all": True}).changed
    apply_change(host, plan_job(host, "new", {"schedule": "hourly", "all": True}))
    assert path.read_text(encoding="utf-8").startswith(text + "vzdump: b\n\tschedule daily\n\tmode warp\n")
    # Declared again, the wrong line goes; the key that means nothing here stays until it is purged.
    apply_change(host, plan_job(host, "b", {"schedule": "daily"}))
    assert "\n\tfoo bar\n" in path.read_text(encoding="utf-8")
    assert "warp" not in path.read_text(encoding="utf-8")
    apply_change(host, plan_job(host, "b", {"all": True}, purge=True))
    assert "foo" not in path.read_text(encoding="utf-8")
    assert list(load_jobs(host)) == ["a", "b", "new"]


def test_a_job_that_cannot_be_used_is_told_and_can_be_declared_again(host: Host) -> None:
    path = write(host, "vzdump: a\n\tall 1\n\nvzdump: b\n\tschedule daily\n\tall 1\n\tfoo bar\n\n# by hand\n")
    with pytest.raises(ConfigError, match="job 'a' cannot be used: 'schedule' is missing"):
        get_job(host, "a")
    rows = {row["id"]: row for row in jobs_info(host, pytest.fail)}
    assert rows["a"]["error"] == "'schedule' is missing"
    assert rows["a"]["next_runs"] == []
    assert rows["b"]["error"] is None
    assert "'foo' has no effect" in rows["b"]["warnings"][0]
    apply_change(host, plan_job(host, "a", {"schedule": "daily", "all": True}))
    assert get_job(host, "a").schedule == "daily"
    apply_change(host, plan_job(host, "b", None))
    assert "vzdump: b" not in path.read_text(encoding="utf-8")
    assert "# by hand" in path.read_text(encoding="utf-8")


def test_a_file_with_lines_that_nobody_understands_is_not_written(host: Host) -> None:
    path = write(host, "vzdump a\n\tschedule daily\n\nvzdump: b\n\tschedule daily\n\tall 1\n\n")
    before = path.read_text(encoding="utf-8")
    told: list[str] = []
    assert [row["id"] for row in jobs_info(host, told.append)] == ["b"]
    assert ["line 1: ignored with what follows" in text for text in told] == [True]
    with pytest.raises(ConfigError, match=r"lines in it would be lost.*line 1"):
        plan_job(host, "new", {"schedule": "daily", "all": True})
    assert not plan_job(host, "b", {"all": True}).changed
    assert path.read_text(encoding="utf-8") == before


def test_sections_of_other_types_are_not_replaced(host: Host) -> None:
    write(host, "realm-sync: nightly\n\tschedule daily\n\n")
    for wanted in ({"schedule": "daily", "all": True}, None):
        with pytest.raises(UsageError, match="section of the type realm-sync"):
            plan_job(host, "nightly", wanted)


def test_what_others_write_while_a_change_is_planned_is_not_lost(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse_slowly(text: str, source: str) -> JobsFile:
        file = parse_jobs_cfg(text, source)
        monkeypatch.undo()
        apply_change(host, plan_job(host, "other", {"schedule": "01:00", "all": True}))
        return file

    monkeypatch.setattr(definitions, "parse_jobs_cfg", parse_slowly)
    change = plan_job(host, "mine", {"schedule": "02:00", "all": True})
    with pytest.raises(ConfigError, match="changed in the meantime"):
        apply_change(host, change)
    assert list(load_jobs(host)) == ["other"]
