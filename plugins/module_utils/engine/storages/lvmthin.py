# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Storage kind ``lvmthin``: a thin pool that holds volumes of containers and disks of VMs."""

from __future__ import annotations

from typing import Iterable

from ..errors import StorageError
from ..settings.storages import StorageDef
from ..system.host import Host
from .base import Need, Storage
from .volumes.lvmthin import LvmThinVolume, lvm, lvm_fields
from .volumes.space import FlatSpace


class LvmThinStorage(Storage):
    """A thin pool."""

    contents = ("images", "rootdir")

    def __init__(self, definition: StorageDef, host: Host) -> None:
        super().__init__(definition, host)
        self._group = str(definition.extra.get("vgname"))
        self._pool = str(definition.extra.get("thinpool"))
        self.volumes = LvmThinSpace(self.name, self._group, self._pool)

    def _activate(self, need: Need) -> None:
        try:
            kind = self._ask("segtype")
        except StorageError as exc:
            raise StorageError(
                f"cannot use storage {self.name!r}: {exc.message}", hint="check vgname and thinpool"
            ) from exc
        if kind != "thin-pool":
            raise StorageError(
                f"cannot use storage {self.name!r}: {self._group}/{self._pool} is no thin pool but {kind}",
                hint="correct 'thinpool' in its definition",
            )
        # Volumes that are to stay inactive (our snapshots) say so themselves.
        lvm("vgchange", "-aly", self._group)

    def free_space(self) -> int:
        return int(self.total_space() * (1 - float(self._ask("data_percent")) / 100))

    def total_space(self) -> int:
        return int(self._ask("lv_size"))

    def _ask(self, field: str) -> str:
        (value,) = lvm_fields(f"{self._group}/{self._pool}", field)
        return value


class LvmThinSpace(FlatSpace):
    """The thin volumes of a pool."""

    formats = ("raw",)
    image_formats = ("raw",)
    devices = True
    prefix = "vm"

    def __init__(self, storage: str, group: str, pool: str) -> None:
        super().__init__(storage)
        self._group = group
        self._pool = pool

    def locate(self, volname: str) -> tuple[str, str]:
        return f"/dev/{self._group}/{self.check_name(volname)}", "raw"

    def volume(self, volname: str) -> LvmThinVolume:
        return LvmThinVolume(f"{self._group}/{self.check_name(volname)}", self._pool)

    def create_image(self, volname: str, size: int) -> None:
        self.volume(volname).allocate(size)

    def stale_bytes(self, volname: str) -> int:
        # A pool that does not zero the chunks that it provisions hands out what earlier volumes left in them.
        zeroes, chunk = lvm_fields(f"{self._group}/{self._pool}", "zero", "chunk_size")
        return 0 if zeroes == "zero" else int(chunk)

    def allocated(self, volname: str) -> int | None:
        size, percent = lvm_fields(self.volume(volname).source, "lv_size", "data_percent")
        return int(int(size) * float(percent or 100) / 100)

    def names(self) -> Iterable[str]:
        return lvm("lvs", "--noheadings", "-o", "lv_name", "--", self._group).split()
