# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What writing and reading archive files share: complete writes, and errors that say what happened."""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Union

from ..errors import StorageError

Buffer = Union[bytes, bytearray, memoryview]

#: Bytes moved at a time between pipes and archives.
CHUNK = 1024 * 1024
#: Bytes after which a growing file is written to disk.
FLUSH_BYTES = 32 * CHUNK


def write_all(fd: int, data: Buffer) -> None:
    """Write all of ``data``, however many calls that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def said_error(said: str) -> OSError:
    """What a program said in the C locale when it could not write."""
    code = next((code for code in _FULL if os.strerror(code).lower() in said.lower()), errno.EIO)
    return OSError(code, said)


def write_error(path: str, written: int, exc: OSError) -> StorageError:
    """The error for a failed write of an archive that has ``written`` bytes so far."""
    if exc.errno in _FULL:
        return StorageError(
            f"storage full while writing {path} after {written} bytes",
            hint="free space there, or let prune-backups remove old archives",
        )
    return StorageError(
        f"cannot write {path} after {written} bytes: {exc.strerror}",
        hint="check the disk, or the server that the folder is mounted from; the next run removes what is left",
    )


def fd_position(fd: int) -> int:
    """How far a descriptor (shared with a child process or not) has come; 0 if it cannot tell."""
    try:
        return os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return 0


class Flusher:
    """Has a file written to disk while it grows: what is left for the end is little, and memory holds little of it.

    :param fd: of a file or block device, open as long as this is; others have nothing to flush.
    :param path: for messages.
    """

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self._worth = stat.S_ISREG(os.fstat(fd).st_mode) or stat.S_ISBLK(os.fstat(fd).st_mode)
        self._pool = ThreadPoolExecutor(1, "flush")
        self._written = 0
        self._flushed = 0
        self._job: Future[None] | None = None

    def wrote(self, total: int) -> None:
        """``total`` bytes are written by now.

        :raises StorageError: earlier ones did not get to the disk.
        """
        self._written = total
        ready = self._job is None or self._job.done()
        if self._worth and ready and self._written - self._flushed >= FLUSH_BYTES:
            self._wait()
            self._flushed = self._written
            self._job = self._pool.submit(os.fdatasync, self._fd)

    def finish(self) -> None:
        """Return when all of the file is on disk.

        :raises StorageError: it does not get there.
        """
        self._wait()
        if self._worth:
            self._job = self._pool.submit(os.fsync, self._fd)
            self._wait()

    def stop(self) -> None:
        """End the work in the background; the file may be closed then."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _wait(self) -> None:
        if self._job is not None:
            try:
                self._job.result()
            except OSError as exc:
                raise write_error(self._path, self._written, exc) from exc


def cpu_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))
