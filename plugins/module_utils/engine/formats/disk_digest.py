# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One SHA-256 for the content of a disk, however large and empty it is.

The digest is the SHA-256 of the SHA-256s of all pieces of 64 KiB, the last one as short as it is. It depends on nothing
but the content. What is empty costs next to nothing, because all empty pieces have the same digest.
"""

from __future__ import annotations

import hashlib

from .vma_layout import Buffer

PIECE = 65536
_ZEROS = bytes(PIECE)
_ZERO_DIGEST = hashlib.sha256(_ZEROS).digest()
_MANY = 4096
_ZERO_DIGESTS = _ZERO_DIGEST * _MANY


class DiskDigest:
    """Takes a disk's content from its first byte to its last.

    :param size: of the disk in bytes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0
        self._root = hashlib.sha256()
        self._piece = hashlib.sha256()
        self._broken = False

    def add(self, offset: int, length: int, data: Buffer | None) -> None:
        """The next ``length`` bytes, zeros when ``data`` is ``None``. Other bytes than the next make it impossible."""
        if offset != self._at or self._broken:
            self._broken = True
            return
        view = None if data is None else memoryview(data)[:length]
        done = 0
        while done < length:
            filled = (self._at + done) % PIECE
            if filled or length - done < PIECE:
                step = min(PIECE - filled, length - done)
                self._piece.update(_ZEROS[:step] if view is None else view[done : done + step])
                if filled + step == PIECE:
                    self._close_piece()
            elif view is None:
                count = (length - done) // PIECE
                self._add_zeros(count)
                step = count * PIECE
            else:
                step = PIECE
                self._root.update(hashlib.sha256(view[done : done + step]).digest())
            done += step
        self._at += length

    def value(self) -> str | None:
        """The digest in hexadecimal; ``None`` when not all of the disk came, or not in order."""
        if self._broken or self._at != self._size:
            return None
        root = self._root.copy()
        if self._at % PIECE:
            root.update(self._piece.digest())
        return root.hexdigest()

    def _close_piece(self) -> None:
        self._root.update(self._piece.digest())
        self._piece = hashlib.sha256()

    def _add_zeros(self, count: int) -> None:
        for _time in range(count // _MANY):
            self._root.update(_ZERO_DIGESTS)
        self._root.update(_ZERO_DIGEST * (count % _MANY))
