# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The indexes behind the data: what is written is found again, and hostile ones are refused."""

from __future__ import annotations

import random

import pytest
from engine.errors import IntegrityError
from engine.formats import seekable
from engine.formats.cluster_map import ClusterMap, ClusterMapBuilder
from engine.formats.vma_layout import CLUSTER, FULL_MASK
from engine.formats.vma_writer import VmaWriter


def test_every_cluster_is_found_where_the_map_says() -> None:
    rng = random.Random(5)
    disk = b"".join(rng.choice([bytes(4096), rng.randbytes(4096)]) for _block in range(16 * 70))
    disk += rng.randbytes(CLUSTER * 90) + bytes(CLUSTER * 30) + b"\1" * 1024
    out = bytearray()
    index = ClusterMapBuilder()
    vma = VmaWriter(out.extend, bytes(16), 0, [("a", b"b")], [("drive-0", len(disk))], index)
    for at in range(0, len(disk), 7 * CLUSTER):
        vma.write_clusters(1, at // CLUSTER, disk[at : at + 7 * CLUSTER])
    vma.close()
    clusters = ClusterMap(index.frame())
    for cluster in range(-(-len(disk) // CLUSTER)):
        found = clusters.find(1, cluster)
        assert found is not None
        mask, offset = found
        rebuilt = bytearray(CLUSTER)
        for block in range(16):
            if mask >> block & 1:
                rebuilt[block * 4096 : block * 4096 + 4096] = out[offset : offset + 4096]
                offset += 4096
        want = disk[cluster * CLUSTER : (cluster + 1) * CLUSTER]
        assert rebuilt[: len(want)] == want
    assert clusters.find(1, 10**6) is None
    assert clusters.find(2, 0) is None
    assert clusters.find(0, 0) is None


def test_long_runs_are_one_record() -> None:
    index = ClusterMapBuilder()
    for first in range(0, 5800, 58):
        index.add(1, first, 58, 0, first)
    index.add(1, 5800, 2, FULL_MASK, 0)
    index.add(1, 5802, 3, FULL_MASK, 2 * CLUSTER)
    assert list(ClusterMap(index.frame())) == [(1, 0, 5800, 0, 0), (1, 5800, 5, FULL_MASK, 0)]


@pytest.mark.parametrize("damage", [0, 4, 8, 12, 20, -1])
def test_a_damaged_map_is_refused(damage: int) -> None:
    index = ClusterMapBuilder()
    index.add(1, 0, 58, 0, 0)
    frame = bytearray(index.frame())
    frame[damage] ^= 0xFF
    with pytest.raises(IntegrityError, match="cluster map"):
        ClusterMap(bytes(frame))
    with pytest.raises(IntegrityError, match="cluster map"):
        ClusterMap(bytes(frame[:15]))


def test_seek_table_round_trip() -> None:
    table = seekable.SeekTable()
    for size, length in ((10, 100), (20, 0), (30, 300)):
        table.add(size, length)
    raw = table.encode()
    assert raw[:4] == bytes.fromhex("5e2a4d18")
    assert raw[-4:] == bytes.fromhex("b1ea928f")
    again = seekable.parse_table(raw, 60 + len(raw))
    assert [(f.offset, f.size, f.start, f.length) for f in again.frames()] == [
        (0, 10, 0, 100),
        (10, 20, 100, 0),
        (30, 30, 100, 300),
    ]


def test_seek_table_with_checksums_is_read() -> None:
    body = (b"\x0a\0\0\0\x64\0\0\0ABCD") + seekable.FOOTER.pack(1, 0x80, seekable.SEEKABLE_MAGIC)
    raw = seekable.skippable_frame(seekable.SEEK_TABLE_MAGIC, body)
    assert seekable.table_size(raw[-9:]) == len(raw)
    assert seekable.parse_table(raw, len(raw) + 10).stream_bytes == 100


def test_damaged_seek_tables() -> None:
    table = seekable.SeekTable()
    table.add(10, 100)
    raw = table.encode()
    assert seekable.table_size(b"short") is None
    assert seekable.table_size(bytes(9)) is None
    assert seekable.table_size(seekable.FOOTER.pack(1, 0x04, seekable.SEEKABLE_MAGIC)) is None
    assert seekable.table_size(seekable.FOOTER.pack(2**32 - 1, 0, seekable.SEEKABLE_MAGIC)) is None
    with pytest.raises(IntegrityError, match="another file size"):
        seekable.parse_table(raw, len(raw) + 11)
    with pytest.raises(IntegrityError, match="size does not match"):
        seekable.parse_table(raw[1:], len(raw) + 10)
    with pytest.raises(IntegrityError, match="does not start as it ends"):
        seekable.parse_table(b"\0" + raw[1:], len(raw) + 10)
