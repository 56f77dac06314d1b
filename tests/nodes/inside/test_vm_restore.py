# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks of VMs restored to LVM-thin, where earlier volumes left something; inside a node."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Iterator

import pytest
from engine.errors import IntegrityError
from engine.formats.vma_writer import VmaWriter
from engine.storages.base import Need
from engine.storages.registry import open_storage
from engine.stream.sink import open_sink
from engine.system.host import Host, Paths
from engine.system.report import SilentReporter
from engine.tasks.requests import RestoreRequest
from engine.tasks.restore import run_restore
from engine.tasks.stores import load_storages
from helpers.volumes import sh

CLUSTER = 65536
STORAGES = """\
dir: backup
\tpath {root}/backup
\tcontent backup

dir: local
\tpath {root}/local
\tcontent images

lvmthin: {pool}
\tvgname vg0
\tthinpool {pool}
\tcontent images

"""
CONFIG = """#qmdump#map:scsi0:drive-scsi0:local:qcow2:
#qmdump#map:virtio0:drive-virtio0:local:raw:
memory: 32
name: web
scsi0: local:300/vm-300-disk-0.qcow2,size=64M
virtio0: local:300/vm-300-disk-1.raw,size=64K
"""
NAME = "vzdump-qemu-300-2026_01_01-00_00_00.vma.zst"
SIZE = 64 << 20
DISK = bytearray(SIZE)
for _place in (0, 37 * CLUSTER + 4096, 500 * CLUSTER, SIZE - 512):
    DISK[_place : _place + 512] = os.urandom(512)


@pytest.fixture(params=["careless", "zeroing"])
def host(request: pytest.FixtureRequest, thin: str) -> Iterator[Host]:
    """A node with a pool that was full of something; the careless one does not zero the chunks that it hands out."""
    pool = str(request.param)
    sh("lvcreate", "-q", "-L", "128M", "-Zy" if pool == "zeroing" else "-Zn", "--thinpool", pool, thin)
    root = Path(tempfile.mkdtemp(prefix="vm-"))
    host = Host("n1", Paths.under(str(root)))
    (root / "backup" / "dump").mkdir(parents=True)
    (root / "etc").mkdir()
    Path(host.paths.storage_cfg).write_text(STORAGES.format(root=root, pool=pool), encoding="ascii")
    # Chunks are handed out in turn: only when all were used, the next ones hold something.
    sh("lvcreate", "-q", "-V", "128M", "-n", "stale", "--thinpool", pool, thin)
    Path(f"/dev/{thin}/stale").write_bytes(b"\xee" * (128 << 20))
    sh("lvremove", "-q", "-f", f"{thin}/stale")
    with open_sink(str(root / "backup" / "dump" / NAME), "zst") as sink:
        devices = [("drive-scsi0", SIZE), ("drive-virtio0", CLUSTER)]
        vma = VmaWriter(sink.write, bytes(16), 1_770_000_000, [("qemu-server.conf", CONFIG.encode())], devices)
        vma.write_clusters(1, 0, DISK)
        vma.write_clusters(2, 0, b"\7" * CLUSTER)
        vma.close()
    yield host
    for volid in volumes(host):
        sh("lvremove", "-q", "-f", f"{thin}/{volid.partition(':')[2]}")
    sh("lvremove", "-q", "-f", f"{thin}/{pool}")
    shutil.rmtree(root)


def volumes(host: Host) -> list[str]:
    """Ids of all volumes of the pool that belong to the restored guests."""
    (definition,) = [one for one in load_storages(host).values() if one.type == "lvmthin"]
    storage = open_storage(definition, host)
    storage.activate(Need("images"))
    return [volid for vmid in (200, 201) for volid in storage.volumes.list_volumes(vmid)]


def pool_of(host: Host) -> str:
    return next(name for name, one in load_storages(host).items() if one.type == "lvmthin")


def restore(host: Host, **wanted: Any) -> Any:
    request = RestoreRequest(f"backup:backup/{NAME}", 200, **wanted)
    return run_restore(host, request, SilentReporter()).to_dict()


def test_a_disk_is_what_it_was_and_takes_little(host: Host) -> None:
    pool = pool_of(host)
    result = restore(host, storage=pool)
    scsi0 = result["volumes"][0]
    assert (scsi0["volid"], scsi0["format"]) == (f"{pool}:vm-200-disk-0", "raw")
    assert Path("/dev/vg0/vm-200-disk-0").read_bytes()[:SIZE] == DISK
    assert Path("/dev/vg0/vm-200-disk-1").read_bytes()[:CLUSTER] == b"\7" * CLUSTER
    print(pool, "takes", scsi0["allocated"])
    assert 0 < scsi0["allocated"] < SIZE // 2
    config = (Path(host.paths.qemu_configs) / "200.conf").read_text(encoding="utf-8")
    assert f"scsi0: {pool}:vm-200-disk-0,size=64M" in config
    # Replaced: the new volumes are there before the old ones go.
    replaced = restore(host, storage=pool, force=True)
    assert replaced["freed"] == [f"{pool}:vm-200-disk-0", f"{pool}:vm-200-disk-1"]
    assert volumes(host) == [f"{pool}:vm-200-disk-2", f"{pool}:vm-200-disk-3"]
    assert Path("/dev/vg0/vm-200-disk-2").read_bytes()[:SIZE] == DISK


def test_one_disk_here_and_one_there(host: Host) -> None:
    pool = pool_of(host)
    result = restore(host, volumes={"virtio0": pool})
    assert [volume["storage"] for volume in result["volumes"]] == ["local", pool]
    assert Path("/dev/vg0/vm-200-disk-0").read_bytes()[:CLUSTER] == b"\7" * CLUSTER


def test_a_failed_restore_leaves_no_volume(host: Host) -> None:
    path = Path(host.paths.etc).parent / "backup" / "dump" / NAME
    data = bytearray(path.read_bytes())
    data[len(data) // 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        restore(host, storage=pool_of(host))
    assert volumes(host) == []
    assert not (Path(host.paths.qemu_configs) / "200.conf").exists()
