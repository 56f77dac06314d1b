# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Storage kind ``zfspool``: a ZFS dataset that holds containers' volumes as datasets, and fleecing images as zvols."""

from __future__ import annotations

import os
from typing import Iterable

from ..errors import StorageError
from ..settings.storages import StorageDef
from ..system.host import Host
from .base import Need, Storage
from .scratch import Gauge, ScratchSpace, VolumeScratch
from .volumes.space import FlatSpace
from .volumes.zfs import ZfsVolume, zfs


class ZfsPoolStorage(Storage):
    """A pool, or a dataset in one."""

    contents = ("images", "rootdir")
    volumes: ZfsSpace

    def __init__(self, definition: StorageDef, host: Host) -> None:
        super().__init__(definition, host)
        self._pool = str(definition.extra.get("pool"))
        mountpoint = definition.extra.get("mountpoint") or f"/{self._pool}"
        self.volumes = ZfsSpace(self.name, self._pool, mountpoint)

    def _activate(self, need: Need) -> None:
        try:
            zfs("list", "-H", "-o", "name", "--", self._pool)
        except StorageError as exc:
            raise StorageError(
                f"cannot use storage {self.name!r}: {exc.message}", hint=f"zpool import {self._pool.partition('/')[0]}"
            ) from exc
        if need.write:
            zfs("mount", "-a")

    def scratch(self, vmid: int) -> ScratchSpace:
        space = self.volumes
        return VolumeScratch(f"storage {self.name!r}", vmid, space.volume, space.names, self._gauges)

    def _gauges(self) -> list[Gauge]:
        return [Gauge.of_data(self.total_space(), self.free_space())]

    def free_space(self) -> int:
        return self._ask("available")

    def total_space(self) -> int:
        return self._ask("available") + self._ask("used")

    def _ask(self, key: str) -> int:
        return int(zfs("get", "-H", "-p", "-o", "value", key, self._pool).strip())


class ZfsSpace(FlatSpace):
    """The datasets below a pool."""

    formats = ("subvol",)
    prefix = "subvol"

    def __init__(self, storage: str, pool: str, mountpoint: str) -> None:
        super().__init__(storage)
        self._pool = pool
        self._mountpoint = mountpoint

    def locate(self, volname: str) -> tuple[str, str]:
        return os.path.join(self._mountpoint, self.check_name(volname)), "subvol"

    def volume(self, volname: str) -> ZfsVolume:
        return ZfsVolume(f"{self._pool}/{self.check_name(volname)}")

    def names(self) -> Iterable[str]:
        listed = zfs("list", "-H", "-o", "name", "-d", "1", "--", self._pool).split("\n")
        return [name[len(self._pool) + 1 :] for name in listed]
