# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A block device of the node that a VM's disk is restored to, as a storage of its own: nothing is made or removed."""

from __future__ import annotations

import os
import stat

from ..errors import StorageError, UsageError
from ..settings.storages import StorageDef
from ..system.host import Host
from .base import Need, Storage
from .volumes.base import Volume
from .volumes.image import ImageVolume
from .volumes.space import VolumeSpace

ALL = 1 << 62
"""Of what is on the device nothing stays."""


class DeviceStorage(Storage):
    """:param path: of the device."""

    contents = ("images",)

    def __init__(self, path: str, host: Host) -> None:
        super().__init__(StorageDef(name=path, type="device", path=path, content=("images",)), host)
        self.path = path
        self.volumes = DeviceSpace(path)

    def _activate(self, need: Need) -> None:
        try:
            if not stat.S_ISBLK(os.stat(self.path).st_mode):
                raise StorageError(
                    f"cannot restore to {self.path}: it is no block device", hint="name a storage, or a block device"
                )
            # The kernel refuses this for a device that is mounted, or part of a volume group or RAID.
            os.close(os.open(self.path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC))
        except OSError as exc:
            raise StorageError(
                f"cannot restore to {self.path}: {exc.strerror}", hint="give a block device that nothing else uses"
            ) from exc

    def free_space(self) -> int:
        return self.total_space()

    def total_space(self) -> int:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.lseek(fd, 0, os.SEEK_END)
        finally:
            os.close(fd)


class DeviceSpace(VolumeSpace):
    """The one volume that a device is; its id and its name are the path."""

    formats = ("raw",)
    image_formats = ("raw",)
    devices = True

    def locate(self, volname: str) -> tuple[str, str]:
        return volname, "raw"

    def volume(self, volname: str) -> Volume:
        return ImageVolume(volname)

    def next_volume(self, vmid: int, fmt: str, taken: frozenset[str] = frozenset()) -> str:
        if self.storage in taken:
            raise UsageError(f"cannot restore two disks to {self.storage}", hint="give each a device of its own")
        return self.storage

    def list_volumes(self, vmid: int) -> list[str]:
        return []

    def create_image(self, volname: str, size: int) -> None:
        """It is there already."""

    def stale_bytes(self, volname: str) -> int:
        return ALL
