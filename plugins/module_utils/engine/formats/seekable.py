# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The zstd seekable format: independent frames followed by a table of their sizes in a skippable frame.

Any zstd reader passes over skippable frames, so such an archive is an ordinary ``.zst`` to everybody else. Numbers
are little endian. Checksums are those of the frames themselves; the table holds none.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import Iterator

from ..errors import IntegrityError

SKIPPABLE_FIRST = 0x184D2A50
SEEK_TABLE_MAGIC = 0x184D2A5E
SEEKABLE_MAGIC = 0x8F92EAB1
FRAME_MAGIC = 0xFD2FB528
FRAME_HEAD = struct.Struct("<II")
FOOTER = struct.Struct("<IBI")
#: The format allows eight times as many; a table of these takes 128 MiB, and stands for 64 TiB in frames of 4 MiB.
MAX_FRAMES = 0x1000000
#: Largest decompressed frame accepted for random access; the writer makes them much smaller.
MAX_FRAME_BYTES = 64 * 1024 * 1024
_CHECKSUM_FLAG = 0x80
_RESERVED_FLAGS = 0x7C


@dataclass(frozen=True)
class Frame:
    """Where a frame lies in the file and in the decompressed stream; ``length`` 0 for a skippable frame."""

    offset: int
    size: int
    start: int
    length: int


class SeekTable:
    """Sizes of all frames in file order."""

    def __init__(self) -> None:
        self._sizes = array("I")
        self._lengths = array("I")

    def add(self, size: int, length: int) -> None:
        """Append a frame of ``size`` bytes in the file and ``length`` bytes decompressed."""
        self._sizes.append(size)
        self._lengths.append(length)

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def file_bytes(self) -> int:
        """Bytes of all frames in the file, the table itself not counted."""
        return sum(self._sizes)

    @property
    def stream_bytes(self) -> int:
        return sum(self._lengths)

    @property
    def longest(self) -> int:
        return max(self._lengths, default=0)

    @property
    def largest(self) -> int:
        """Bytes in the file of the largest frame that holds data."""
        return max((size for size, length in zip(self._sizes, self._lengths) if length), default=0)

    def frames(self) -> Iterator[Frame]:
        offset = start = 0
        for size, length in zip(self._sizes, self._lengths):
            yield Frame(offset, size, start, length)
            offset += size
            start += length

    def encode(self) -> bytes:
        """The table as the skippable frame that ends the file."""
        body = bytearray()
        for size, length in zip(self._sizes, self._lengths):
            body += FRAME_HEAD.pack(size, length)
        body += FOOTER.pack(len(self), 0, SEEKABLE_MAGIC)
        return FRAME_HEAD.pack(SEEK_TABLE_MAGIC, len(body)) + bytes(body)


def skippable_frame(magic: int, body: bytes) -> bytes:
    """``body`` as a frame that zstd readers pass over; ``magic`` is 0x184D2A50 to 0x184D2A5F."""
    return FRAME_HEAD.pack(magic, len(body)) + body


def skippable_size(head: bytes) -> int | None:
    """Size of a whole skippable frame, from its first 8 bytes; ``None`` if it holds data (or is cut short)."""
    if len(head) < FRAME_HEAD.size:
        return None
    magic, length = FRAME_HEAD.unpack_from(head)
    return FRAME_HEAD.size + int(length) if magic & 0xFFFFFFF0 == SKIPPABLE_FIRST else None


def table_size(footer: bytes) -> int | None:
    """Bytes of the whole seek table frame, from the last 9 bytes of a file; ``None`` if they are no such footer."""
    if len(footer) != FOOTER.size:
        return None
    frames, flags, magic = FOOTER.unpack(footer)
    if magic != SEEKABLE_MAGIC or flags & _RESERVED_FLAGS or frames > MAX_FRAMES:
        return None
    return FRAME_HEAD.size + int(frames) * (12 if flags & _CHECKSUM_FLAG else 8) + FOOTER.size


def parse_table(raw: bytes, file_size: int) -> SeekTable:
    """The seek table from its frame, which is the end of a file of ``file_size`` bytes.

    :raises IntegrityError: it does not describe that file; the frames can still be read as a stream.
    """
    footer = raw[len(raw) - FOOTER.size :]
    if table_size(footer) != len(raw):
        raise IntegrityError("the seek table at the end of the archive is damaged: its size does not match")
    magic, length = FRAME_HEAD.unpack_from(raw)
    if magic != SEEK_TABLE_MAGIC or length != len(raw) - FRAME_HEAD.size:
        raise IntegrityError("the seek table at the end of the archive is damaged: it does not start as it ends")
    count, flags, _magic = FOOTER.unpack(footer)
    step = 12 if flags & _CHECKSUM_FLAG else 8
    table = SeekTable()
    for at in range(FRAME_HEAD.size, FRAME_HEAD.size + count * step, step):
        table.add(*FRAME_HEAD.unpack_from(raw, at))
    if table.file_bytes + len(raw) != file_size:
        raise IntegrityError("the seek table at the end of the archive is damaged: it describes another file size")
    longest = max(table.longest, table.largest)
    if longest > MAX_FRAME_BYTES:
        raise IntegrityError(f"the seek table names a frame of {longest} bytes, more than {MAX_FRAME_BYTES}")
    return table
