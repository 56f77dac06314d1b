# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks of libvirt domains restored to LVM-thin; inside a node, with a real libvirtd."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Iterator

import pytest
from engine.formats.vma_writer import VmaWriter
from engine.guests.libvirt.connection import DEFAULT_URI
from engine.stream.sink import open_sink
from engine.system.host import Host, Paths
from engine.system.report import SilentReporter
from engine.tasks.requests import RestoreRequest
from engine.tasks.restore import run_restore
from helpers.libvirtd import Libvirtd
from helpers.process import Child, Ended
from helpers.volumes import sh

CLUSTER = 65536
STORAGES = """\
dir: backup
\tpath {root}/backup
\tcontent backup

lvmthin: thin
\tvgname vg0
\tthinpool thin
\tcontent images

"""
CONFIG = """#qmdump#map:scsi0:drive-scsi0::qcow2:
#qmdump#map:virtio0:drive-virtio0::raw:
memory: 32
name: web
scsi0: /x/a.qcow2,size=64M
virtio0: /x/b.raw,size=64K
"""
XML = """<domain type='qemu'><name>web</name><uuid>7cf798df-7725-443d-a246-a2aa9b6fd781</uuid><memory unit='MiB'>32</memory>
<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/x/a.qcow2'/><target dev='sda' bus='scsi'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/x/b.raw'/><target dev='vda' bus='virtio'/></disk>
</devices></domain>"""  # noqa: E501
NAME = "vzdump-qemu-300-2026_01_01-00_00_00.vma.zst"
SIZE = 64 << 20
DISK = bytearray(SIZE)
for _place in (0, 37 * CLUSTER + 4096, SIZE - 512):
    DISK[_place : _place + 512] = os.urandom(512)


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[Libvirtd]:
    folder = Path(tempfile.mkdtemp(prefix="libvirt-"))
    folder.chmod(0o711)
    daemon = Libvirtd(folder)
    yield daemon
    daemon.close()
    shutil.rmtree(folder)


@pytest.fixture
def host(libvirtd: Libvirtd, thin: str) -> Iterator[Host]:
    root = Path(tempfile.mkdtemp(prefix="domain-"))
    host = Host("n1", Paths.under(str(root)))
    (root / "backup" / "dump").mkdir(parents=True)
    (root / "etc").mkdir()
    Path(host.paths.storage_cfg).write_text(STORAGES.format(root=root), encoding="ascii")
    Path(host.paths.libvirt_conf).write_text(f"uri: {DEFAULT_URI}\n", encoding="ascii")
    with open_sink(str(root / "backup" / "dump" / NAME), "zst") as sink:
        configs = [("qemu-server.conf", CONFIG.encode()), ("libvirt-domain.xml", XML.encode())]
        devices = [("drive-scsi0", SIZE), ("drive-virtio0", CLUSTER)]
        vma = VmaWriter(sink.write, bytes(16), 1_770_000_000, configs, devices)
        vma.write_clusters(1, 0, DISK)
        vma.write_clusters(2, 0, b"\7" * CLUSTER)
        vma.close()
    yield host
    libvirtd.clear()
    for name in volumes():
        sh("lvremove", "-q", "-f", f"{thin}/{name}")
    shutil.rmtree(root)


def volumes() -> list[str]:
    """Volumes of the restored domain."""
    return [name for name in sh("lvs", "--noheadings", "-o", "lv_name", "vg0").split() if name.startswith("vm-200-")]


def restore(host: Host, libvirtd: Libvirtd, **wanted: Any) -> Ended:
    """A restore by a process that is where the daemon is; it prints the result."""

    def work() -> int:
        libvirtd.enter()
        request = RestoreRequest(f"backup:backup/{NAME}", 200, **wanted)
        print(json.dumps(run_restore(host, request, SilentReporter()).to_dict()))
        return 0

    return Child(work).wait(600)


def test_one_disk_on_lvm(host: Host, libvirtd: Libvirtd) -> None:
    ended = restore(host, libvirtd, volumes={"sda": "thin"})
    assert ended.status == 0, ended.err
    result, plain = json.loads(ended.out), libvirtd.folder / "lib" / "images" / "web-vda.raw"
    assert [volume["volid"] for volume in result["volumes"]] == [
        "thin:vm-200-disk-0",
        "/var/lib/libvirt/images/web-vda.raw",
    ]
    assert Path("/dev/vg0/vm-200-disk-0").read_bytes()[:SIZE] == DISK
    assert plain.read_bytes() == b"\7" * CLUSTER
    xml = libvirtd.virsh("dumpxml", "web")
    assert "<disk type='block' device='disk'>" in xml
    assert "<source dev='/dev/vg0/vm-200-disk-0'/>" in xml
    libvirtd.virsh("start", "--paused", "web")
    libvirtd.virsh("destroy", "web")
    # Replaced: the new volumes are there before the old ones go.
    ended = restore(host, libvirtd, storage="thin", force=True)
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["freed"] == ["/dev/vg0/vm-200-disk-0", "/var/lib/libvirt/images/web-vda.raw"]
    assert volumes() == ["vm-200-disk-1", "vm-200-disk-2"]
    assert not plain.exists()
    assert Path("/dev/vg0/vm-200-disk-1").read_bytes()[:SIZE] == DISK


def test_a_failed_restore_leaves_no_volume(host: Host, libvirtd: Libvirtd) -> None:
    path = Path(host.paths.etc).parent / "backup" / "dump" / NAME
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    ended = restore(host, libvirtd, storage="thin")
    assert "IntegrityError" in ended.err
    assert volumes() == []
    assert libvirtd.virsh("list", "--all", "--name") == ""
