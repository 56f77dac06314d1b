# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is mounted where, and whether a folder answers at all."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from typing import Iterator

from ..errors import StorageError
from ..system.process import Completed, run

REACH_SECONDS = 10.0
"""How long a folder may take to answer: a disk that wakes up needs some seconds, a dead mount would block for ever."""

NETWORK_FILESYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.glusterfs", "fuse.sshfs")
"""Those whose disks are other machines', which may be gone while somebody writes."""

MOUNTINFO = "/proc/self/mountinfo"


@dataclass(frozen=True)
class Mounted:
    """One mount of this mount namespace."""

    point: str
    type: str
    source: str


@dataclass(frozen=True)
class Space:
    """Bytes of a file system altogether, and those that may still be written."""

    total: int
    free: int


def mount_table() -> Iterator[Mounted]:
    """Every mount of this mount namespace; later ones may lie over earlier ones."""
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            fields = line.split(" ")
            kind, source = fields[fields.index("-") + 1 :][:2]
            yield Mounted(_unescape(fields[4]), kind, _unescape(source))


def mount_points() -> dict[str, str]:
    """Every mount point of this mount namespace with the type of its file system; the topmost mount wins."""
    return {one.point: one.type for one in mount_table()}


def mounted_from(device: str) -> list[str]:
    """Where a block device is mounted in this mount namespace."""
    return [one.point for one in mount_table() if one.source == device]


def is_mount_point(path: str) -> bool:
    """Whether something is mounted exactly on ``path`` (after resolving links)."""
    return os.path.realpath(path) in mount_points()


def mount_point(path: str) -> str:
    """The path as the table of mounts names it, without asking what may be mounted there: its server may be gone."""
    folder, last = os.path.split(path)
    return os.path.join(os.path.realpath(folder), last)


def unmount(path: str) -> None:
    """Unmount what is mounted exactly on ``path``; harmless when nothing is.

    :raises StorageError: it is in use.
    """
    if is_mount_point(path):
        run(["umount", "--", path], timeout=60, error=StorageError, hint=f"umount {path}")


def mounts_below(path: str) -> list[str]:
    """Mount points strictly below ``path``; removing the tree would reach into them."""
    prefix = os.path.realpath(path).rstrip("/") + "/"
    return sorted(point for point in mount_points() if point.startswith(prefix))


def filesystem_type(path: str) -> str:
    """Type of the file system that holds ``path`` (``ext4``, ``btrfs``, ``nfs4``, ...)."""
    return mount_points().get(_mount_point_above(path), "")


def _mount_point_above(path: str) -> str:
    points = mount_points()
    current = os.path.realpath(path)
    while current not in points and current != "/":
        current = os.path.dirname(current)
    return current


def device_of(path: str) -> str | None:
    """Number (``8:1``) of the block device that a path lies on, or is; ``None`` when there is none, or it is not told.

    File systems with several devices have a number of their own: the one that was mounted is taken then.
    """
    try:
        status = os.stat(path)
        if stat.S_ISBLK(status.st_mode):
            return _number(status.st_rdev)
        if os.major(status.st_dev):
            return _number(status.st_dev)
        above = _mount_point_above(path)
        source = os.stat([one.source for one in mount_table() if one.point == above][-1])
    except OSError:
        return None
    return _number(source.st_rdev) if stat.S_ISBLK(source.st_mode) else None


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def kind_of(path: str) -> str:
    """``dir``, ``other`` or ``missing``.

    :raises StorageError: it does not answer within :data:`REACH_SECONDS`, or only with an error.
    """
    done = _stat(path, "--dereference", "--format=%F")
    if done.returncode == 0:
        return "dir" if done.stdout.strip() == "directory" else "other"
    if any(os.strerror(code) in done.stderr for code in (errno.ENOENT, errno.ENOTDIR)):
        return "other" if os.path.lexists(path) else "missing"
    raise _no_answer(path, done)


def space(path: str) -> Space:
    """Room of the file system that holds ``path``. A network file system asks its server for that.

    :raises StorageError: it does not answer within :data:`REACH_SECONDS`, or only with an error.
    """
    done = _stat(path, "--file-system", "--format=%S %b %a")
    if done.returncode:
        raise _no_answer(path, done)
    size, total, free = map(int, done.stdout.split())
    return Space(total * size, free * size)


def _stat(path: str, *options: str) -> Completed:
    """Asked by a program of its own: one that hangs in a dead mount is left behind."""
    try:
        return run(["stat", *options, "--", path], check=False, timeout=REACH_SECONDS, error=StorageError)
    except StorageError as exc:
        raise StorageError(f"{path} does not answer within {REACH_SECONDS:g} s") from exc


def _no_answer(path: str, done: Completed) -> StorageError:
    return StorageError(f"{path} cannot be accessed: {done.stderr.strip().rpartition(': ')[2]}")


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)
