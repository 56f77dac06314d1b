# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guests' volumes on a file storage: ``images/<vmid>/vm-<vmid>-disk-N.qcow2``, ``subvol-<vmid>-disk-N.subvol``."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, Mapping

from ..errors import StorageError, UsageError
from ..system.trouble import refusal
from .volumes.base import Volume
from .volumes.image import ImageVolume
from .volumes.registry import folder_volume
from .volumes.space import VolumeSpace

_VOLUME = re.compile(r"^(?:[1-9][0-9]{2,8}/base-[^/]+/)?([1-9][0-9]{2,8})/([^/]+)$")
_OWN_NAME = re.compile(r"^(?:vm|base|subvol|basevol)-([1-9][0-9]{2,8})-.+\.(raw|qcow2|subvol)$")
_TEMPLATES = {"iso": ("template", "iso"), "vztmpl": ("template", "cache"), "snippets": ("snippets",)}


VOLUME = "storage.volume"
"""Undo kind: an image file that was created and is not wanted: ``path``."""


class ImageFolder(VolumeSpace):
    """The guests' volumes of one storage.

    :param base: path of the storage (the folders ``images`` and ``template`` are below).
    """

    formats = ("subvol", "raw")
    image_formats = ("raw", "qcow2")

    def __init__(self, storage: str, base: str) -> None:
        super().__init__(storage)
        self.base = base

    def folder(self, vmid: int) -> str:
        """Where a guest's volumes lie."""
        return os.path.join(self.base, "images", str(vmid))

    def locate(self, volname: str) -> tuple[str, str]:
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

    def volume(self, volname: str) -> Volume:
        path, fmt = self.locate(volname)
        return folder_volume(path) if fmt == "subvol" else ImageVolume(path)

    def next_volume(self, vmid: int, fmt: str, taken: frozenset[str] = frozenset()) -> str:
        stem = "subvol" if fmt == "subvol" else "vm"
        used = {os.path.splitext(name)[0].rpartition("-")[2] for name in self._names(vmid)}
        used |= {os.path.splitext(volid)[0].rpartition("-")[2] for volid in taken}
        number = next(n for n in range(len(used) + 1) if str(n) not in used)
        return f"{self.storage}:{vmid}/{stem}-{vmid}-disk-{number}.{fmt}"

    def create_image(self, volname: str, size: int) -> None:
        path, _fmt = self.locate(volname)
        try:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
        except FileExistsError as exc:
            raise StorageError(f"cannot create volume {self.storage}:{volname}: {path} exists already") from exc
        except OSError as exc:
            raise refusal(StorageError, f"create volume {self.storage}:{volname}", exc, path) from exc

    def allocated(self, volname: str) -> int | None:
        path, fmt = self.locate(volname)
        return None if fmt == "subvol" else os.stat(path).st_blocks * 512

    def list_volumes(self, vmid: int) -> list[str]:
        owned = [name for name in self._names(vmid) if (m := _OWN_NAME.match(name)) and int(m[1]) == vmid]
        return [f"{self.storage}:{vmid}/{name}" for name in sorted(owned)]

    def _names(self, vmid: int) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return os.listdir(self.folder(vmid))
        return []


_FORMATS = ("raw", "qcow2", "subvol")


def undo_volume(data: Mapping[str, Any]) -> None:
    """Remove an image file that was created for nothing."""
    ImageVolume(str(data["path"])).free()
