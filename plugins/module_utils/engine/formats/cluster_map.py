# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where each cluster lies in a VMA archive: an index in a skippable zstd frame in front of the seek table.

The frame's magic is 0x184D2A5D. Its content is ``HFCM``, a version byte (1), three zero bytes, then a zlib stream of
20-byte records, big endian: device id (u8), zero (u8), mask (u16), first cluster (u32), number of clusters (u32),
offset in the uncompressed archive (u64). Records of several clusters have the mask 0 or 0xffff and lie back to back.
The index is a convenience: readers that want certainty read the archive itself.
"""

from __future__ import annotations

import bisect
import struct
import zlib
from typing import Iterator

from ..errors import IntegrityError
from .seekable import FRAME_HEAD, skippable_frame
from .vma_layout import BLOCK, CLUSTER, FULL_MASK, Coverage, Header

MAGIC = 0x184D2A5D
_HEAD = b"HFCM\x01\0\0\0"
_RECORD = struct.Struct(">BBHIIQ")
#: Largest index that is written or read; beyond it the archive goes without.
MAX_BYTES = 256 * 1024 * 1024
_MAX_RECORDS = 32 * 1024 * 1024
_STEP = 1024 * 1024


class ClusterMapBuilder:
    """Collects the runs that a VMA writer reports; memory stays small because records are compressed at once."""

    def __init__(self) -> None:
        self._compress = zlib.compressobj(1)
        self._parts = bytearray(_HEAD)
        self._count = 0
        self._last: list[int] | None = None

    def add(self, dev_id: int, first: int, count: int, mask: int, offset: int) -> None:
        last = self._last
        if last is not None and last[0] == dev_id and last[1] + last[2] == first and last[3] == mask:
            joins = mask == 0 or (mask == FULL_MASK and last[4] + last[2] * CLUSTER == offset)
            if joins:
                last[2] += count
                return
        self._write_last()
        self._last = [dev_id, first, count, mask, offset]

    def frame(self) -> bytes:
        """The index as a skippable frame; empty when it became too large to be useful."""
        self._write_last()
        self._last = None
        self._parts += self._compress.flush()
        if len(self._parts) > MAX_BYTES or self._count > _MAX_RECORDS:
            return b""
        return skippable_frame(MAGIC, bytes(self._parts))

    def _write_last(self) -> None:
        if self._last is not None and len(self._parts) <= MAX_BYTES:
            dev_id, first, count, mask, offset = self._last
            self._parts += self._compress.compress(_RECORD.pack(dev_id, 0, mask, first, count, offset))
            self._count += 1


Record = tuple[int, int, int, int, int]
"""Device id, first cluster, number of clusters, mask, offset of the payload in the uncompressed archive."""


def read_map(frame: bytes) -> Iterator[Record]:
    """The records of an index in the order of the archive, unpacked piece by piece.

    :raises IntegrityError: the frame is not such an index, or damaged.
    """
    magic, length = FRAME_HEAD.unpack_from(frame) if len(frame) >= FRAME_HEAD.size else (0, 0)
    body = frame[FRAME_HEAD.size :]
    if magic != MAGIC or length != len(body) or body[: len(_HEAD)] != _HEAD:
        raise IntegrityError("the cluster map of the archive is damaged: it does not start as one")
    unpack = zlib.decompressobj()
    packed, rest, count = body[len(_HEAD) :], b"", 0
    while not unpack.eof:
        try:
            raw = rest + unpack.decompress(packed, _STEP)
        except zlib.error as exc:
            raise IntegrityError(f"the cluster map of the archive is damaged: {exc}") from exc
        packed = unpack.unconsumed_tail
        whole = len(raw) - len(raw) % _RECORD.size
        rest = raw[whole:]
        count += whole // _RECORD.size
        if count > _MAX_RECORDS or (not whole and not packed and not unpack.eof):
            raise IntegrityError("the cluster map of the archive is damaged: it is cut short or too large")
        for dev_id, _zero, mask, first, clusters, offset in _RECORD.iter_unpack(raw[:whole]):
            yield dev_id, first, clusters, mask, offset
    if rest:
        raise IntegrityError("the cluster map of the archive is damaged: it is cut short")


def check_map(frame: bytes, header: Header, stream_bytes: int) -> None:
    """Whether an index has every cluster of every disk once, at a place within the archive.

    :param stream_bytes: of the uncompressed archive.
    :raises IntegrityError: it has not, or is damaged.
    """
    devices = {device.dev_id: device for device in header.devices}
    seen = Coverage()
    for dev_id, first, count, mask, offset in read_map(frame):
        device = devices.get(dev_id)
        if device is None or not count or first + count > device.clusters:
            raise IntegrityError(f"the cluster map of the archive names cluster {first} of the unknown device {dev_id}")
        payload = bin(mask).count("1") * BLOCK * count
        if not header.header_size <= offset <= stream_bytes - payload:
            raise IntegrityError(f"the cluster map of the archive has cluster {first} of {device.name} behind its end")
        twice = seen.add(dev_id, first, count)
        if twice is not None:
            raise IntegrityError(f"the cluster map of the archive has cluster {twice} of {device.name} twice")
    for device in header.devices:
        gap = seen.first_gap(device.dev_id, device.clusters)
        if gap is not None:
            raise IntegrityError(f"the cluster map of the archive lacks cluster {gap} of {device.name}")


class ClusterMap:
    """A parsed index.

    :raises IntegrityError: the frame is not such an index.
    """

    def __init__(self, frame: bytes) -> None:
        self._runs = sorted(read_map(frame))

    def __iter__(self) -> Iterator[tuple[int, int, int, int, int]]:
        """``(dev_id, first cluster, count, mask, offset)`` by device and cluster."""
        return iter(self._runs)

    def find(self, dev_id: int, cluster: int) -> tuple[int, int] | None:
        """``(mask, offset of its payload in the uncompressed archive)`` of a cluster, ``None`` if it is not listed."""
        at = bisect.bisect_right(self._runs, (dev_id, cluster, 1 << 33, 0, 0)) - 1
        if at < 0:
            return None
        owner, first, count, mask, offset = self._runs[at]
        if owner != dev_id or cluster >= first + count:
            return None
        return mask, offset + (cluster - first) * CLUSTER if mask == FULL_MASK else offset
