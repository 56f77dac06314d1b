# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder whose layout is not Proxmox VE's, as a storage of its own: where libvirt's tools put disks."""

from __future__ import annotations

import os
import re

from ..errors import StorageError
from ..settings.storages import StorageDef
from ..system.host import Host
from .base import Need
from .dir import DirStorage
from .volumes.base import Volume
from .volumes.image import FileVolume
from .volumes.space import VolumeSpace


class PlainFolder(DirStorage):
    """:param path: of the folder; :param stem: of the names of the files that are made there.
    :param suffix: of these names, if it is not their format; those files are raw.
    """

    def __init__(self, path: str, host: Host, stem: str, suffix: str = "") -> None:
        super().__init__(StorageDef(name=path, type="dir", path=path, content=("images",)), host)
        self.volumes = PlainSpace(path, stem, suffix)

    def _activate(self, need: Need) -> None:
        if not os.path.isdir(self.path):
            raise StorageError(f"cannot restore disks to {self.path}: there is no such folder", hint="create it")


class PlainSpace(VolumeSpace):
    """The files of one disk in a folder; their ids and their names are their paths."""

    formats = ()

    def __init__(self, folder: str, stem: str, suffix: str = "") -> None:
        super().__init__(folder)
        self.image_formats = ("raw",) if suffix else ("raw", "qcow2")
        self._stem = re.sub(r"[^\w.-]+", "_", stem)
        self._suffix = suffix

    def locate(self, volname: str) -> tuple[str, str]:
        return volname, "qcow2" if volname.endswith(".qcow2") and not self._suffix else "raw"

    def volume(self, volname: str) -> Volume:
        return FileVolume(volname)

    def next_volume(self, vmid: int, fmt: str, taken: frozenset[str] = frozenset()) -> str:
        suffix, number = self._suffix or fmt, 1
        path = os.path.join(self.storage, f"{self._stem}.{suffix}")
        while os.path.lexists(path) or path in taken:
            number += 1
            path = os.path.join(self.storage, f"{self._stem}-{number}.{suffix}")
        return path

    def list_volumes(self, vmid: int) -> list[str]:
        """Whose a file is does not follow from its name."""
        return []

    def create_image(self, volname: str, size: int) -> None:
        try:
            os.close(os.open(volname, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
        except OSError as exc:
            raise StorageError(f"cannot create {volname}: {exc.strerror}") from exc

    def allocated(self, volname: str) -> int | None:
        return os.stat(volname).st_blocks * 512
