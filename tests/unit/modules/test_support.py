# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parameters to requests, and results to diffs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.virt.plugins.module_utils.engine.errors import UsageError
from ansible_collections.holdfast.virt.plugins.module_utils.engine.system.host import Host, Paths
from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.changes import apply_change
from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.stores import plan_storage
from ansible_collections.holdfast.virt.plugins.module_utils.support import diff
from ansible_collections.holdfast.virt.plugins.module_utils.support.jobs import missing_storages, wanted_jobs
from ansible_collections.holdfast.virt.plugins.module_utils.support.params import backup_options, dashed, retention
from ansible_collections.holdfast.virt.plugins.module_utils.support.requests import backup_request
from ansible_collections.holdfast.virt.plugins.module_utils.support.specs import (
    backup_spec,
    retention_spec,
    selection_spec,
)


def parameters(**given: Any) -> dict[str, Any]:
    """What AnsibleModule makes of a task: every option, those that are not set as ``None``."""
    names = {**backup_spec(), **retention_spec(), **selection_spec(), "job": {}, "max_age": {}}
    return {**dict.fromkeys(names), "force": False, **given}


def test_retention_leaves_out_what_is_not_set() -> None:
    option = {"keep_all": None, "keep_last": 3, "keep_daily": 0, "keep_weekly": None}
    assert retention({"prune_backups": option}) == {"keep-last": 3, "keep-daily": 0}


def test_retention_writes_keep_all_as_a_number() -> None:
    assert retention({"prune_backups": {"keep_all": True}}) == {"keep-all": 1}


def test_retention_that_the_task_does_not_set_is_none() -> None:
    assert retention({"prune_backups": None}) is None


def test_dashed_reaches_nested_options() -> None:
    assert dashed({"max_age": None, "performance": {"max_workers": 4, "pbs_entries_max": None}}) == {
        "performance": {"max-workers": 4}
    }


def test_backup_options_hold_only_what_the_task_sets() -> None:
    params = parameters(mode="stop", fleecing={"enabled": True, "storage": "fast"}, prune_backups={"keep_last": 2})
    assert backup_options(params) == {
        "mode": "stop",
        "fleecing": {"enabled": True, "storage": "fast"},
        "prune-backups": {"keep-last": 2},
    }


def test_backup_request_selects_and_asks_for_age() -> None:
    request = backup_request(parameters(vmid=["100", "web"], storage="nas", max_age="20h"))
    assert request.selection.vmid == ("100", "web")
    assert request.options == {"storage": "nas"}
    assert (request.max_age, request.force) == ("20h", False)


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "size unknown"), (512, "512 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")],
)
def test_sizes_for_people(size: int | None, text: str) -> None:
    assert diff.size_text(size) == text


def test_backup_difference_names_guest_disks_and_target() -> None:
    guest = {
        "kind": "qemu",
        "vmid": 100,
        "name": "web",
        "action": "backup",
        "reason": "",
        "mode": "snapshot",
        "disks": [{"key": "scsi0", "volid": "local:100/vm-100-disk-0.qcow2", "size": 1 << 30}],
    }
    fresh = {**guest, "vmid": 101, "action": "fresh", "reason": "nas:backup/x is younger than 20h", "disks": []}
    shown = diff.backup_difference({"storage": "nas", "guests": [guest, fresh]})
    assert shown["before"] == "qemu 100 web: no fresh backup\nqemu 101 web: nas:backup/x is younger than 20h\n"
    assert shown["after"].splitlines() == [
        "qemu 100 web: new backup on nas, mode snapshot",
        "  scsi0 local:100/vm-100-disk-0.qcow2: 1.0 GiB",
        "qemu 101 web: nas:backup/x is younger than 20h",
    ]


def test_prune_difference_drops_what_goes() -> None:
    archives = [
        {"archive": "nas:backup/a", "size": 1024, "mark": "keep", "rule": "keep-last"},
        {"archive": "nas:backup/b", "size": 1024, "mark": "remove", "rule": ""},
        {"archive": "nas:backup/c", "size": 1024, "mark": "protected", "rule": "protected"},
    ]
    shown = diff.prune_difference({"archives": archives})
    assert "nas:backup/b (1.0 KiB): remove" in shown["before"]
    assert shown["after"] == "nas:backup/a (1.0 KiB): keep, keep-last\nnas:backup/c (1.0 KiB): protected\n"


def test_restore_difference_of_an_existing_guest_is_empty() -> None:
    assert diff.restore_difference({"state": "exists"}) == {"before": "", "after": ""}


def test_archive_difference_of_a_removed_archive() -> None:
    archive = {"volid": "nas:backup/a", "notes": "", "protected": False, "size": 1}
    assert diff.archive_difference(archive, None) == {
        "before": {"volid": "nas:backup/a", "notes": "", "protected": False},
        "after": {},
    }


def test_a_misspelt_option_in_a_list_of_jobs_is_called_one() -> None:
    with pytest.raises(UsageError, match="cannot declare job 'gold': it has unknown options: schedul"):
        wanted_jobs([{"id": "gold", "schedul": "daily", "all": True}])


def test_a_job_whose_storage_is_not_declared_is_spoken_of(tmp_path: Path) -> None:
    host = Host("n1", Paths.under(str(tmp_path)))
    apply_change(host, plan_storage(host, "nas", {"path": "/mnt/nas", "content": ["backup"]}))
    text = "".join(
        f"vzdump: {name}\n\tschedule daily\n\tall 1\n\t{rest}\n\n"
        for name, rest in (("good", "storage nas"), ("bad", "storage nass"), ("far", "storage x\n\tnode n2"), ("d", ""))
    )
    (said,) = missing_storages(host, text, None)
    assert "job 'bad' will fail: its storage 'nass'" in said
    assert missing_storages(host, text, ["good", "far"]) == []
