# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers on LVM-thin and ZFS: snapshots while they write, and restores from one to the other; inside a node."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Iterator

import pytest
from engine.storages.registry import open_storage
from engine.tasks.stores import load_storages
from helpers.boxes import OWNER, Box

from tests.demo.compare import differences

STORAGES = """\
lvmthin: lvm
\tvgname vg0
\tthinpool thin
\tcontent rootdir

zfspool: zfs
\tpool tank
\tcontent rootdir
"""
VOLUMES = {
    "lvm": {
        "rootfs": "lvm:vm-101-disk-0,size=64M",
        "mp0": "lvm:vm-101-disk-1,mp=/data,backup=1,size=64M",
    },
    "zfs": {
        "rootfs": "zfs:subvol-101-disk-0,size=64M",
        "mp0": "zfs:subvol-101-disk-1,mp=/data,backup=1,size=64M",
    },
}


@pytest.fixture
def box(thin: str, tank: str) -> Iterator[Box]:
    root = Path(tempfile.mkdtemp(prefix="ct-"))
    root.chmod(0o755)
    box = Box(root, STORAGES)
    yield box
    box.close()
    for definition in load_storages(box.host).values():
        volumes = open_storage(definition, box.host).volumes
        for volid in (volid for vmid in (101, 201, 202) for volid in volumes.list_volumes(vmid)):
            volumes.volume(volid.partition(":")[2]).free()
    shutil.rmtree(root)


@pytest.mark.parametrize(("here", "there"), [("lvm", "zfs"), ("zfs", "lvm")])
def test_snapshot_and_restore(box: Box, here: str, there: str) -> None:
    box.make(101, VOLUMES[here], owner=OWNER, config="unprivileged: 1\n")
    original = box.files(101, owner=OWNER)
    box.start(101)
    outcome = box.backup(101, "snapshot")
    assert outcome.mode == "snapshot"
    print(here, "frozen for", outcome.timings["freeze_seconds"])
    stopped = box.backup(101, "stop")
    assert stopped.mode == "stop"
    same = box.restore(outcome, 201)
    other = box.restore(stopped, 202, storage=there)
    assert {volume.storage for volume in same.volumes} == {here}
    assert {volume.storage for volume in other.volumes} == {there}
    for vmid in (201, 202):
        assert differences(original, box.files(vmid, owner=OWNER)) == []
        box.start(vmid)
    box.guest(101).stop()
    box.restore(outcome, 101, force=True)
    assert differences(original, box.files(101, owner=OWNER)) == []
