# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The reader gives back what was written, and refuses everything that is damaged, cut short or hostile."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import tracemalloc
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
        (lambda raw: raw[:12287], "cannot read the VMA header: 12287 bytes"),
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
        (lambda raw: raw[:56] + struct.pack(">I", 4 * layout.HEADER_MAX + 1) + raw[60:], "bad header size"),
        (lambda raw: raw[:56] + struct.pack(">I", 4 * layout.HEADER_MAX) + raw[60:], "the archive ends before"),
        (lambda raw: reseal(raw[:2044] + struct.pack(">I", 77) + raw[2048:3068] + struct.pack(">I", 78) + raw[3072:]),
         "invalid data pointers in config slot 0"),
        (lambda raw: reseal(raw[:4128] + struct.pack(">I", 2) + raw[4132:]), "unknown device 1"),
        (lambda raw: reseal(raw[:4136] + struct.pack(">Q", 2**63) + raw[4144:]), "more than a VMA archive can hold"),
        (lambda raw: raw[:HEADER + 60] + b"\1" + raw[HEADER + 61:], f"checksum of the extent header at byte {HEADER}"),
        (lambda raw: reseal(raw[:HEADER + 8] + b"\xff" + raw[HEADER + 9:], HEADER), "belongs to another archive"),
        (lambda raw: reseal(raw[:HEADER + 5] + b"\1" + raw[HEADER + 6:], HEADER), "wrong magic"),
        (lambda raw: reseal(raw[:HEADER + 3] + b"X" + raw[HEADER + 4:], HEADER), "wrong magic"),
        (lambda raw: raw[:HEADER + 3] + b"X" + raw[HEADER + 4:], "checksum of the extent header"),
        (lambda raw: reseal(raw[:HEADER + 43] + b"\2" + raw[HEADER + 44:], HEADER), "unknown device 2"),
        (lambda raw: reseal(raw[:HEADER + 43] + b"\xff" + raw[HEADER + 44:], HEADER), "unknown device 255"),
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


def slot_of_device(dev_id: int) -> int:
    return layout.DEVICES_AT + layout.DEVICE.size * dev_id


def patched(raw: bytearray, at: int, data: bytes) -> bytearray:
    raw[at : at + len(data)] = data
    return reseal(raw)


def test_a_config_slot_with_one_pointer_is_passed_over() -> None:
    raw = archive({}, [("a", b"1"), ("b", b"2")])
    header = VmaReader(io.BytesIO(patched(raw, layout.CONFIG_DATA_AT, bytes(4)))).header
    assert header.configs == (("b", b"2"),)


@pytest.mark.parametrize("blob", [b"\0\0", b"\1\0a", b"\3\0ab\1"], ids=["empty", "one letter", "without NUL"])
def test_a_name_that_is_none_makes_a_config_invalid_and_a_device_unknown(blob: bytes) -> None:
    raw = archive(SMALL, [("name", b"x")])
    refuse(patched(bytearray(raw), layout.HEADER_FIXED + 1, blob), "invalid data pointers in config slot 0")
    (pointer,) = struct.unpack_from(">I", raw, slot_of_device(1))
    refuse(patched(bytearray(raw), layout.HEADER_FIXED + pointer, blob), "unknown device 1")


def test_a_pointer_into_the_middle_of_a_blob_means_nothing() -> None:
    raw = archive(SMALL)
    (pointer,) = struct.unpack_from(">I", raw, slot_of_device(1))
    refuse(patched(raw, slot_of_device(1), struct.pack(">I", pointer + 2)), "unknown device 1")


def test_a_last_blob_that_runs_over_the_table_is_no_blob() -> None:
    raw = archive({}, [("name", b"x")])
    (pointer,) = struct.unpack_from(">I", raw, layout.CONFIG_DATA_AT)
    raw = patched(raw, layout.HEADER_FIXED + pointer, b"\xff\xff")
    refuse(raw, "invalid data pointers in config slot 0")
    VmaReader(io.BytesIO(patched(raw, layout.CONFIG_NAMES_AT, bytes(4)))).verify()


def test_devices_without_size_or_with_the_last_id_do_not_exist() -> None:
    raw = archive({}, [("drive-scsi0", b"x")])
    for dev_id, size in ((7, 0), (255, 512), (0, 512)):
        raw = patched(raw, slot_of_device(dev_id), struct.pack(">I4xQ", 1, size))
    reader = VmaReader(io.BytesIO(raw))
    reader.verify()
    assert reader.header.devices == ()


def test_two_devices_of_one_name_are_refused() -> None:
    raw = archive(SMALL)
    raw[slot_of_device(2) : slot_of_device(3)] = raw[slot_of_device(1) : slot_of_device(2)]
    refuse(reseal(raw), "two devices with the name drive-scsi0")


def test_a_header_alone_is_an_archive_and_empty_extents_may_stand_anywhere() -> None:
    raw = archive({}, [("a", b"1")])
    size = struct.unpack_from(">I", raw, 56)[0]
    VmaReader(io.BytesIO(raw[:size])).verify()
    empty = raw[size:]
    assert len(empty) == 512
    raw = archive(SMALL)
    assert restore(raw[:HEADER] + empty + raw[HEADER:] + empty) == SMALL


@pytest.mark.parametrize("size", [1, 511, 4097, 65537])
def test_sizes_that_are_no_sectors_are_clipped_by_bytes(size: int) -> None:
    content = b"\1" * (-(-size // 512) * 512)
    raw = patched(archive({"drive-scsi0": content}), slot_of_device(1) + 8, struct.pack(">Q", size))
    assert restore(raw) == {"drive-scsi0": content[:size]}


def test_a_vmstate_may_end_early_and_be_longer_than_it_says() -> None:
    raw = archive({"vmstate": b"\1" * CLUSTER})
    for size in (1, 1 << 40):
        VmaReader(io.BytesIO(patched(raw, slot_of_device(1) + 8, struct.pack(">Q", size)))).verify()


def test_clusters_that_are_scattered_on_purpose_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_SCATTERED", 50)
    raw = archive({"drive-scsi0": bytes(58 * CLUSTER)})
    struct.pack_into(">Q", raw, slot_of_device(1) + 8, 1 << 48)
    reseal(raw)
    for number in range(58):
        layout.SLOT.pack_into(raw, HEADER + 40 + 8 * number, 0, 0, 1, number * 8192)
    refuse(reseal(raw, HEADER), "scattered over too many places")


def test_a_header_full_of_empty_blobs_takes_no_memory() -> None:
    raw = archive({}, [("a", b"1")])
    big = raw[:12800] + bytes(4 * layout.HEADER_MAX - 12800)
    struct.pack_into(">II", big, 52, 4 * layout.HEADER_MAX - layout.HEADER_FIXED, 4 * layout.HEADER_MAX)
    reseal(big)
    tracemalloc.start()
    try:
        VmaReader(io.BytesIO(big)).verify()
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


def test_data_can_be_passed_over() -> None:
    raw = archive({"drive-scsi0": b"\1" * 100 * CLUSTER})
    stream = io.BytesIO(raw)

    def skip(count: int) -> int:
        left = len(raw) - stream.tell()
        stream.seek(min(count, left), io.SEEK_CUR)
        return min(count, left)

    VmaReader(stream).verify(skip)
    raw = raw[:-1]
    stream = io.BytesIO(raw)
    with pytest.raises(IntegrityError, match="short extent"):
        VmaReader(stream).verify(skip)
