# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Storage definitions and retention of a storage, through the tasks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from engine.errors import ConfigError, StorageError, UsageError
from engine.settings.storages import StorageDef
from engine.system.host import Host, Paths
from engine.system.report import SilentReporter
from engine.tasks.changes import apply_change
from engine.tasks.info import storages_info
from engine.tasks.prune import apply_prune, plan_prune
from engine.tasks.requests import PruneRequest
from engine.tasks.stores import get_storage, load_storages, plan_storage

NAMES = [f"vzdump-qemu-100-2026_03_{day:02d}-02_00_00.vma.zst" for day in (8, 9, 10)]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host("n1", Paths.under(str(tmp_path)))


def declare(host: Host, **keys: object) -> None:
    wanted = {"path": f"{host.paths.lib}/nas", "content": ["backup"], **keys}
    apply_change(host, plan_storage(host, "nas", wanted))


def test_a_storage_is_declared_changed_and_removed(host: Host) -> None:
    change = plan_storage(host, "nas", {"type": "dir", "path": "/srv/nas", "content": ["backup", "images"]})
    assert change.changed
    assert change.before is None
    assert change.after == {"name": "nas", "type": "dir", "path": "/srv/nas", "content": ["backup", "images"]}
    assert not Path(host.paths.storage_cfg).exists()
    apply_change(host, change)
    assert load_storages(host)["nas"].path == "/srv/nas"
    again = plan_storage(host, "nas", {"type": "dir", "path": "/srv/nas", "content": ["images", "backup"]})
    assert not again.changed
    more = plan_storage(host, "nas", {"prune_backups": {"keep_last": 3}, "max-protected-backups": 2, "disable": None})
    assert more.after is not None
    assert more.after["prune_backups"] == {"keep-last": 3}
    assert "\tprune-backups keep-last=3\n" in more.after_text
    apply_change(host, more)
    purged = plan_storage(host, "nas", {"content": ["backup"]}, purge=True)
    assert purged.after == {"name": "nas", "type": "dir", "path": "/srv/nas", "content": ["backup"]}
    apply_change(host, plan_storage(host, "nas", None))
    assert load_storages(host) == {}
    assert not plan_storage(host, "nas", None).changed


def test_a_whole_definition_is_taken_as_it_is(host: Host) -> None:
    apply_change(host, plan_storage(host, "nas", StorageDef("nas", "dir", "/srv/nas", ("backup",))))
    assert load_storages(host)["nas"].content == ("backup",)


def test_other_sections_survive(host: Host) -> None:
    Path(host.paths.storage_cfg).parent.mkdir(parents=True)
    text = "pbs: far\n\tcontent backup\n\tdatastore d\n\tfingerprint 00:11\n\tserver s\n\n"
    Path(host.paths.storage_cfg).write_text(text, encoding="utf-8")
    apply_change(host, plan_storage(host, "nas", {"path": "/srv/nas"}))
    apply_change(host, plan_storage(host, "nas", None))
    assert Path(host.paths.storage_cfg).read_text(encoding="utf-8") == text


def test_a_type_that_is_not_given_is_what_it_was_unless_the_definition_is_whole(host: Host) -> None:
    thin = {"type": "lvmthin", "vgname": "vg0", "thinpool": "data", "content": ["rootdir"]}
    apply_change(host, plan_storage(host, "thin", thin))
    more = plan_storage(host, "thin", {"type": None, "content": ["images", "rootdir"]})
    assert more.after is not None and more.after["type"] == "lvmthin"
    with pytest.raises(ConfigError, match="cannot change 'type' of storage 'thin' from 'lvmthin' to 'dir'"):
        plan_storage(host, "thin", {"path": "/srv/thin"}, purge=True)


def test_what_cannot_be_is_refused(host: Host) -> None:
    declare(host)
    with pytest.raises(ConfigError, match="cannot change 'path'"):
        plan_storage(host, "nas", {"path": "/other"})
    with pytest.raises(ConfigError, match="path"):
        plan_storage(host, "two", {"content": ["backup"]})
    with pytest.raises(UsageError, match="storage 'none' does not exist"):
        get_storage(host, "none")
    stale = plan_storage(host, "nas", {"disable": True})
    declare(host, shared=True)
    with pytest.raises(ConfigError, match="changed in the meantime"):
        apply_change(host, stale)


def test_a_storage_that_cannot_be_used_is_told_and_can_be_declared_again(host: Host, tmp_path: Path) -> None:
    path = Path(host.paths.storage_cfg)
    path.parent.mkdir(parents=True)
    path.write_text(f"dir: nas\n\tis_mountpoint maybe\n\tpath {tmp_path}\n\ndir: two\n\tpath {tmp_path}\n\tfoo 1\n")
    with pytest.raises(ConfigError, match="storage 'nas' cannot be used: is_mountpoint: 'maybe'"):
        get_storage(host, "nas")
    nas, two = storages_info(host, pytest.fail)
    assert (nas["usable"], nas["definition"]) == (False, {})
    assert "maybe" in nas["error"]
    assert two["usable"]
    assert "'foo' has no effect" in two["warnings"][0]
    apply_change(host, plan_storage(host, "nas", {"path": str(tmp_path)}))
    assert get_storage(host, "nas").definition.is_mountpoint is False
    assert "\tfoo 1\n" in path.read_text(encoding="utf-8")


def test_unknown_keys_and_wrong_values_are_not_declared(host: Host) -> None:
    for wanted in ({"foo": 1}, {"content": ["foo"]}, {"prune_backups": "keep-foo=1"}, {"max-protected-backups": -2}):
        with pytest.raises(ConfigError, match="cannot declare storage 'nas'"):
            plan_storage(host, "nas", {"path": "/srv/nas", **wanted})


def test_what_stands_in_the_way_of_writing(host: Host) -> None:
    path = Path(host.paths.storage_cfg)
    path.parent.mkdir(parents=True)
    path.write_text("dir nas\n\tpath /srv\n\nnfs: far\n\tserver s\n\texport /e\n\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="lines in it would be lost"):
        plan_storage(host, "two", {"path": "/srv/two"})
    with pytest.raises(ConfigError, match="cannot change 'server' of storage 'far' from 's' to 't'"):
        plan_storage(host, "far", {"server": "t"})
    assert not plan_storage(host, "far", {"type": "nfs", "server": "s"}).changed


def fill(host: Host) -> Path:
    dump = Path(host.paths.lib) / "nas" / "dump"
    dump.mkdir(parents=True)
    for name in NAMES:
        (dump / name).write_bytes(b"12345678")
    return dump


def test_a_plan_removes_nothing_and_names_rules(host: Host) -> None:
    declare(host, prune_backups="keep-last=1")
    dump = fill(host)
    plan = plan_prune(host, PruneRequest("nas"))
    assert [(archive.mark, archive.removed) for archive in plan.archives] == [
        ("remove", False),
        ("remove", False),
        ("keep", False),
    ]
    assert plan.archives[2].rule == "keep-last"
    assert (plan.keep, plan.to_dict()["freed"], plan.changed) == ("keep-last=1", 16, True)
    assert len(list(dump.iterdir())) == 3


def test_pruning_removes_what_is_marked_and_protects(host: Host) -> None:
    declare(host)
    dump = fill(host)
    (dump / (NAMES[0] + ".protected")).touch()
    result = apply_prune(host, PruneRequest("nas", {"keep_last": 1}), SilentReporter())
    assert [archive.mark for archive in result.archives] == ["protected", "remove", "keep"]
    assert result.archives[1].removed
    assert sorted(path.name for path in dump.iterdir()) == sorted([NAMES[0], NAMES[0] + ".protected", NAMES[2]])
    assert not plan_prune(host, PruneRequest("nas", "keep-last=1")).changed
    assert plan_prune(host, PruneRequest("nas", "keep-last=1", [101])).archives == []
    assert plan_prune(host, PruneRequest("nas", "keep-last=1", kind="lxc")).archives == []


def test_one_archive_that_stays_does_not_stop_the_others(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.storages.dump import Archive, DumpFolder

    declare(host)
    fill(host)
    real = DumpFolder.remove

    def remove(self: DumpFolder, archive: Archive) -> None:
        if archive.filename == NAMES[0]:
            raise StorageError(f"cannot remove {archive.volid}: no")
        real(self, archive)

    monkeypatch.setattr(DumpFolder, "remove", remove)
    with pytest.raises(StorageError, match="1 archives") as info:
        apply_prune(host, PruneRequest("nas", {"keep-last": 1}), SilentReporter())
    assert info.value.result is not None
    assert [archive["removed"] for archive in info.value.result["archives"]] == [False, True, False]


def test_the_last_good_archive_of_a_guest_is_not_removed_unless_asked(host: Host) -> None:
    declare(host)
    dump = fill(host)
    (dump / NAMES[2]).write_bytes(b"")
    other = dump / "vzdump-lxc-105-2026_03_01-02_00_00.tar"
    other.write_bytes(b"x")
    request = PruneRequest("nas", "keep-last=1")
    for task in (partial(plan_prune, host, request), partial(apply_prune, host, request, SilentReporter())):
        with pytest.raises(StorageError, match="last good archives on storage 'nas' of qemu/100") as info:
            task()
        assert info.value.result is not None
        assert [archive["mark"] for archive in info.value.result["archives"]] == ["keep", "remove", "remove", "keep"]
    assert len(list(dump.iterdir())) == 4
    assert plan_prune(host, PruneRequest("nas", "keep-last=2")).changed
    assert not plan_prune(host, PruneRequest("nas", "keep-last=1", [105])).changed
    result = apply_prune(host, PruneRequest("nas", "keep-last=1", allow_empty=True), SilentReporter())
    assert sum(archive.removed for archive in result.archives) == 2
    assert sorted(path.name for path in dump.iterdir()) == [other.name, NAMES[2]]


def test_pruning_needs_a_retention_and_a_usable_storage(host: Host) -> None:
    declare(host)
    with pytest.raises(UsageError, match="no retention"):
        plan_prune(host, PruneRequest("nas"))
    with pytest.raises(UsageError):
        plan_prune(host, PruneRequest("nas", "keep-foo=1"))
    declare(host, content=["images"])
    with pytest.raises(StorageError, match="content 'backup'"):
        plan_prune(host, PruneRequest("nas", "keep-last=1"))
