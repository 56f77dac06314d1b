# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The reader gives back what was written, and refuses everything that is damaged, cut short or hostile."""

from __future__ import annotations

import hashlib
import io
import random
import struct
from typing import Any, Callable

import pytest
from engine.errors import IntegrityError
from engine.formats import vma_layout as layout
from engine.formats.vma_layout import CLUSTER
from engine.formats.vma_reader import VmaReader
from engine.formats.vma_writer import VmaWriter
from hypothesis import given, settings
from hypothesis import strategies as st

HEADER = 12800


def archive(
    devices: dict[str, bytes], configs: list[tuple[str, bytes]] | None = None, order: random.Random | None = None
) -> bytearray:
    """A good archive of the given disks; with ``order`` its clusters come in random order."""
    out = bytearray()
    vma = VmaWriter(out.extend, bytes(range(16)), 1, configs or [], [(n, len(d)) for n, d in devices.items()])
    clusters = [
        (dev_id, at) for dev_id, data in enumerate(devices.values(), 1) for at in range(-(-len(data) // CLUSTER))
    ]
    if order is not None:
        order.shuffle(clusters)
    contents = list(devices.values())
    for dev_id, at in clusters:
        vma.write_clusters(dev_id, at, contents[dev_id - 1][at * CLUSTER : (at + 1) * CLUSTER])
    vma.close()
    return out


def restore(raw: bytes | bytearray) -> dict[str, bytes]:
    reader = VmaReader(io.BytesIO(raw))
    disks = {device.name: bytearray(b"\xee" * device.size) for device in reader.header.devices}
    for piece in reader.pieces():
        part = bytes(piece.length) if piece.data is None else piece.data
        assert len(part) == piece.length
        disks[piece.device.name][piece.offset : piece.offset + piece.length] = part
    return {name: bytes(data) for name, data in disks.items()}


def reseal(raw: bytearray, extent: int | None = None) -> bytearray:
    """Make the header (or the extent header at that byte) valid again after a change."""
    if extent is None:
        size = struct.unpack_from(">I", raw, 56)[0]
        raw[32:48] = bytes(16)
        raw[32:48] = hashlib.md5(raw[:size]).digest()
    else:
        raw[extent + 24 : extent + 40] = bytes(16)
        raw[extent + 24 : extent + 40] = hashlib.md5(raw[extent : extent + 512]).digest()
    return raw


def refuse(raw: bytes | bytearray, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        VmaReader(io.BytesIO(raw)).verify()


SMALL = {"drive-scsi0": b"\x01" * 3 * CLUSTER}


def test_round_trip_of_several_disks_in_any_order() -> None:
    rng = random.Random(1)
    disks = {
        "drive-efidisk0": b"\x01" * 540672,
        "drive-scsi0": b"".join(rng.choice([bytes(4096), rng.randbytes(4096)]) for _block in range(16 * 130 + 3)),
        "drive-tpmstate0-backup": b"\x07" * 12800,
        "drive-virtio0": bytes(70 * CLUSTER),
    }
    raw = archive(disks, [("qemu-server.conf", b"a\0b\xff"), ("qemu-server.fw", b"")], rng)
    assert restore(raw) == disks
    header = VmaReader(io.BytesIO(raw)).header
    assert header.configs == (("qemu-server.conf", b"a\0b\xff"), ("qemu-server.fw", b""))
    assert header.config("qemu-server.fw") == b""
    assert header.device("drive-scsi0") is not None


def test_clusters_one_by_one() -> None:
    raw = archive({"drive-scsi0": b"\x01" * CLUSTER + bytes(CLUSTER) + b"\x02" * 4096})
    clusters = [(dev, at, mask, bytes(data)) for dev, at, mask, data in VmaReader(io.BytesIO(raw)).extents()]
    assert clusters == [(1, 0, 0xFFFF, b"\x01" * CLUSTER), (1, 1, 0, b""), (1, 2, 1, b"\x02" * 4096)]


def test_adjacent_full_clusters_come_as_one_piece() -> None:
    raw = archive({"drive-scsi0": b"\x01" * 40 * CLUSTER + bytes(18 * CLUSTER)})
    assert [(piece.offset, piece.length) for piece in VmaReader(io.BytesIO(raw)).pieces()] == [
        (0, 40 * CLUSTER),
        (40 * CLUSTER, 18 * CLUSTER),
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from([b"\0", b"\1", b"\2"]), min_size=1, max_size=50), st.integers(0, 7)),
        min_size=1,
        max_size=3,
    ),
    st.randoms(use_true_random=False),
)
def test_round_trip_property(shapes: list[tuple[list[bytes], int]], rng: random.Random) -> None:
    disks = {
        f"drive-scsi{n}": b"".join(block * 4096 for block in blocks) + b"\3" * 512 * sectors
        for n, (blocks, sectors) in enumerate(shapes)
    }
    assert restore(archive(disks, order=rng)) == disks


class Dribble(io.BytesIO):
    """Returns a few bytes at a time, as sockets do."""

    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[:1000])


def test_short_reads_are_continued() -> None:
    VmaReader(Dribble(archive(SMALL))).verify()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: bytearray(), "cannot read the VMA header: 0 bytes"),
        (lambda raw: bytearray(b"X") + raw[1:], "not a VMA archive"),
        (lambda raw: raw[:12700], "the archive ends before"),
        (lambda raw: raw[:7] + b"\2" + raw[8:], "checksum of the VMA header"),
        (lambda raw: reseal(raw[:7] + b"\2" + raw[8:]), "VMA version 2"),
        (lambda raw: raw[:70] + b"\1" + raw[71:], "checksum of the VMA header"),
        (lambda raw: reseal(raw[:48] + struct.pack(">I", 12287) + raw[52:]), "blob table offset 12287"),
        (lambda raw: reseal(raw[:52] + struct.pack(">I", 513) + raw[56:]), "blob table size 513"),
        (lambda raw: reseal(raw[:48] + struct.pack(">II", 12800, 2**32 - 100) + raw[56:]), "blob table size"),
        (lambda raw: raw[:56] + struct.pack(">I", 12288) + raw[60:], "header size 12288"),
        (lambda raw: raw[:56] + struct.pack(">I", 2**32 - 1) + raw[60:], "header size"),
        (lambda raw: reseal(raw[:2044] + struct.pack(">I", 77) + raw[2048:3068] + struct.pack(">I", 78) + raw[3072:]),
         "invalid data pointers in config slot 0"),
        (lambda raw: reseal(raw[:4128] + struct.pack(">I", 2) + raw[4132:]), "unknown device 1"),
        (lambda raw: reseal(raw[:4136] + struct.pack(">Q", 2**63) + raw[4144:]), "more than a VMA archive can hold"),
        (lambda raw: raw[:HEADER + 60] + b"\1" + raw[HEADER + 61:], f"checksum of the extent header at byte {HEADER}"),
        (lambda raw: reseal(raw[:HEADER + 8] + b"\xff" + raw[HEADER + 9:], HEADER), "belongs to another archive"),
        (lambda raw: reseal(raw[:HEADER + 5] + b"\1" + raw[HEADER + 6:], HEADER), "wrong magic"),
        (lambda raw: reseal(raw[:HEADER + 6] + struct.pack(">H", 945) + raw[HEADER + 8:], HEADER), "short extent"),
        (lambda raw: reseal(raw[:HEADER + 6] + struct.pack(">H", 47) + raw[HEADER + 8:], HEADER), "too many blocks"),
        (lambda raw: reseal(raw[:HEADER + 6] + struct.pack(">H", 49) + raw[HEADER + 8:] + bytes(4096), HEADER),
         "missing blocks"),
        (lambda raw: raw + raw[HEADER:], "duplicated cluster 0"),
        (lambda raw: raw[:-1], f"short extent at byte {HEADER}"),
        (lambda raw: raw[: HEADER + 100], "short extent"),
        (lambda raw: raw[:HEADER], "missing cluster 0 of drive-scsi0"),
        (lambda raw: raw + b"x" * 100, "short extent"),
        (lambda raw: raw + b"x" * 600, "checksum of the extent"),
        (lambda raw: reseal(raw[:HEADER + 60] + b"\xff\xff\xff\xff" + raw[HEADER + 64:], HEADER), "beyond end"),
    ],
)  # fmt: skip
def test_damage_is_refused(change: Callable[[bytearray], bytearray], message: str) -> None:
    refuse(change(archive(SMALL)), message)


def test_payload_damage_goes_unnoticed_by_the_format() -> None:
    raw = archive(SMALL)
    raw[-1] ^= 1
    VmaReader(io.BytesIO(raw)).verify()


def test_reserved_header_bytes_are_not_looked_at() -> None:
    VmaReader(io.BytesIO(reseal(archive(SMALL)[:70] + b"\1" + archive(SMALL)[71:]))).verify()


@pytest.mark.parametrize("bit", [3, 4])
def test_blocks_behind_the_end_are_refused(bit: int) -> None:
    raw = archive({"drive-efidisk0": bytes(8 * CLUSTER) + b"\1" * 4096 + bytes(3 * 4096)})
    slot = HEADER + 40 + 8 * 8
    raw[slot : slot + 2] = struct.pack(">H", 1 << bit)
    reseal(raw, HEADER)
    if bit == 3:
        VmaReader(io.BytesIO(raw)).verify()
    else:
        refuse(raw, "write beyond end of drive-efidisk0")


def test_all_59_slots_may_be_used_and_empty_slots_are_passed_over() -> None:
    raw = archive({"drive-scsi0": bytes(58 * CLUSTER)})
    raw[HEADER + 40 + 58 * 8 : HEADER + 512] = layout.SLOT.pack(0xFFFF, 0, 0, 77)
    VmaReader(io.BytesIO(reseal(raw, HEADER))).verify()
    raw = archive({"drive-scsi0": bytes(59 * CLUSTER)})
    raw[HEADER + 40 + 58 * 8 : HEADER + 512] = layout.SLOT.pack(0, 0, 1, 58)
    VmaReader(io.BytesIO(reseal(raw, HEADER)[: HEADER + 512])).verify()


def test_rows_of_clusters_end_where_the_numbers_end() -> None:
    raw = archive({"drive-scsi0": bytes(2 * CLUSTER), "drive-scsi1": bytes(CLUSTER)})
    struct.pack_into(">Q", raw, layout.DEVICES_AT + layout.DEVICE.size + 8, 1 << 48)
    reseal(raw)
    raw[HEADER + 40 : HEADER + 64] = b"".join(
        layout.SLOT.pack(0, 0, *slot) for slot in ((1, 0xFFFFFFFE), (1, 0xFFFFFFFF), (2, 0))
    )
    extents = VmaReader(io.BytesIO(reseal(raw, HEADER))).extents()
    assert [next(extents)[:2] for _step in range(3)] == [(1, 0xFFFFFFFE), (1, 0xFFFFFFFF), (2, 0)]


def test_hostile_names_are_refused() -> None:
    refuse(archive(SMALL, [("../../etc/x", b"")]), "config with the unsafe name")
    refuse(archive({"drive/../x": bytes(512)}), "device with the unsafe name")
    refuse(archive({"": bytes(512)}), "device with the unsafe name")


def test_vmstate_keeps_its_zero_blocks_and_its_order() -> None:
    state = b"\1" * CLUSTER + bytes(CLUSTER) + b"\2" * CLUSTER
    assert restore(archive({"vmstate": state})) == {"vmstate": state}
    raw = archive({"vmstate": state})
    first, second = (slice(HEADER + 44 + 8 * n, HEADER + 48 + 8 * n) for n in (0, 1))
    raw[first], raw[second] = raw[second], raw[first]
    refuse(reseal(raw, HEADER), "out of order cluster 1")
