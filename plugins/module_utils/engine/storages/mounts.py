# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is mounted where, and whether a folder answers at all."""

from __future__ import annotations

import os
import re
import stat
import threading
from typing import Iterator

from ..errors import StorageError
from ..system.process import run

REACH_SECONDS = 2.0
"""How long a folder may take to answer; a dead network mount would block for ever."""

MOUNTINFO = "/proc/self/mountinfo"


def mount_points() -> dict[str, str]:
    """Every mount point of this mount namespace with the type of its file system; the topmost mount wins."""
    return {point: kind for point, kind, _source in _mounts()}


def mounted_from(device: str) -> list[str]:
    """Where a block device is mounted in this mount namespace."""
    return [point for point, _kind, source in _mounts() if source == device]


def _mounts() -> Iterator[tuple[str, str, str]]:
    """Mount point, type and source of every mount, upper ones last."""
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            fields = line.split(" ")
            kind, source = fields[fields.index("-") + 1 :][:2]
            yield _unescape(fields[4]), kind, _unescape(source)


def is_mount_point(path: str) -> bool:
    """Whether something is mounted exactly on ``path`` (after resolving links)."""
    return os.path.realpath(path) in mount_points()


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
        source = os.stat([source for point, _kind, source in _mounts() if point == above][-1])
    except OSError:
        return None
    return _number(source.st_rdev) if stat.S_ISBLK(source.st_mode) else None


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def kind_of(path: str) -> str:
    """``dir``, ``other``, ``missing`` or ``unreachable`` (no answer within :data:`REACH_SECONDS`)."""
    answer: list[str] = []

    def look() -> None:
        if os.path.isdir(path):
            answer.append("dir")
        else:
            answer.append("other" if os.path.lexists(path) else "missing")

    # A daemon thread: when the mount hangs, it is left behind and does not keep the process from ending.
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    return answer[0] if answer else "unreachable"


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)
