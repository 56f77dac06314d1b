# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Storage kind ``dir``: a folder on this node, in Proxmox VE's layout."""

from __future__ import annotations

import os

from ..errors import StorageError
from ..settings.network import NETWORK
from ..settings.storages import StorageDef
from ..system.host import Host
from .base import Need, Storage
from .dump import DumpFolder
from .images import ImageFolder
from .mounts import Space, is_mount_point, kind_of, mount_point, space
from .scratch import FolderScratch, ScratchSpace

_SUBDIRS = {
    "images": "images",
    "rootdir": "private",
    "backup": "dump",
    "iso": "template/iso",
    "vztmpl": "template/cache",
    "snippets": "snippets",
    "import": "import",
}

UNREACHABLE = "check the disk or the mount behind it"


class DirStorage(Storage):
    """A folder."""

    def __init__(self, definition: StorageDef, host: Host) -> None:
        super().__init__(definition, host)
        self.path = definition.path
        limit = definition.max_protected_backups
        point = mount_point(self.path) if definition.type in NETWORK else ""
        self._archives = DumpFolder(self.name, self._folder("backup"), -1 if limit is None else limit, point)
        self.volumes = ImageFolder(self.name, self.path)

    @property
    def archives(self) -> DumpFolder:
        return self._archives

    def scratch(self, vmid: int) -> ScratchSpace:
        return FolderScratch(f"storage {self.name!r}", vmid, self.volumes.folder(vmid))

    def _folder(self, content: str) -> str:
        relative = self.definition.content_dirs.get(content) or _SUBDIRS[content]
        return os.path.join(self.path, relative)

    def _activate(self, need: Need) -> None:
        self._check_mounted()
        self._check_base(need)
        if need.write:
            self._make_folders()
            folder = self._folder(need.content) if need.content else self.path
            self._check_writable(folder if os.path.isdir(folder) else self.path)

    def _check_mounted(self) -> None:
        """Before anything is created: else a missing disk would be replaced by a folder on the root file system."""
        expected = self.definition.is_mountpoint
        if not expected:
            return
        point = expected if isinstance(expected, str) else self.path
        self._kind_of(point)
        if not is_mount_point(point):
            raise self._unusable(
                f"{point} is expected to be a mount point, but nothing is mounted there",
                f"mount it; only if {point} never was to be one, remove 'is_mountpoint' from storage {self.name!r}",
            )

    def _check_base(self, need: Need) -> None:
        kind = self._kind_of(self.path)
        if kind == "missing" and self.definition.create_base_path:
            if not need.write:
                # Looking must not change anything; a folder that is still to be made is an empty one.
                return
            try:
                os.makedirs(self.path, exist_ok=True)
            except OSError as exc:
                raise self._unusable(
                    f"{self.path} does not exist and cannot be created: {exc.strerror}", "create the directory"
                ) from exc
            kind = "dir"
        if kind == "missing":
            raise self._unusable(f"{self.path} does not exist", "create the directory, or mount what belongs there")
        if kind == "other":
            raise self._unusable(f"{self.path} is not a directory", f"correct 'path' of storage {self.name!r}")

    def _make_folders(self) -> None:
        if not self.definition.create_subdirs:
            return
        seen: dict[str, str] = {}
        for content in self.definition.content:
            if content not in _SUBDIRS:
                continue
            folder = self._folder(content)
            if seen.setdefault(folder, content) != content:
                raise self._unusable(
                    f"{folder} is used for both {seen[folder]} and {content}", "give each content type its own folder"
                )
            try:
                os.makedirs(folder, exist_ok=True)
            except OSError as exc:
                raise self._unusable(
                    f"the folder {folder} for content {content!r} cannot be created: {exc.strerror}",
                    "check owner, permissions, and whether the file system is mounted read-only",
                ) from exc

    def _check_writable(self, folder: str) -> None:
        # Tells a read-only file system apart even for root, without writing anything.
        if not os.access(folder, os.W_OK | os.X_OK):
            raise self._unusable(
                f"{folder} is not writable", "check owner, permissions, and whether the file system is read-only"
            )

    def free_space(self) -> int:
        return self._space().free

    def total_space(self) -> int:
        return self._space().total

    def _space(self) -> Space:
        """Of the folder, or of where it would be made."""
        path = self.path
        while self._kind_of(path) == "missing":
            path = os.path.dirname(path)
        try:
            return space(path)
        except StorageError as exc:
            raise self._unusable(exc.message, UNREACHABLE) from exc

    def _kind_of(self, path: str) -> str:
        try:
            return kind_of(path)
        except StorageError as exc:
            raise self._unusable(exc.message, UNREACHABLE) from exc

    def _unusable(self, why: str, remedy: str) -> StorageError:
        return StorageError(f"cannot use storage {self.name!r}: {why}", hint=remedy)
