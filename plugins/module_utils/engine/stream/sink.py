# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing an archive file: compression, bandwidth limit, flushed to disk at the end.

``zst`` archives are written as independent frames of a few MiB that threads compress in parallel, followed by a seek
table; ``gz`` and ``lzo`` go through the usual programs.
"""

from __future__ import annotations

import abc
import os
import subprocess
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Callable

from ..errors import StorageError, UsageError
from ..formats.seekable import SeekTable
from ..system.trouble import refusal
from .children import Child, close_input, compress_argv, pipe_size, stream_fd
from .files import Buffer, Flusher, cpu_count, fd_position, said_error, write_all, write_error
from .limit import Limiter
from .zstd import frame_compressor

FRAME_BYTES = 4 * 1024 * 1024
COMPRESSIONS = ("", "zst", "gz", "lzo")


class Sink(abc.ABC):
    """An archive being written; a context manager that completes it, or on an exception leaves it as it is.

    The caller removes what is left after a failure. Errors of the background work surface at the next call.
    """

    def __init__(self, fd: int, path: str, bwlimit_kib: int, on_written: Callable[[int], None] | None) -> None:
        self._fd = fd
        self.path = path
        self._limiter = Limiter(bwlimit_kib)
        self._on_written = on_written
        self._trailers: list[Callable[[], bytes]] = []
        self._closed = False
        self._flusher = Flusher(fd, path)

    @property
    @abc.abstractmethod
    def written(self) -> int:
        """Bytes of the archive file so far."""

    def write(self, buf: Buffer) -> None:
        """Take all of ``buf``, which may be reused after the call.

        :raises StorageError: the archive cannot be written, for example because the storage is full.
        """
        view = memoryview(buf).cast("B")
        if self._closed:
            raise ValueError("write to a closed sink")
        self._limiter.take(len(view))
        self._take(view)

    def add_trailer(self, build: Callable[[], bytes]) -> None:
        """Have ``build`` called when all data is written; its skippable zstd frames go behind the data.

        Other compressions have no place for such an index: there the call does nothing.
        """
        self._trailers.append(build)

    def close(self) -> None:
        """Complete the archive and flush it to disk.

        :raises StorageError: as :meth:`write`.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._finish()
            self._flusher.finish()
        finally:
            self._end()

    def abort(self) -> None:
        """Stop all work and let go of the file without completing it."""
        if not self._closed:
            self._closed = True
            self._end()

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _end(self) -> None:
        self._release()
        self._flusher.stop()
        os.close(self._fd)

    def _tell(self) -> None:
        if self._on_written is not None:
            self._on_written(self.written)

    @abc.abstractmethod
    def _take(self, view: memoryview) -> None:
        """Take all of ``view``."""

    @abc.abstractmethod
    def _finish(self) -> None:
        """Write what is left of the data, and the trailers."""

    @abc.abstractmethod
    def _release(self) -> None:
        """Stop helpers."""


class FrameSink(Sink):
    """Frames, compressed by ``transform`` in threads or (without one) as they are; one more thread writes them.

    A fixed set of frame buffers goes round, so a slow disk slows the caller down instead of filling memory.
    """

    def __init__(
        self,
        fd: int,
        path: str,
        bwlimit_kib: int,
        on_written: Callable[[int], None] | None,
        transform: Callable[[Buffer], bytes] | None,
        threads: int,
    ) -> None:
        super().__init__(fd, path, bwlimit_kib, on_written)
        self._transform = transform
        self._table = SeekTable()
        self._written = 0
        self._frame = bytearray(FRAME_BYTES)
        self._free: list[bytearray] = []
        self._spare = 2 * threads + 1
        self._fill = 0
        self._frames = 0
        self._pending: deque[Future[bytearray]] = deque()
        self._workers = ThreadPoolExecutor(threads, "compress")
        self._writer = ThreadPoolExecutor(1, "write")

    @property
    def written(self) -> int:
        return self._written

    def _take(self, view: memoryview) -> None:
        self._collect()
        while view:
            part = view[: FRAME_BYTES - self._fill]
            self._frame[self._fill : self._fill + len(part)] = part
            self._fill += len(part)
            view = view[len(part) :]
            if self._fill == FRAME_BYTES:
                self._dispatch()

    def _dispatch(self) -> None:
        """Hand the current frame to the workers and find an empty one, waiting for the oldest if none is left."""
        frame, length = self._frame, self._fill
        self._fill = 0
        self._frames += 1
        if self._transform is None:
            self._pending.append(self._writer.submit(self._emit, frame, length, None))
        else:
            job = self._workers.submit(self._transform, memoryview(frame)[:length])
            self._pending.append(self._writer.submit(self._emit, frame, length, job))
        self._collect()
        if self._free:
            self._frame = self._free.pop()
        elif self._spare:
            self._spare -= 1
            self._frame = bytearray(FRAME_BYTES)
        else:
            self._frame = self._pending.popleft().result()
            self._tell()

    def _collect(self) -> None:
        """Take back the buffers of frames that are written, and raise what went wrong."""
        while self._pending and self._pending[0].done():
            self._free.append(self._pending.popleft().result())
            self._tell()

    def _emit(self, frame: bytearray, length: int, job: Future[bytes] | None) -> bytearray:
        """In the writer's thread: put one frame into the file, in order."""
        data: Buffer = job.result() if job is not None else memoryview(frame)[:length]
        self._put(data)
        self._table.add(len(data), length)
        return frame

    def _put(self, data: Buffer) -> None:
        try:
            write_all(self._fd, data)
        except OSError as exc:
            raise write_error(self.path, self._written, exc) from exc
        self._written += len(data)
        self._flusher.wrote(self._written)

    def _finish(self) -> None:
        # Even an empty archive needs one frame to be a zstd file.
        if self._fill or not self._frames:
            self._dispatch()
        while self._pending:
            self._pending.popleft().result()
        if self._transform is not None:
            for build in self._trailers:
                data = build()
                self._put(data)
                self._table.add(len(data), 0)
            self._put(self._table.encode())
        self._tell()

    def _release(self) -> None:
        for job in self._pending:
            job.cancel()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._writer.shutdown(wait=True, cancel_futures=True)


class ChildSink(Sink):
    """A compressor program that writes to the archive file itself."""

    def __init__(
        self, fd: int, path: str, bwlimit_kib: int, on_written: Callable[[int], None] | None, argv: list[str]
    ) -> None:
        super().__init__(fd, path, bwlimit_kib, on_written)
        self._child = Child(argv, stdin=subprocess.PIPE, stdout=fd)
        self._pipe = stream_fd(self._child.process.stdin)
        pipe_size(self._pipe, 1 << 20)

    @property
    def written(self) -> int:
        return fd_position(self._fd)

    def _take(self, view: memoryview) -> None:
        try:
            write_all(self._pipe, view)
        except BrokenPipeError:
            raise self._failure(self._child.wait()) from None
        self._flusher.wrote(self.written)
        self._tell()

    def _finish(self) -> None:
        close_input(self._child)
        trouble = self._child.wait()
        if trouble:
            raise self._failure(trouble)
        self._tell()

    def _failure(self, trouble: str) -> StorageError:
        return write_error(self.path, self.written, said_error(f"{self._child.name}: {trouble}"))

    def _release(self) -> None:
        self._child.kill()


def open_sink(
    target: str | int,
    compression: str,
    *,
    threads: int = 0,
    level: int = 1,
    bwlimit_kib: int = 0,
    on_written: Callable[[int], None] | None = None,
) -> Sink:
    """Start writing an archive.

    :param target: path of the file (made or emptied; readable by its owner only), or an open descriptor, of which the
        sink uses a duplicate.
    :param compression: ``''``, ``zst``, ``gz`` or ``lzo``.
    :param threads: compressing threads; 0 stands for half of the processors, as vzdump's ``zstd: 0``.
    :param level: of zstd.
    :param bwlimit_kib: KiB per second of uncompressed data; 0 means no limit.
    :param on_written: told how large the archive file is, from the thread that calls :meth:`Sink.write`.
    :raises DependencyError: the library or program for this compression is missing.
    :raises StorageError: the file cannot be made.
    """
    if compression not in COMPRESSIONS:
        raise UsageError(f"cannot write archives with compression {compression!r}", hint="use zst, gz, lzo or none")
    workers = threads if threads > 0 else (cpu_count() + 1) // 2
    transform = frame_compressor(level) if compression == "zst" else None
    if isinstance(target, int):
        path, fd = f"descriptor {target}", os.dup(target)
    else:
        path = target
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            raise refusal(StorageError, f"create {path}", exc, path) from exc
    if compression in ("", "zst"):
        return FrameSink(fd, path, bwlimit_kib, on_written, transform, workers)
    try:
        return ChildSink(fd, path, bwlimit_kib, on_written, compress_argv(compression, threads))
    except BaseException:
        os.close(fd)
        raise
