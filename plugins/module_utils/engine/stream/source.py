# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading an archive file: decompression by its name's ending, damage found, bandwidth limit.

``zst`` archives with a seek table are decompressed by several threads at once; other archives run through the usual
programs, which check the data's own checksums.
"""

from __future__ import annotations

import abc
import os
import subprocess
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Iterator, Union

from ..errors import IntegrityError, StorageError
from ..formats import seekable
from ..formats.seekable import Frame, SeekTable
from ..system.trouble import refusal
from .children import Child, decompress_argv, pipe_size, stream_fd
from .files import CHUNK, cpu_count
from .limit import Limiter
from .zstd import WrongTable, frame_decompressor

Writable = Union[bytearray, memoryview]


class Source(abc.ABC):
    """An archive's uncompressed bytes from first to last; a context manager.

    :ivar total: how many there are, as far as the archive says; 0 when that is not known.
    """

    def __init__(self, fd: int, path: str, bwlimit_kib: int, total: int = 0) -> None:
        self._fd = fd
        self.path = path
        self.total = total
        self.position = 0
        self._limiter = Limiter(bwlimit_kib)
        self._closed = False

    def readinto(self, buffer: Writable) -> int:
        """Fill ``buffer``; less than its size only at the end of the archive.

        :raises IntegrityError: the archive is damaged or cut short.
        :raises StorageError: the file cannot be read.
        """
        view = memoryview(buffer).cast("B")
        done = 0
        try:
            while done < len(view):
                got = self._some(view[done:])
                if not got:
                    break
                done += got
        except OSError as exc:
            raise refusal(StorageError, f"read {self.path} at byte {self.position + done}", exc, self.path) from exc
        self.position += done
        self._limiter.take(done)
        return done

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer only at the end. Errors as :meth:`readinto`."""
        buffer = bytearray(size)
        got = self.readinto(buffer)
        return bytes(buffer[:got]) if got < size else bytes(buffer)

    def skip(self, size: int) -> int:
        """Pass over the next ``size`` bytes, without reading them where that is possible; fewer only at the end."""
        done = 0
        while done < size:
            got = len(self.read(min(CHUNK, size - done)))
            if not got:
                break
            done += got
        return done

    def close(self) -> None:
        """Let go of the file; what was not read is not checked."""
        if not self._closed:
            self._closed = True
            self._release()
            os.close(self._fd)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abc.abstractmethod
    def _some(self, view: memoryview) -> int:
        """Read some bytes; 0 at the end."""

    def _release(self) -> None:  # noqa: B027
        """Stop helpers, where there are any."""


class PlainSource(Source):
    """An archive without compression."""

    def skip(self, size: int) -> int:
        step = max(0, min(size, os.fstat(self._fd).st_size - self.position))
        self.position = os.lseek(self._fd, step, os.SEEK_CUR)
        return step

    def _some(self, view: memoryview) -> int:
        return os.readv(self._fd, [view])


class FrameSource(Source):
    """Frames of a seekable archive, decompressed ahead in threads.

    Where the seek table turns out to be wrong the frames are read on as a stream, which does not need it.
    """

    def __init__(self, fd: int, path: str, bwlimit_kib: int, table: SeekTable) -> None:
        super().__init__(fd, path, bwlimit_kib, table.stream_bytes)
        self._decompress = frame_decompressor()
        threads = cpu_count()
        self._pool = ThreadPoolExecutor(threads, "decompress")
        self._frames: Iterator[Frame] = table.frames()
        # Frames in flight are bounded by number and by size, because a hostile table may name large ones.
        self._ahead = min(threads + 1, max(1, 256 * 1024 * 1024 // max(1, table.longest)))
        self._pending: deque[Future[bytes]] = deque()
        self._current = memoryview(b"")
        self._given = 0
        self._stream: ChildSource | None = None

    def _some(self, view: memoryview) -> int:
        try:
            while not self._current and self._stream is None:
                self._fill()
                if not self._pending:
                    return 0
                self._current = memoryview(self._pending.popleft().result())
                self._fill()
        except WrongTable:
            self._stream = self._as_stream()
        if self._stream is not None:
            return self._stream.readinto(view)
        part = self._current[: len(view)]
        view[: len(part)] = part
        self._current = self._current[len(part) :]
        self._given += len(part)
        return len(part)

    def _as_stream(self) -> ChildSource:
        """The rest of the archive, read from its start up to where this came."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        stream = ChildSource(os.dup(self._fd), self.path, 0, "zst")
        try:
            while stream.position < self._given:
                if not stream.read(min(CHUNK, self._given - stream.position)):
                    raise IntegrityError(f"{self.path} is damaged: it ends at byte {stream.position} of its content")
        except BaseException:
            stream.close()
            raise
        return stream

    def _fill(self) -> None:
        while len(self._pending) < self._ahead:
            frame = next(self._frames, None)
            if frame is None:
                return
            self._pending.append(self._pool.submit(self._load, frame))

    def _load(self, frame: Frame) -> bytes:
        what = f"the frame at byte {frame.offset} of {self.path}"
        # An index may be large; its head is enough to see that it is one, and nothing of it is data.
        skippable = seekable.skippable_size(os.pread(self._fd, seekable.FRAME_HEAD.size, frame.offset))
        if skippable is not None:
            if frame.length or skippable != frame.size:
                raise WrongTable(f"{what} holds no data, but the seek table says {frame.length} bytes")
            return b""
        if frame.size > seekable.MAX_FRAME_BYTES:
            raise WrongTable(f"{what} has {frame.size} bytes, more than {seekable.MAX_FRAME_BYTES}")
        data = os.pread(self._fd, frame.size, frame.offset)
        if len(data) != frame.size:
            raise IntegrityError(f"{what} is cut short: {len(data)} of {frame.size} bytes")
        return self._decompress(data, frame.length, what)

    def _release(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._stream is not None:
            self._stream.close()


class ChildSource(Source):
    """A decompressor program that reads the archive file itself."""

    def __init__(self, fd: int, path: str, bwlimit_kib: int, compression: str) -> None:
        super().__init__(fd, path, bwlimit_kib)
        self._child = Child(decompress_argv(compression), stdin=fd, stdout=subprocess.PIPE)
        self._pipe = stream_fd(self._child.process.stdout)
        pipe_size(self._pipe, 1 << 20)
        self._ended = False

    def _some(self, view: memoryview) -> int:
        got = os.readv(self._pipe, [view])
        if not got and not self._ended:
            self._ended = True
            trouble = self._child.wait()
            if trouble:
                raise IntegrityError(f"{self.path} is damaged or cut short: {self._child.name}: {trouble}")
        return got

    def _release(self) -> None:
        self._child.kill()


def seek_table(fd: int) -> SeekTable | None:
    """The seek table of an open zstd archive; ``None`` if it has none.

    :raises IntegrityError: it has one that is damaged.
    """
    size = os.fstat(fd).st_size
    footer = os.pread(fd, seekable.FOOTER.size, max(0, size - seekable.FOOTER.size))
    length = seekable.table_size(footer)
    if length is None:
        return None
    if length > size:
        raise IntegrityError("the seek table at the end of the archive is damaged: it is larger than the file")
    return seekable.parse_table(os.pread(fd, length, size - length), size)


def _seek_table_or_none(fd: int) -> SeekTable | None:
    """Without a good table the frames are complete; read as a stream, everything in them is still checked."""
    try:
        return seek_table(fd)
    except IntegrityError:
        return None


def open_source(path: str, bwlimit_kib: int = 0) -> Source:
    """Start reading an archive; the compression follows from the ending of ``path``.

    :param bwlimit_kib: KiB per second of uncompressed data; 0 means no limit.
    :raises StorageError: the file cannot be opened.
    :raises DependencyError: the library or program for this compression is missing.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise refusal(StorageError, f"open {path}", exc, path) from exc
    try:
        suffix = os.path.splitext(path)[1][1:]
        if suffix == "zst":
            table = _seek_table_or_none(fd)
            if table is not None:
                return FrameSource(fd, path, bwlimit_kib, table)
        if suffix in ("zst", "gz", "lzo"):
            return ChildSource(fd, path, bwlimit_kib, suffix)
        return PlainSource(fd, path, bwlimit_kib, os.fstat(fd).st_size)
    except BaseException:
        os.close(fd)
        raise
