# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes of guests on a file storage, and what is mounted where."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from engine.errors import StorageError, UsageError
from engine.storages import mounts
from engine.storages.images import ImageFolder


def test_ids_lead_to_paths(tmp_path: Path) -> None:
    folder = ImageFolder("local", "/srv")
    assert folder.locate("100/vm-100-disk-0.qcow2") == ("/srv/images/100/vm-100-disk-0.qcow2", "qcow2")
    assert folder.locate("101/subvol-101-disk-0.subvol") == ("/srv/images/101/subvol-101-disk-0.subvol", "subvol")
    assert folder.locate("100/base-100-disk-0.raw/101/vm-101-disk-0.qcow2")[0] == "/srv/images/101/vm-101-disk-0.qcow2"
    assert folder.locate("iso/debian.iso") == ("/srv/template/iso/debian.iso", "raw")
    for bad in ("100/../x", "../etc/passwd", "100/..", "vm-100-disk-0.raw", "iso/../../x", "", "100/"):
        with pytest.raises(UsageError):
            folder.locate(bad)


def test_new_volumes_take_the_next_free_number(tmp_path: Path) -> None:
    folder = ImageFolder("local", str(tmp_path))
    first = folder.next_volume(200, "qcow2")
    assert first == "local:200/vm-200-disk-0.qcow2"
    assert folder.next_volume(200, "raw", frozenset({first})) == "local:200/vm-200-disk-1.raw"
    folder.create_image("200/vm-200-disk-0.qcow2", 4096)
    assert Path(folder.locate("200/vm-200-disk-0.qcow2")[0]).is_file()
    assert folder.allocated("200/vm-200-disk-0.qcow2") == 0
    assert folder.next_volume(200, "raw") == "local:200/vm-200-disk-1.raw"
    with pytest.raises(StorageError, match="exists already"):
        folder.create_image("200/vm-200-disk-0.qcow2", 4096)
    folder.volume("200/subvol-200-disk-1.subvol").create(None, 0)
    (tmp_path / "images" / "200" / "notes.txt").write_text("x", encoding="utf-8")
    assert folder.list_volumes(200) == ["local:200/subvol-200-disk-1.subvol", "local:200/vm-200-disk-0.qcow2"]


def test_freeing_removes_files_and_trees_and_is_repeatable(tmp_path: Path) -> None:
    folder = ImageFolder("local", str(tmp_path))
    volume = folder.volume("200/subvol-200-disk-0.subvol")
    volume.create(None, 0)
    tree = Path(volume.source)
    (tree / "etc").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x", encoding="utf-8")
    (tree / "etc" / "link").symlink_to(outside)
    volume.free()
    volume.free()
    assert not (tmp_path / "images" / "200").exists()
    assert (outside / "file").exists()


def test_a_volume_with_something_mounted_inside_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ImageFolder("local", str(tmp_path))
    volume = folder.volume("200/subvol-200-disk-0.subvol")
    volume.create(None, 0)
    tree = Path(volume.source)
    table = tmp_path / "mountinfo"
    table.write_text(f"36 35 0:3 / {tree}/mnt rw - ext4 /dev/sdb rw\n", encoding="utf-8")
    monkeypatch.setattr(mounts, "MOUNTINFO", str(table))
    with pytest.raises(StorageError, match="is mounted inside it"):
        volume.free()
    assert tree.exists()


def test_mount_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "with blank"
    place.mkdir()
    escaped = str(place).replace(" ", "\\040")
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"36 22 0:3 / {escaped} rw - nfs4 server:/x rw\n"
        f"37 36 0:3 / {escaped}/below rw master:1 - tmpfs tmpfs rw\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(mounts, "MOUNTINFO", str(table))
    assert mounts.is_mount_point(str(place))
    assert not mounts.is_mount_point(str(tmp_path))
    assert mounts.filesystem_type(str(place / "x")) == "nfs4"
    assert mounts.filesystem_type(str(tmp_path)) == "ext4"
    assert mounts.mounts_below(str(place)) == [f"{place}/below"]


def test_kind_of_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert mounts.kind_of(str(tmp_path)) == "dir"
    assert mounts.kind_of(str(tmp_path / "file")) == "other"
    assert mounts.kind_of(str(tmp_path / "none")) == "missing"
    (tmp_path / "link").symlink_to("nowhere")
    assert mounts.kind_of(str(tmp_path / "link")) == "other"
    assert mounts.kind_of(str(tmp_path / "file" / "below")) == "missing"
    assert 0 < mounts.space(str(tmp_path)).free <= mounts.space(str(tmp_path)).total


def test_a_folder_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for body, message in (
        ("exec sleep 60", "does not answer within 0.3 s"),
        ("echo \"stat: cannot statx '/x': Stale file handle\" >&2; exit 1", "cannot be accessed: Stale file handle"),
    ):
        fake = programs / "stat"
        fake.write_text(f"#!/bin/sh\n{body}\n", encoding="ascii")
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        monkeypatch.setattr(mounts, "REACH_SECONDS", 0.3)
        for look in (mounts.kind_of, mounts.space):
            began = time.monotonic()
            with pytest.raises(StorageError, match=message):
                look(str(tmp_path))
            assert time.monotonic() - began < 2
