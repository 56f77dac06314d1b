# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Storages that run full in the middle: the guest goes on, older archives stay, and nothing unfinished is left."""

from __future__ import annotations

import subprocess

import pytest
from helpers import guests
from helpers.guests import CT, VM, goes_on
from helpers.node import Node


@pytest.mark.parametrize("compress", ["0", "zstd", "gzip"])
def test_target_of_a_vm(compress: str, machine: Node) -> None:
    guests.start(machine, VM)
    with machine.mounted("size=3m"):
        complaint = machine.refused("run", str(VM), "--storage", "disk", "--compress", compress, status=3)
        assert "storage full while writing" in complaint
        assert machine.archives() == []
        goes_on(machine, VM)


@pytest.mark.parametrize("compress", ["0", "zstd", "gzip"])
def test_target_of_a_container(compress: str, btrfs_box: Node) -> None:
    guests.start(btrfs_box, CT)
    with btrfs_box.mounted("size=3m"):
        complaint = btrfs_box.refused("run", str(CT), "--storage", "disk", "--compress", compress, status=3)
        assert "storage full while writing" in complaint
        assert btrfs_box.archives() == []
        goes_on(btrfs_box, CT)


def test_working_copy_of_a_container(box: Node) -> None:
    guests.start(box, CT)
    argv = ("run", str(CT), "--storage", "backup", "--mode", "suspend", "--tmpdir", f"{box.root}/disk")
    # Bytes are looked at before; what ends in the middle of the copy are the inodes.
    with box.mounted("size=64m,nr_inodes=8"):
        complaint = box.refused(*argv, status=3)
        assert "No space left" in complaint
        assert "tmpdir" in complaint
    goes_on(box, CT)
    assert box.archives() == []


def test_less_than_nothing_useful(box: Node) -> None:
    with box.mounted("size=512k"):
        assert "bytes free" in box.refused("run", str(CT), "--storage", "disk", status=3)


def test_older_archives_stay(box: Node) -> None:
    with box.mounted("size=9m"):
        box.call("run", str(CT), "--storage", "disk", "--prune-backups", "keep-last=1")
        (old,) = box.archives()
        complaint = box.refused("run", str(CT), "--storage", "disk", "--prune-backups", "keep-last=1", status=3)
        assert "storage full" in complaint
        assert box.archives() == [old]


def test_volumes_of_a_restored_vm(machine: Node) -> None:
    # It takes little in the archive and much outside.
    disk = machine.images / str(VM) / f"vm-{VM}-disk-1.raw"
    disk.write_bytes(b"compressible" * (16 << 20 >> 4))
    subprocess.run(["truncate", "-s", "16M", disk], check=True)
    machine.call("run", str(VM), "--storage", "backup", "--compress", "zstd")
    with machine.mounted("size=16m"):
        complaint = machine.refused("restore", "backup:latest/100", "200", "--storage", "disk", status=1)
        assert "full" in complaint
        assert "vm-200-disk" in complaint
        assert not (machine.root / "disk" / "images" / "200").exists()
    assert not machine.config(200, "qemu").exists()


def test_volumes_of_a_restored_container(box: Node) -> None:
    (box.images / str(CT) / f"subvol-{CT}-disk-1.subvol" / "much").write_bytes(b"compressible" * (1 << 20))
    box.call("run", str(CT), "--storage", "backup", "--compress", "zstd")
    with box.mounted("size=10m"):
        complaint = box.refused("restore", "backup:latest/101", "201", "--storage", "disk", status=1)
        assert "No space left" in complaint
        assert not (box.root / "disk" / "images" / "201").exists()
    assert not box.config(201, "lxc").exists()
