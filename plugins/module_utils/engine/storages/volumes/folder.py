# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that are folders: plain ones, and btrfs subvolumes."""

from __future__ import annotations

import contextlib
import os
import shutil

from ...errors import DependencyError, StorageError
from ...system.process import run
from ...system.trouble import refusal
from ..mounts import filesystem_type, mounts_below
from .base import SNAPSHOT, Volume, check_absent

_SUBVOLUME_INODE = 256


class FolderVolume(Volume):
    """A plain folder; it has no snapshots and no size."""

    kind = "folder"

    def create(self, size: int | None, owner: int) -> None:
        check_absent(self.source)
        try:
            make_guest_folder(os.path.dirname(self.source), owner)
            self._make()
            os.chown(self.source, owner, owner)
        except OSError as exc:
            raise refusal(StorageError, f"create volume {self.source}", exc, self.source) from exc

    def free(self) -> None:
        if not os.path.lexists(self.source):
            return
        mounted = mounts_below(self.source)
        if mounted:
            raise StorageError(
                f"cannot remove volume {self.source}: {mounted[0]} is mounted inside it", hint=f"umount {mounted[0]}"
            )
        try:
            self._remove()
        except OSError as exc:
            raise StorageError(f"cannot remove volume {self.source}: {exc.strerror}", hint="remove it by hand") from exc
        remove_empty_parent(self.source)

    def mount_argv(self, place: str) -> list[str]:
        return ["mount", "--bind", "--", self.source, place]

    def _make(self) -> None:
        os.mkdir(self.source, 0o755)

    def _remove(self) -> None:
        shutil.rmtree(self.source)


class BtrfsVolume(FolderVolume):
    """A btrfs subvolume; its snapshot stands beside it."""

    kind = "btrfs"

    @property
    def _snapshot(self) -> str:
        return f"{self.source}@{SNAPSHOT}"

    def can_snapshot(self) -> bool:
        return True

    def has_snapshot(self) -> bool:
        return os.path.lexists(self._snapshot)

    def take_snapshot(self) -> None:
        _btrfs("subvolume", "snapshot", "-r", "--", self.source, self._snapshot)

    def mount_snapshot(self, place: str) -> None:
        BtrfsVolume(self._snapshot).mount(place, read_only=True)

    def remove_snapshot(self) -> None:
        if self.has_snapshot():
            _btrfs("subvolume", "delete", "--", self._snapshot)

    def apart(self) -> list[str]:
        # Lines like "ID 258 gen 9 top level 257 path images/101/subvol-101-disk-0.subvol/var/lib/machines".
        argv = ["btrfs", "subvolume", "list", "-o", "--", self.source]
        lines = run(argv, timeout=600, error=StorageError).stdout.splitlines()
        names = [line.partition(" path ")[2] for line in lines]
        own = os.path.basename(self.source) + "/"
        return sorted(name.partition(own)[2] or name for name in names)

    def free(self) -> None:
        self.remove_snapshot()
        super().free()

    def _make(self) -> None:
        try:
            _btrfs("subvolume", "create", "--", self.source)
        except DependencyError:
            super()._make()

    def _remove(self) -> None:
        # Subvolumes that the guest made inside keep it from being deleted; removing the tree takes them along.
        with contextlib.suppress(DependencyError, StorageError):
            _btrfs("subvolume", "delete", "--", self.source)
            return
        super()._remove()


def make_guest_folder(path: str, owner: int) -> None:
    """The folder of a container's volumes, if it is not there yet, for the host's root and the container's only.

    Other users of the host must not get to the programs in it, which may run as whoever owns them.
    """
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
        os.chown(path, owner, owner)


def is_subvolume(path: str) -> bool:
    """Whether a folder is a btrfs subvolume."""
    return os.stat(path).st_ino == _SUBVOLUME_INODE and filesystem_type(path) == "btrfs"


def remove_empty_parent(path: str) -> None:
    """The guest's folder goes with its last volume."""
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(path))


def _btrfs(*arguments: str) -> None:
    run(["btrfs", "-q", *arguments], timeout=600, error=StorageError)
