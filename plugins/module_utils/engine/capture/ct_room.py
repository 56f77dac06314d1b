# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the working copy of a container fits into the temporary folder; told before anything is copied."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Collection, Iterator, Sequence

from ..errors import GuestError
from ..rules.excludes import Pattern, matches
from ..storages.mounts import space

BLOCK = 512
"""Bytes in which stat(2) counts what a file occupies."""


def check_room(root: str, all_points: Sequence[str], included: Sequence[str], patterns: Sequence[Pattern],
               target: str, label: str) -> None:  # fmt: skip
    """Refuse a copy that cannot fit.

    :param root: the container's root as the host sees it; :param all_points: its mount points; :param included: those
        to be copied. :param target: the folder to copy to; :param label: of the container, for the message.
    :raises GuestError: there is less room than the files to be copied occupy.
    """
    free = space(target).free
    if _used(root, included) <= free:
        # The file systems hold no more than that altogether: no need to count files.
        return
    need = 0
    for size in _sizes(root, {_inside(point) for point in all_points}, included, patterns):
        need += size
        if need > free:
            raise GuestError(
                f"cannot copy {label}: its files need more than the {free} bytes that are free in {target}",
                hint="set tmpdir to a directory with more room, or use the mode stop",
            )


def _used(root: str, included: Sequence[str]) -> int:
    """Bytes used on the file systems that hold the mount points."""
    used = {}
    for point in included:
        path = os.path.join(root, _inside(point))
        status = os.statvfs(path)
        used[os.stat(path).st_dev] = (status.f_blocks - status.f_bfree) * status.f_frsize
    return sum(used.values())


def _sizes(root: str, points: Collection[str], included: Sequence[str], patterns: Sequence[Pattern]) -> Iterator[int]:
    """Bytes that each file occupies, as rsync would copy them: hard links once, other file systems not at all."""
    linked = set()
    for point in included:
        start = _inside(point)
        device = os.lstat(os.path.join(root, start)).st_dev
        waiting = [start]
        while waiting:
            for path, status in _entries(root, waiting.pop(), points, patterns):
                if stat.S_ISDIR(status.st_mode):
                    if status.st_dev == device:
                        waiting.append(path)
                elif status.st_nlink == 1 or (status.st_dev, status.st_ino) not in linked:
                    linked.add((status.st_dev, status.st_ino))
                    yield status.st_blocks * BLOCK


def _entries(
    root: str, folder: str, points: Collection[str], patterns: Sequence[Pattern]
) -> Iterator[tuple[str, os.stat_result]]:
    """What is to be copied of one folder; the container goes on and may remove it meanwhile."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(os.path.join(root, folder)) as entries:
        for entry in entries:
            path = os.path.join(folder, entry.name)
            is_folder = entry.is_dir(follow_symlinks=False)
            if path not in points and not matches(patterns, os.fsencode(path), folder=is_folder):
                with contextlib.suppress(FileNotFoundError):
                    yield path, entry.stat(follow_symlinks=False)


def _inside(point: str) -> str:
    return point.strip("/")
