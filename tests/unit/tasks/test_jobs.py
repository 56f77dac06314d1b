# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Jobs as definitions: planned, merged, written, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine.errors import HoldfastError, UsageError
from engine.system.host import Host, Paths
from engine.tasks.definitions import apply_change, explain_config, get_job, job_dict, next_job_runs, plan_job


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
