# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that are either the old or the new version, never half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile

from .trouble import FileError, tried


def fsync_dir(path: str) -> None:
    """Make a rename or unlink inside ``path`` survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: str, data: bytes | str, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data``: temporary file beside it, fsync, rename, fsync of the folder.

    Parent folders are created. A symlink at ``path`` is replaced, not followed.

    :raises FileError: the old version, if there was one, is still there.
    """
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    with tried("write", path):
        _replace(path, raw, mode)


def _replace(path: str, raw: bytes, mode: int) -> None:
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=_temporary_prefix(path), dir=folder)
    try:
        with os.fdopen(fd, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    finally:
        # After the rename there is nothing of this name; on any way out before it, nothing may stay.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    fsync_dir(folder)


def remove_temporaries(path: str) -> None:
    """Remove what killed writers of ``path`` left beside it; nobody may be writing it now."""
    folder, prefix = os.path.dirname(path) or ".", _temporary_prefix(path)
    with tried("clean up beside", path), contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if name.startswith(prefix):
                os.unlink(os.path.join(folder, name))


def _temporary_prefix(path: str) -> str:
    return f".holdfast-{os.path.basename(path)}-"


def create_anew(path: str, mode: int) -> int:
    """A descriptor for writing a new file in a folder that others can write to, too.

    What has the name already, a link or a pipe perhaps, is removed and never followed.
    """
    with tried("create", path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def make_folders(path: str, mode: int = 0o777) -> None:
    """Create a folder and those above it, unless they are there."""
    with tried("create the folder", path):
        os.makedirs(path, mode=mode, exist_ok=True)


def read_small(path: str, limit: int) -> str | None:
    """The beginning of a file in such a folder, as :func:`read_text`; ``None`` also for what is no regular file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return None
        raise
    with os.fdopen(fd, "rb") as stream:
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        return stream.read(limit).decode("utf-8", "surrogateescape") if regular else None


def read_text(path: str) -> str | None:
    """The file's text, or ``None`` when it does not exist. Undecodable bytes survive a round trip.

    :raises FileError: it cannot be read.
    """
    try:
        with tried("read", path), open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except FileError as exc:
        if exc.errno != errno.ENOENT:
            raise
        return None
