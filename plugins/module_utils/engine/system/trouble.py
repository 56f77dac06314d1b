# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors of the system in our terms: what was tried, on what path, why it failed, and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Iterator, TypeVar

from ..errors import HoldfastError

E = TypeVar("E", bound=HoldfastError)

_FULL = "free space, or inodes, there: `df -h {0}; df -i {0}`"
_NAME = "something else has that name, or one of a folder above it; look at it, and move it away"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "its file system is read-only: see `findmnt -T {0}` and dmesg, then remount it",
    errno.ENOENT: "it may have been removed, or its file system is not mounted: see `ls {0}`",
    errno.EIO: "the disk cannot be read or written: see dmesg",
    errno.EFBIG: "raise the limit for the size of files (ulimit -f, LimitFSIZE of the unit)",
    errno.EMFILE: "raise the limit for open files (ulimit -n, LimitNOFILE of the unit)",
    errno.ENFILE: "raise the system's limit for open files (fs.file-max)",
    errno.ENOMEM: "free memory, or raise its limit (ulimit -v, MemoryMax of the unit)",
    errno.EAGAIN: "raise the limit for processes (ulimit -u, TasksMax of the unit)",
    errno.ENOTDIR: _NAME,
    errno.EISDIR: _NAME,
    errno.EEXIST: _NAME,
    errno.ELOOP: _NAME,
}
_PERMISSION = (
    "see owner and mode of it and of the folders above it, lsattr, and what confines this process (AppArmor, SELinux,"
    " ReadWritePaths of the unit)"
)


class FileError(HoldfastError, OSError):
    """Something could not be done to a file; still an :class:`OSError` for whoever tells causes apart."""

    def __init__(self, what: str, path: str, cause: OSError) -> None:
        super().__init__(f"cannot {what} {path}: {cause.strerror or cause}", hint=os_error_hint(cause, path))
        self.errno, self.strerror, self.filename = cause.errno, cause.strerror, path


@contextlib.contextmanager
def tried(what: str, path: str) -> Iterator[None]:
    """Say of an error of the system in the block what was tried.

    :param what: a verb; :param path: what it was tried on.
    :raises FileError: instead of other errors of the system.
    """
    try:
        yield
    except FileError:
        raise
    except OSError as exc:
        raise FileError(what, path, exc) from exc


def refusal(kind: type[E], what: str, exc: OSError, path: str = "") -> E:
    """An error of that kind: what could not be done, why, and what to do.

    :param path: what it was tried on, where the error of the system does not say.
    """
    return kind(f"cannot {what}: {exc.strerror or exc}", hint=os_error_hint(exc, path))


def explained(exc: HoldfastError | OSError) -> HoldfastError:
    """An error of ours as it is, and one of the system that nobody expected with what is known of it."""
    if isinstance(exc, HoldfastError):
        return exc
    paths = " to ".join(os.fsdecode(name) for name in (exc.filename, exc.filename2) if isinstance(name, (str, bytes)))
    why = exc.strerror or str(exc) or type(exc).__name__
    return HoldfastError(f"the system refused to work with {paths}: {why}" if paths else why, hint=os_error_hint(exc))


def os_error_hint(exc: OSError, path: str = "") -> str:
    """What to do about an error of the system; may be empty."""
    if exc.errno in (errno.EACCES, errno.EPERM):
        return _PERMISSION if os.geteuid() == 0 else "run it as root: sudo on the node, become in a playbook"
    folder = path or (exc.filename if isinstance(exc.filename, str) else "")
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return _REMEDIES.get(exc.errno or 0, "").format(folder or "DIRECTORY")
