# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guests' volumes on a file storage: ``images/<vmid>/vm-<vmid>-disk-N.qcow2``, ``subvol-<vmid>-disk-N.subvol``."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from typing import Any, Mapping

from ..errors import DependencyError, StorageError, UsageError
from ..system.process import run
from .mounts import filesystem_type, mounts_below

_VOLUME = re.compile(r"^(?:[1-9][0-9]{2,8}/base-[^/]+/)?([1-9][0-9]{2,8})/([^/]+)$")
_OWN_NAME = re.compile(r"^(?:vm|base|subvol|basevol)-([1-9][0-9]{2,8})-.+\.(raw|qcow2|subvol)$")
_BTRFS_ROOT_INODE = 256
_TEMPLATES = {"iso": ("template", "iso"), "vztmpl": ("template", "cache"), "snippets": ("snippets",)}

VOLUME = "storage.volume"
"""Undo kind: a volume that was created and is not wanted."""


class ImageFolder:
    """The guests' volumes of one storage.

    :param storage: name of the storage; :param base: its path (the folders ``images`` and ``template`` are below).
    """

    def __init__(self, storage: str, base: str) -> None:
        self.storage = storage
        self.base = base

    def folder(self, vmid: int) -> str:
        """Where a guest's volumes lie."""
        return os.path.join(self.base, "images", str(vmid))

    def locate(self, volname: str) -> tuple[str, str]:
        """Path and format (``raw``, ``qcow2``, ``subvol``) of a volume, by its id without the storage's name.

        :raises UsageError: this is not a volume's name.
        """
        match = _VOLUME.match(volname)
        if match is not None and match[2] not in (".", ".."):
            suffix = os.path.splitext(match[2])[1].lstrip(".")
            return os.path.join(self.base, "images", match[1], match[2]), suffix if suffix in _FORMATS else "raw"
        folder, _slash, name = volname.partition("/")
        if folder in _TEMPLATES and name and "/" not in name and name not in (".", ".."):
            return os.path.join(self.base, *_TEMPLATES[folder], name), "raw"
        raise UsageError(
            f"{self.storage}:{volname} is not the id of a volume",
            hint=f"volumes of this storage look like {self.storage}:100/vm-100-disk-0.qcow2",
        )

    def next_volume(self, vmid: int, fmt: str, taken: frozenset[str] = frozenset()) -> str:
        """The id (with the storage's name) of the guest's next free volume; nothing is created.

        :param taken: ids that are already promised.
        """
        stem = "subvol" if fmt == "subvol" else "vm"
        used = {os.path.splitext(name)[0].rpartition("-")[2] for name in self._names(vmid)}
        used |= {os.path.splitext(volid)[0].rpartition("-")[2] for volid in taken}
        number = next(n for n in range(len(used) + 1) if str(n) not in used)
        return f"{self.storage}:{vmid}/{stem}-{vmid}-disk-{number}.{fmt}"

    def create(self, volname: str) -> str:
        """Create an empty volume (disk images as empty files that the image tool then shapes); returns its path.

        :raises StorageError: it exists already, or cannot be created.
        """
        path, fmt = self.locate(volname)
        try:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            if fmt == "subvol":
                _create_subvol(path)
            else:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
        except FileExistsError as exc:
            raise StorageError(f"cannot create volume {self.storage}:{volname}: {path} exists already") from exc
        except OSError as exc:
            raise StorageError(f"cannot create volume {self.storage}:{volname}: {exc.strerror}") from exc
        return path

    def free(self, volname: str) -> None:
        """Remove a volume; one that is gone already is no error."""
        free_path(self.locate(volname)[0])

    def list_volumes(self, vmid: int) -> list[str]:
        """Ids (with the storage's name) of the volumes that belong to a guest."""
        owned = [name for name in self._names(vmid) if (m := _OWN_NAME.match(name)) and int(m[1]) == vmid]
        return [f"{self.storage}:{vmid}/{name}" for name in sorted(owned)]

    def _names(self, vmid: int) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return os.listdir(self.folder(vmid))
        return []


_FORMATS = ("raw", "qcow2", "subvol")


def free_path(path: str) -> None:
    """Remove a volume by its path: an image file, a folder or a btrfs subvolume.

    :raises StorageError: something is mounted below it, or it cannot be removed.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    try:
        if stat.S_ISDIR(status.st_mode):
            _free_tree(path, status.st_ino)
        else:
            os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(path))
    except OSError as exc:
        raise StorageError(f"cannot remove volume {path}: {exc.strerror}", hint="remove it by hand") from exc


def undo_volume(data: Mapping[str, Any]) -> None:
    """Remove a volume that was created for nothing."""
    free_path(str(data["path"]))


def _create_subvol(path: str) -> None:
    if filesystem_type(os.path.dirname(path)) == "btrfs":
        with contextlib.suppress(DependencyError):
            run(["btrfs", "-q", "subvolume", "create", "--", path], timeout=60, error=StorageError)
            return
    os.mkdir(path, 0o755)


def _free_tree(path: str, inode: int) -> None:
    mounted = mounts_below(path)
    if mounted:
        raise StorageError(
            f"cannot remove volume {path}: {mounted[0]} is mounted inside it", hint=f"umount {mounted[0]}"
        )
    if inode == _BTRFS_ROOT_INODE and filesystem_type(path) == "btrfs":
        with contextlib.suppress(DependencyError, StorageError):
            run(["btrfs", "-q", "subvolume", "delete", "--", path], timeout=600, error=StorageError)
            return
    shutil.rmtree(path)
