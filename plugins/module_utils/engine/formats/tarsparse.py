# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The maps of sparse files in tar archives.

GNU tar reads as many blocks of data as the map says, whatever the size in the header. A map that says something else
would make it take for headers what looks like data here.
"""

from __future__ import annotations

import re

BLOCK = 512
OLD_MAGIC = b"ustar  \0"
_NUMBER = re.compile(rb"[0-9]{1,19}")


def blocks(size: int) -> int:
    """How many blocks hold ``size`` bytes."""
    return -(-size // BLOCK)


class OldMap:
    """The map of GNU tar's old form: in the header itself, and in blocks behind it.

    :raises ValueError: the header is not of that form, or the map is not one.
    """

    def __init__(self, head: bytes) -> None:
        if head[257:265] != OLD_MAGIC:
            raise ValueError("a sparse file of an unknown form")
        self.data = 0
        self._ended = False
        self.more = self._take(head, 386, 4, head[482])

    def extend(self, block: bytes) -> None:
        """One more block of it."""
        self.more = self._take(block, 0, 21, block[504])

    def _take(self, block: bytes, at: int, count: int, more: int) -> bool:
        for start in range(at, at + count * 24, 24):
            field = block[start + 12 : start + 24]
            if not field[0]:
                self._ended = True
                break
            digits = field.strip(b" \0")
            if digits.strip(b"01234567") or not digits:
                raise ValueError("a sparse map that cannot be understood")
            self.data += blocks(int(digits, 8))
        if self._ended and more:
            raise ValueError("a sparse map that goes on behind its end")
        return bool(more)


class PaxMap:
    """The map of version 1.0, decimal numbers on lines, in the first blocks of the data.

    :ivar done: it is complete; :ivar data: blocks of data that it announces; :ivar read: blocks that it takes itself.
    """

    def __init__(self) -> None:
        self.done = False
        self.data = 0
        self.read = 0
        self._rest = b""
        self._numbers = 0
        self._last = -1

    def take(self, block: bytes) -> None:
        """The next block.

        :raises ValueError: this is no such map.
        """
        self.read += 1
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            if not _NUMBER.fullmatch(line):
                raise ValueError("a sparse map that cannot be understood")
            number = int(line)
            if self._last < 0:
                self._last = 2 * number
            else:
                self._numbers += 1
                self.data += 0 if self._numbers % 2 else blocks(number)
            if self._numbers == self._last:
                self.done = True
                return
        if len(self._rest) > 20:
            raise ValueError("a sparse map that cannot be understood")
