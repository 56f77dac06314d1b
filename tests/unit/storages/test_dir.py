# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every storage kind: when it can be used, and what it says when it cannot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from engine.errors import StorageError
from engine.settings.storages import StorageDef, parse_storage_cfg
from engine.storages import mounts
from engine.storages.base import Need
from engine.storages.registry import KINDS, open_storage
from engine.system.host import Host, Paths

BACKUP = Need("backup", write=True)
HOST = Host("n1", Paths.under("/nowhere"))


def define(path: Path, *lines: str) -> StorageDef:
    text = "".join(f"\t{line}\n" for line in (f"path {path}", "content backup,images", *lines))
    return parse_storage_cfg(f"dir: nas\n{text}").storages["nas"]


def refused(definition: StorageDef, need: Need = BACKUP) -> StorageError:
    with pytest.raises(StorageError) as info:
        open_storage(definition, HOST).activate(need)
    assert "nas" in info.value.message
    assert info.value.hint
    return info.value


def test_activation_makes_the_folders(tmp_path: Path) -> None:
    storage = open_storage(define(tmp_path / "new"), HOST)
    storage.activate(BACKUP)
    assert sorted(os.listdir(tmp_path / "new")) == ["dump", "images"]
    assert storage.archives.path == str(tmp_path / "new" / "dump")
    assert 0 < storage.free_space() <= storage.total_space()
    storage.check_space(1, "this")
    with pytest.raises(StorageError, match="this needs at least"):
        storage.check_space(1 << 62, "this")


def test_looking_makes_no_content_folders(tmp_path: Path) -> None:
    storage = open_storage(define(tmp_path / "later"), HOST)
    storage.activate(Need("backup"))
    assert storage.archives.list_archives() == []
    assert storage.free_space() > 0
    assert os.listdir(tmp_path) == []


def test_content_dirs(tmp_path: Path) -> None:
    storage = open_storage(define(tmp_path, "content-dirs backup=my/dumps"), HOST)
    storage.activate(BACKUP)
    assert (tmp_path / "my" / "dumps").is_dir()
    twice = define(tmp_path, "content-dirs backup=same,images=same")
    assert "used for both" in refused(twice).message


def test_refusals(tmp_path: Path) -> None:
    assert "is disabled" in refused(define(tmp_path, "disable 1")).message
    assert "not available on node 'n1'" in refused(define(tmp_path, "nodes n2,n3")).message
    assert "for content 'iso'" in refused(define(tmp_path), Need("iso")).message
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    assert "is not a directory" in refused(define(file)).message
    missing = refused(define(tmp_path / "none", "create-base-path 0"))
    assert "does not exist" in missing.message
    assert not (tmp_path / "none").exists()


def test_a_missing_disk_is_noticed_before_anything_is_created(tmp_path: Path) -> None:
    error = refused(define(tmp_path / "disk", "is_mountpoint 1"))
    assert "expected to be a mount point" in error.message
    assert not (tmp_path / "disk").exists()
    assert "expected to be a mount point" in refused(define(tmp_path, f"is_mountpoint {tmp_path}")).message


def test_a_mounted_disk_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"36 35 0:3 / {tmp_path} rw - ext4 /dev/sdb rw\n", encoding="utf-8")
    monkeypatch.setattr(mounts, "MOUNTINFO", str(table))
    open_storage(define(tmp_path, "is_mountpoint yes"), HOST).activate(BACKUP)


def test_a_read_only_storage_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def access(path: Any, mode: int) -> bool:
        return not mode & os.W_OK

    monkeypatch.setattr("engine.storages.dir.os.access", access)
    assert "is not writable" in refused(define(tmp_path)).message
    open_storage(define(tmp_path), HOST).activate(Need("backup"))


def test_other_kinds_are_named(tmp_path: Path) -> None:
    definition = parse_storage_cfg("pbs: nas\n\tserver s\n\tdatastore d\n\tcontent backup\n").storages["nas"]
    with pytest.raises(StorageError, match="type 'pbs' is not supported"):
        open_storage(definition, HOST)
    assert set(KINDS) == {"dir", "nfs", "cifs", "lvmthin", "zfspool"}
