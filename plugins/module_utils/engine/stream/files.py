# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What writing and reading archive files share: complete writes, and errors that say what happened."""

from __future__ import annotations

import errno
import os
import stat
from typing import Union

from ..errors import StorageError

Buffer = Union[bytes, bytearray, memoryview]

#: Bytes moved at a time between pipes and archives.
CHUNK = 1024 * 1024


def write_all(fd: int, data: Buffer) -> None:
    """Write all of ``data``, however many calls that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_error(path: str, written: int, exc: OSError) -> StorageError:
    """The error for a failed write of an archive that has ``written`` bytes so far."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(
            f"storage full while writing {path} after {written} bytes",
            hint="free space there, or let prune-backups remove old archives",
        )
    return StorageError(f"cannot write {path} after {written} bytes: {exc.strerror}")


def fd_position(fd: int) -> int:
    """How far a descriptor (shared with a child process or not) has come; 0 if it cannot tell."""
    try:
        return os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return 0


def flush_to_disk(fd: int) -> None:
    """``fsync`` for files; pipes and terminals have nothing to flush."""
    if stat.S_ISREG(os.fstat(fd).st_mode) or stat.S_ISBLK(os.fstat(fd).st_mode):
        os.fsync(fd)


def cpu_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))
