# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The VMA archive format, version 1: constants, records and the bookkeeping that writer and reader share.

An archive is a header followed by extents until the end of the file. Everything is big endian, except the length in
front of each blob, which is little endian. Sizes are bytes unless a name says clusters or blocks.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Union

from ..errors import IntegrityError

BLOCK = 4096
CLUSTER = 65536
BLOCKS_PER_CLUSTER = CLUSTER // BLOCK
FULL_MASK = 0xFFFF

MAGIC = b"VMA\0"
EXTENT_MAGIC = b"VMAE"
HEADER_FIXED = 12288
HEADER_MAX = 524288
EXTENT_HEADER = 512
EXTENT_SLOTS = 59
#: Slots the stock writer fills; a writer that wants the same bytes must do the same.
EXTENT_SLOTS_USED = 58
EXTENT_MAX_BLOCKS = EXTENT_SLOTS * BLOCKS_PER_CLUSTER
#: Reading a disk in pieces of this size lets the writer pass them on without a copy.
EXTENT_BYTES = EXTENT_SLOTS_USED * CLUSTER
MAX_CONFIGS = 256
MAX_DEVICES = 254
MAX_BLOB = 65535
MAX_CLUSTERS = 1 << 32
VMSTATE = "vmstate"

#: magic, version, uuid, ctime, md5, blob_buffer_offset, blob_buffer_size, header_size
HEADER = struct.Struct(">4sI16sq16sIII")
HEADER_MD5 = slice(32, 48)
CONFIG_NAMES_AT = 2044
CONFIG_DATA_AT = 3068
CONFIG_POINTERS = struct.Struct(">256I")
DEVICES_AT = 4096
DEVICE = struct.Struct(">I4xQ16x")
BLOB_LENGTH = struct.Struct("<H")
#: magic, reserved, block_count, uuid, md5
EXTENT = struct.Struct(">4sHH16s16s")
EXTENT_MD5 = slice(24, 40)
#: mask, reserved, device id, cluster number
SLOT = struct.Struct(">HBBI")
#: The whole table, each entry as one number.
SLOTS = struct.Struct(f">{EXTENT_SLOTS}Q")
SLOTS_AT = 40
_EACH_SLOT = sum(1 << 64 * place for place in range(EXTENT_SLOTS_USED))
_SLOT_STEPS = sum(step << 64 * place for place, step in enumerate(reversed(range(EXTENT_SLOTS_USED))))

Buffer = Union[bytes, bytearray, memoryview]

_PIECE = 4096
_FULL = (1 << _PIECE) - 1
#: Half a KiB each. So many are a disk of 100 TiB that was written all over in another order than that of its clusters.
MAX_SCATTERED = 400_000


@dataclass(frozen=True)
class Device:
    """One disk (or the RAM state) in an archive; ``size`` in bytes."""

    dev_id: int
    name: str
    size: int

    @property
    def clusters(self) -> int:
        return -(-self.size // CLUSTER)


@dataclass(frozen=True)
class Header:
    """What an archive says about itself; ``ctime`` in seconds since the epoch."""

    uuid: bytes
    ctime: int
    configs: tuple[tuple[str, bytes], ...]
    devices: tuple[Device, ...]
    header_size: int

    def config(self, name: str) -> bytes | None:
        """Content of the first config of that name."""
        return next((data for config, data in self.configs if config == name), None)

    def device(self, name: str) -> Device | None:
        return next((device for device in self.devices if device.name == name), None)


def encode_slots(mask: int, dev_id: int, cluster: int, count: int) -> bytes:
    """Entries of ``count`` clusters in a row with one mask, for an extent's table; at most as many as writers use.

    As numbers of 64 bits they are a row, too. All of it is computed at once, as one long number: empty disks are
    millions of such entries.
    """
    first = int.from_bytes(SLOT.pack(mask, 0, dev_id, cluster), "big")
    return (first * _EACH_SLOT + _SLOT_STEPS).to_bytes(EXTENT_SLOTS_USED * SLOT.size, "big")[: count * SLOT.size]


def checksum(record: Buffer, where: slice) -> bytes:
    """MD5 of a header record whose checksum field (``where``) counts as zeros."""
    zeroed = bytearray(record)
    zeroed[where] = bytes(where.stop - where.start)
    # MD5 is what the format prescribes; it guards against accidents, not attacks.
    return hashlib.md5(zeroed, usedforsecurity=False).digest()


def mask_ranges(mask: int) -> list[tuple[int, int]]:
    """The set bits of a mask as ``(first, end)`` ranges of blocks, ascending."""
    ranges = []
    block = 0
    while mask >> block:
        if mask >> block & 1:
            end = block
            while mask >> end & 1:
                end += 1
            ranges.append((block, end))
            block = end
        else:
            block += 1
    return ranges


class Coverage:
    """Which clusters of each device were seen.

    What is complete takes next to no room. What is scattered takes a bit for each cluster around it; an archive that
    wants more than :data:`MAX_SCATTERED` such pieces is refused instead of filling memory.
    """

    def __init__(self) -> None:
        self._pieces: dict[tuple[int, int], int] = {}
        self._scattered = 0

    def add(self, dev_id: int, first: int, count: int) -> int | None:
        """Mark ``count`` clusters from ``first``; returns one that was marked before, or ``None`` if all is well.

        :raises IntegrityError: the clusters are scattered over too many places.
        """
        end = first + count
        while first < end:
            piece, at = divmod(first, _PIECE)
            take = min(end - first, _PIECE - at)
            bits = _FULL if take == _PIECE else (1 << take) - 1 << at
            before = self._pieces.get((dev_id, piece), 0)
            if before & bits:
                return piece * _PIECE + _lowest(before & bits)
            now = before | bits
            self._scattered += (now != _FULL) - (before > 0)
            if self._scattered > MAX_SCATTERED:
                raise IntegrityError("the clusters of the archive are scattered over too many places")
            self._pieces[dev_id, piece] = _FULL if now == _FULL else now
            first += take
        return None

    def first_gap(self, dev_id: int, total: int) -> int | None:
        """The lowest cluster below ``total`` that was never marked, or ``None``."""
        for piece in range(-(-total // _PIECE)):
            bits = self._pieces.get((dev_id, piece), 0)
            if bits != _FULL:
                gap = piece * _PIECE + _lowest(~bits)
                return gap if gap < total else None
        return None


def _lowest(bits: int) -> int:
    """Place of the lowest bit that is set."""
    return (bits & -bits).bit_length() - 1
