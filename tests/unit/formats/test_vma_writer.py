# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives equal those of the stock tools byte for byte; misuse is refused."""

from __future__ import annotations

import hashlib

import pytest
from engine.errors import IntegrityError, UsageError
from engine.formats.vma_layout import CLUSTER, EXTENT_BYTES, Buffer, mask_ranges
from engine.formats.vma_writer import VmaWriter

UUID = bytes(range(16))
CTIME = 1700000000
CONFIG_A = b"memory: 512\nscsi0: local:100/vm-100-disk-0.raw,size=132K\n#qmdump#map:scsi0:drive-scsi0:local:raw:\n"


class Archive(bytearray):
    """Collects what a writer writes."""

    def take(self, data: Buffer) -> None:
        self.extend(data)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self).hexdigest()


def writer(archive: Archive, configs: list[tuple[str, bytes]], devices: list[tuple[str, int]]) -> VmaWriter:
    return VmaWriter(archive.take, UUID, CTIME, configs, devices)


def disk_a() -> bytearray:
    disk = bytearray(135168)
    disk[:4] = b"BOOT"
    disk[20580] = 1
    disk[65536:131072] = b"\xaa" * 65536
    disk[131072:131584] = b"\x55" * 512
    return disk


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("at_once", [True, False])
def test_vector_a(kind: type, at_once: bool) -> None:
    archive = Archive()
    vma = writer(archive, [("qemu-server.conf", CONFIG_A)], [("drive-scsi0", 135168)])
    disk = bytes(disk_a())
    if at_once:
        vma.write_clusters(1, 0, kind(disk))
    else:
        for cluster in range(3):
            vma.write_clusters(
                1, cluster, kind(disk[cluster * CLUSTER : (cluster + 1) * CLUSTER].ljust(CLUSTER, b"\0"))
            )
    vma.close()
    assert len(archive) == 91136
    assert archive[:60].hex() == (
        "564d410000000001000102030405060708090a0b0c0d0e0f000000006553f100"
        "af2f7e760b489fa81c4551af1c517ba6000030000000008600003200"
    )
    assert archive[12800 + 24 : 12800 + 40].hex() == "589869b0f3b814ba7130e9d1bfa27ec5"
    assert archive.sha256 == "af9d58f7ec2695167727d3b27b5c2e6ab98772e87dd0eb1808aa3ef5ae7b9454"


def test_vector_b_config_only() -> None:
    archive = Archive()
    writer(archive, [("qemu-server.conf", b"memory: 512\n")], []).close()
    assert archive.sha256 == "07615dcb19e78a0fd4cd3952425809e30aaf6760b6bc8500676416d05ac4f5e9"


@pytest.mark.parametrize("by_count", [True, False])
def test_vector_c_zero_device(by_count: bool) -> None:
    archive = Archive()
    vma = writer(archive, [], [("drive-virtio0", 59 * CLUSTER)])
    if by_count:
        assert vma.write_zero_clusters(1, 0, 59) == 59 * CLUSTER
    else:
        assert vma.write_clusters(1, 0, bytes(59 * CLUSTER)) == 59 * CLUSTER
    vma.close()
    assert len(archive) == 13824
    assert archive.sha256 == "dfebfa1fc6b464031227bea271d302415a55a0dbd9c81b7cadccaf5880f36da9"


@pytest.mark.parametrize("at_once", [True, False])
def test_vector_d_two_devices(at_once: bool) -> None:
    archive = Archive()
    configs = [("qemu-server.conf", b"x" * 600), ("qemu-server.fw", b"y" * 10)]
    vma = writer(archive, configs, [("drive-efidisk0", 540672), ("drive-scsi0", 59 * CLUSTER)])
    second = (b"\x02" * CLUSTER + bytes(CLUSTER)) * 29 + b"\x02" * CLUSTER
    if at_once:
        vma.write_clusters(1, 0, b"\x01" * 540672)
        assert vma.write_clusters(2, 0, bytearray(second)) == 29 * CLUSTER
    else:
        reused = bytearray(CLUSTER)
        for cluster in range(9):
            reused[:] = b"\x01" * CLUSTER
            vma.write_clusters(1, cluster, reused)
            reused[:] = bytes(CLUSTER)
        for cluster in range(59):
            reused[:] = second[cluster * CLUSTER : (cluster + 1) * CLUSTER]
            vma.write_clusters(2, cluster, reused)
            reused[:] = b"\x77" * CLUSTER
    vma.close()
    assert len(archive) == 2521600
    assert archive.sha256 == "4f818ca245c324f467c7c0207f3a687821d10ba3501bc35fd5a9e6210bc203b9"


@pytest.mark.parametrize("length", [12800, CLUSTER])
def test_vector_e_nothing_behind_the_disk_gets_out(length: int) -> None:
    archive = Archive()
    vma = writer(archive, [], [("drive-scsi0", 12800)])
    vma.write_clusters(1, 0, b"\x07" * length)
    vma.close()
    assert archive.sha256 == "1889246ae32adc001bb970134bd223e39e4b9602c783ea8822c212f5f9d42a47"


def test_exactly_one_full_extent_is_not_followed_by_an_empty_one() -> None:
    archive = Archive()
    vma = writer(archive, [], [("drive-scsi0", EXTENT_BYTES)])
    vma.write_clusters(1, 0, b"\x01" * EXTENT_BYTES)
    vma.close()
    assert len(archive) == 12800 + 512 + EXTENT_BYTES


def test_a_missing_cluster_is_noticed_at_close() -> None:
    vma = writer(Archive(), [], [("drive-scsi0", 3 * CLUSTER)])
    vma.write_zero_clusters(1, 0, 1)
    vma.write_zero_clusters(1, 2, 1)
    with pytest.raises(IntegrityError, match="drive-scsi0 is incomplete: cluster 1"):
        vma.close()


def test_clusters_come_once_and_inside_the_disk() -> None:
    vma = writer(Archive(), [], [("drive-scsi0", 3 * CLUSTER)])
    vma.write_zero_clusters(1, 1, 1)
    with pytest.raises(IntegrityError, match="cluster 1 was written twice"):
        vma.write_clusters(1, 0, bytes(2 * CLUSTER))
    with pytest.raises(IntegrityError, match="beyond the disk's end"):
        vma.write_zero_clusters(1, 2, 2)
    with pytest.raises(IntegrityError, match="device id 2"):
        vma.write_zero_clusters(2, 0, 1)
    with pytest.raises(IntegrityError, match="not whole clusters"):
        vma.write_clusters(1, 0, bytes(100))


def test_limits() -> None:
    with pytest.raises(UsageError, match="255 disks"):
        writer(Archive(), [], [(f"drive-{n}", 512) for n in range(255)])
    writer(Archive(), [], [(f"drive-{n}", 512) for n in range(254)])
    with pytest.raises(UsageError, match="65536 bytes"):
        writer(Archive(), [("qemu-server.conf", bytes(65536))], [])
    writer(Archive(), [("qemu-server.conf", bytes(65535))], [])
    with pytest.raises(UsageError, match="100 bytes"):
        writer(Archive(), [], [("drive-scsi0", 100)])


def test_vmstate_is_written_in_order() -> None:
    vma = writer(Archive(), [], [("vmstate", 3 * CLUSTER)])
    vma.write_clusters(1, 0, b"\x01" * CLUSTER)
    with pytest.raises(IntegrityError, match="out of order"):
        vma.write_clusters(1, 2, b"\x01" * CLUSTER)


def test_mask_ranges() -> None:
    assert mask_ranges(0) == []
    assert mask_ranges(0xFFFF) == [(0, 16)]
    assert mask_ranges(0b1011) == [(0, 2), (3, 4)]
