# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guests' volumes on one storage, by their ids."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Iterable

from ...errors import StorageError, UsageError
from .base import Volume

_FLAT = re.compile(r"(?:vm|base|subvol|basevol)-([1-9][0-9]{2,8})-[A-Za-z0-9_.-]+")


class VolumeSpace(ABC):
    """The volumes of one storage. Ids have the storage's name; *volume names* are what follows the colon.

    :ivar formats: what containers' volumes can be here, the preferred first.
    :ivar image_formats: what disks of VMs can be here, the preferred first; empty when they cannot.
    :ivar devices: whether disks of VMs are block devices here, not files.
    """

    formats: tuple[str, ...]
    image_formats: tuple[str, ...] = ()
    devices = False

    def __init__(self, storage: str) -> None:
        self.storage = storage

    @abstractmethod
    def locate(self, volname: str) -> tuple[str, str]:
        """Path and format (``raw``, ``qcow2``, ``subvol``) of a volume.

        :raises UsageError: this is not a volume's name.
        """

    @abstractmethod
    def volume(self, volname: str) -> Volume:
        """The container's volume of that name, whether it exists or not."""

    @abstractmethod
    def next_volume(self, vmid: int, fmt: str, taken: frozenset[str] = frozenset()) -> str:
        """The id of the guest's next free volume; nothing is created.

        :param taken: ids that are already promised.
        """

    @abstractmethod
    def list_volumes(self, vmid: int) -> list[str]:
        """Ids of the volumes that belong to a guest."""

    def folder(self, vmid: int) -> str:
        """Folder of a guest's volumes.

        :raises StorageError: volumes here are no files.
        """
        raise StorageError(f"cannot put files of guest {vmid} on {self.storage}: its volumes are no files")

    def create_image(self, volname: str, size: int) -> None:
        """Create an empty file, or a block device of at least ``size`` bytes, for a VM's disk.

        :raises StorageError: it exists already, cannot be created, or disks of VMs cannot be here.
        """
        raise StorageError(f"cannot create {self.storage}:{volname}: disks of VMs cannot be on this kind of storage")

    def stale_bytes(self, volname: str) -> int:
        """How far around what is written a new disk of a VM may hold old data; 0 when it reads as zeros."""
        return 0

    def allocated(self, volname: str) -> int | None:
        """Bytes that a volume takes on its storage; ``None`` when that cannot be told."""
        return None


class FlatSpace(VolumeSpace):
    """Volumes whose names stand for themselves: ``vm-101-disk-0``, ``subvol-101-disk-0``."""

    prefix: str

    @abstractmethod
    def names(self) -> Iterable[str]:
        """Names of everything that lies beside the volumes, too."""

    def check_name(self, volname: str) -> str:
        """:raises UsageError: this is not a volume's name."""
        if _FLAT.fullmatch(volname) is None:
            raise UsageError(
                f"{self.storage}:{volname} is not the id of a volume",
                hint=f"volumes of this storage look like {self.storage}:{self.prefix}-100-disk-0",
            )
        return volname

    def next_volume(self, vmid: int, fmt: str, taken: frozenset[str] = frozenset()) -> str:
        used = {volid.rpartition("-")[2] for volid in [*self.list_volumes(vmid), *taken]}
        number = next(n for n in range(len(used) + 1) if str(n) not in used)
        return f"{self.storage}:{self.prefix}-{vmid}-disk-{number}"

    def list_volumes(self, vmid: int) -> list[str]:
        matches = filter(None, map(_FLAT.fullmatch, self.names()))
        return sorted(f"{self.storage}:{match[0]}" for match in matches if int(match[1]) == vmid)
