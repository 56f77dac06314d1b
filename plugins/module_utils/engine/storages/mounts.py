# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is mounted where, and whether a folder answers at all."""

from __future__ import annotations

import os
import re
import threading

from ..errors import StorageError
from ..system.process import run

REACH_SECONDS = 2.0
"""How long a folder may take to answer; a dead network mount would block for ever."""

MOUNTINFO = "/proc/self/mountinfo"


def mount_points() -> dict[str, str]:
    """Every mount point of this mount namespace with the type of its file system; the topmost mount wins."""
    found: dict[str, str] = {}
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            fields = line.split(" ")
            found[_unescape(fields[4])] = fields[fields.index("-") + 1]
    return found


def mounted_from(device: str) -> list[str]:
    """Where a block device is mounted in this mount namespace."""
    found = []
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            fields = line.split(" ")
            if fields[fields.index("-") + 2] == device:
                found.append(_unescape(fields[4]))
    return found


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
    points = mount_points()
    current = os.path.realpath(path)
    while current not in points and current != "/":
        current = os.path.dirname(current)
    return points.get(current, "")


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
