# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking at the frames of a seekable archive one by one, without reading all of it."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Iterator

from ..errors import IntegrityError, StorageError
from ..formats import seekable
from ..formats.seekable import Frame
from ..system.trouble import refusal
from .source import seek_table
from .zstd import frame_decompressor, library

_HEAD_BYTES = 18
"""Of a frame; its header is not longer."""


class FrameFile:
    """An archive with a seek table; a context manager.

    :ivar table: where each frame lies; ``None`` when the archive was written as one stream.
    :raises StorageError: the file cannot be read; :raises IntegrityError: it has a seek table that is damaged.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise refusal(StorageError, f"open {path}", exc, path) from exc
        try:
            self.table = seek_table(self._fd)
        except BaseException:
            os.close(self._fd)
            raise

    def check_heads(self) -> None:
        """Compare the table with what the head of each frame says.

        :raises IntegrityError: they do not fit.
        """
        zstandard = library()
        for frame in self._frames():
            head = os.pread(self._fd, _HEAD_BYTES, frame.offset)
            skippable = seekable.skippable_size(head)
            try:
                size = 0 if skippable is not None else zstandard.frame_content_size(head)
            except zstandard.ZstdError as exc:
                raise self._wrong(frame, f"its head cannot be understood: {exc}") from exc
            if size != frame.length or skippable not in (None, frame.size):
                raise self._wrong(frame, f"it says that it holds {size} bytes, the seek table {frame.length}")

    def last(self) -> bytes:
        """The content of the last frame that has any."""
        found = None
        for frame in self._frames():
            found = frame if frame.length else found
        return b"" if found is None else self._content(found)

    def index(self, magic: int, limit: int) -> bytes | None:
        """The skippable frame with that magic, if there is one of at most ``limit`` bytes."""
        for frame in self._frames():
            if not frame.length and frame.size <= limit:
                data = os.pread(self._fd, frame.size, frame.offset)
                if data[:4] == magic.to_bytes(4, "little"):
                    return data
        return None

    def _frames(self) -> Iterator[Frame]:
        return iter(()) if self.table is None else self.table.frames()

    def _content(self, frame: Frame) -> bytes:
        data = os.pread(self._fd, frame.size, frame.offset)
        return frame_decompressor()(data, frame.length, f"the frame at byte {frame.offset} of {self.path}")

    def _wrong(self, frame: Frame, why: str) -> IntegrityError:
        return IntegrityError(f"the frame at byte {frame.offset} of {self.path} is damaged: {why}")

    def __enter__(self) -> FrameFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
