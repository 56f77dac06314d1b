# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every kind of volume that containers can have. Add a kind by one entry here."""

from __future__ import annotations

import os
import stat
from typing import Any, Mapping

from ...errors import StorageError
from ...system.undo import Handler
from ..mounts import filesystem_type
from .base import Volume
from .folder import BtrfsVolume, FolderVolume, is_subvolume
from .image import FileVolume, ImageVolume
from .lvmthin import LvmThinVolume, thin_volume_at
from .overlay import PREFIXES, OverlayVolume
from .zfs import ZfsVolume, dataset_at

KINDS: dict[str, type[Volume]] = {
    kind.kind: kind
    for kind in (FolderVolume, BtrfsVolume, ImageVolume, FileVolume, LvmThinVolume, ZfsVolume, OverlayVolume)
}

SNAPSHOT = "storage.snapshot"
"""Undo kind: a snapshot taken for a backup: ``volume`` (kind) and ``source``."""


def open_volume(kind: str, source: str) -> Volume:
    """The volume that a journal names."""
    return KINDS[kind](source)


def volume_at(path: str) -> Volume:
    """The volume that has its files at ``path``: a folder, an image, a block device, ``overlay:...``,
    or ``zfs:DATASET``.

    :raises StorageError: there is nothing, or nothing that can be a volume.
    """
    if path.startswith(PREFIXES):
        return OverlayVolume(path)
    if path.startswith("zfs:"):
        return ZfsVolume(path.partition(":")[2])
    try:
        mode = os.stat(path).st_mode
    except OSError as exc:
        raise StorageError(
            f"cannot use the volume {path}: {exc.strerror}", hint="see whether its storage is mounted"
        ) from exc
    if stat.S_ISDIR(mode):
        if is_subvolume(path):
            return BtrfsVolume(path)
        dataset = dataset_at(path)
        return ZfsVolume(dataset) if dataset else FolderVolume(path)
    if stat.S_ISBLK(mode):
        name = thin_volume_at(path)
        return LvmThinVolume(name) if name else ImageVolume(path)
    if stat.S_ISREG(mode):
        return ImageVolume(path)
    raise StorageError(f"cannot use the volume {path}: it is neither a folder, nor an image, nor a block device")


def folder_volume(path: str) -> Volume:
    """The volume that is, or is to be, the folder ``path``."""
    if os.path.isdir(path):
        return volume_at(path)
    above = os.path.dirname(path)
    return BtrfsVolume(path) if filesystem_type(above) == "btrfs" else FolderVolume(path)


def _undo_snapshot(data: Mapping[str, Any]) -> None:
    open_volume(str(data["volume"]), str(data["source"])).remove_snapshot()


UNDO: dict[str, Handler] = {SNAPSHOT: _undo_snapshot}
