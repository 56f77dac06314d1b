# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container's volume is to captures and restores, whatever holds its files."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod

from ...errors import StorageError
from ...system.process import run

SNAPSHOT = "vzdump"
"""Name of the snapshots that backups take, as in Proxmox VE. Whatever has that name is ours to remove."""


class Volume(ABC):
    """One volume. Handles are cheap; journals keep ``kind`` and ``source`` and open another one later.

    :ivar kind: name of the class in the registry.
    :ivar source: what identifies the volume on this node: a path, ``VG/LV`` or a ZFS dataset.
    """

    kind: str

    def __init__(self, source: str) -> None:
        self.source = source

    @abstractmethod
    def create(self, size: int | None, owner: int) -> None:
        """Make the volume with an empty file system.

        :param size: bytes; kinds that are folders take none. :param owner: host id of the container's root.
        :raises StorageError: it exists already, needs a size, or cannot be made.
        """

    @abstractmethod
    def free(self) -> None:
        """Remove the volume with its snapshots; one that is gone already is no error.

        :raises StorageError: it is in use, or cannot be removed.
        """

    @abstractmethod
    def mount_argv(self, place: str) -> list[str]:
        """The command that mounts the volume, writable, on an existing folder."""

    def mount(self, place: str, *, read_only: bool = False) -> None:
        """Mount the volume on an existing folder.

        :param read_only: of this mount alone; a journal of the file system is replayed all the same.
        """
        run(self.mount_argv(place), timeout=120, error=StorageError)
        if read_only:
            run(["mount", "-o", "remount,bind,ro", "--", place], timeout=60, error=StorageError)

    def can_snapshot(self) -> bool:
        """Whether the other methods for snapshots work."""
        return False

    def has_snapshot(self) -> bool:
        """Whether a snapshot of ours exists."""
        return False

    def take_snapshot(self) -> None:
        """Keep the volume's state of this instant."""
        raise StorageError(f"{self.source} cannot be snapshotted")

    def mount_snapshot(self, place: str) -> None:
        """Mount the snapshot read-only on an existing folder."""
        raise StorageError(f"{self.source} has no snapshot")

    def remove_snapshot(self) -> None:  # noqa: B027  there is nothing to remove unless a kind says so
        """Remove the snapshot; harmless when there is none."""

    def apart(self) -> list[str]:
        """Folders in it that are volumes of their own, which no backup of this one takes along."""
        return []


class BlockVolume(Volume):
    """A volume that is, or can be, a block device."""

    @property
    @abstractmethod
    def device(self) -> str:
        """Path of its block device."""

    @abstractmethod
    def allocate(self, size: int, mark: str = "") -> None:
        """Make the block device, of at least ``size`` bytes and without anything in it.

        :param mark: kept with it from the beginning, so that its maker knows it again.
        :raises StorageError: it exists already, or cannot be made.
        """

    @abstractmethod
    def has_mark(self, mark: str) -> bool:
        """Whether it exists and was made with that mark.

        :raises StorageError: that cannot be told.
        """


def flush(path: str) -> None:
    """Write the dirty data of the file system that holds ``path`` to disk, so that little is left for the pause."""
    run(["sync", "--file-system", "--", path], timeout=600, error=StorageError)


def need_size(volume: Volume, size: int | None) -> int:
    """:raises StorageError: there is no size, and this kind cannot be without."""
    if not size:
        raise StorageError(
            f"cannot create volume {volume.source}: its size is not known",
            hint="say it with the restore's option volumes, for example size=8G",
        )
    return size


def check_absent(path: str) -> None:
    """:raises StorageError: there is something already."""
    if os.path.lexists(path):
        raise StorageError(f"cannot create volume {path}: it exists already", hint="remove it, or free its id")
