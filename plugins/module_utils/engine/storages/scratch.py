# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images that are of no use after a backup: files in a folder, or volumes of a pool, that keep what a guest overwrites.

Whoever makes one journals it first, by its ``undo``. A volume bears a mark that only this journal knows, so that the
undo never removes one of the same name that somebody else made.
"""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Mapping

from ..errors import StorageError
from ..system.process import run
from ..system.trouble import refusal
from .images import VOLUME
from .mounts import filesystem_type
from .volumes.base import BlockVolume
from .volumes.image import ImageVolume
from .volumes.registry import open_volume

MARKED = "storage.scratch"
"""Undo kind: a volume made for a backup: ``volume`` (kind), ``source`` and ``mark``."""

RESERVE = 1 << 30
"""Bytes that stay free beside the images, or a twentieth of a smaller storage."""


@dataclass(frozen=True)
class Gauge:
    """Something of a storage that can run out.

    :param what: for messages; :param total: bytes altogether; :param free: bytes left; :param least: that stay free.
    """

    what: str
    total: int
    free: int
    least: int

    @classmethod
    def of_data(cls, total: int, free: int) -> Gauge:
        """What images and everything else are kept in."""
        return cls("bytes", total, free, min(RESERVE, total // 20))

    @property
    def shortage(self) -> str:
        """What is wrong, empty when enough is left."""
        return f"only {self.free} of {self.total} {self.what} are free there" if self.free < self.least else ""


class ScratchImage(ABC):
    """One image, made or not.

    :ivar path: of the file or block device; :ivar format: ``raw`` or ``qcow2``.
    :ivar device: whether it is a block device, at least as large as what was asked for.
    :ivar undo: kind and data of the undo entry that removes it.
    """

    device: bool
    undo: tuple[str, dict[str, str]]

    def __init__(self, path: str, fmt: str) -> None:
        self.path = path
        self.format = fmt

    @abstractmethod
    def allocate(self, size: int) -> None:
        """Make what a program needs that makes an image of ``size`` bytes at ``path`` by itself.

        :raises StorageError: it cannot be made.
        """

    @abstractmethod
    def create(self, size: int) -> None:
        """Make an empty image of ``size`` bytes.

        :raises StorageError: it exists already, or cannot be made.
        """

    @abstractmethod
    def remove(self) -> None:
        """Remove it if it is there; nothing may have it open.

        :raises StorageError: that is not possible.
        """


class ScratchSpace(ABC):
    """Where the images of one guest are made.

    :param label: what it is, for messages; :param format: of images, unless another is asked for.
    """

    def __init__(self, label: str, vmid: int, fmt: str) -> None:
        self.label = label
        self.format = fmt
        self._stem = f"vm-{vmid}-fleece-"
        self._next = 0

    @abstractmethod
    def gauges(self) -> list[Gauge]:
        """What can run out."""

    @abstractmethod
    def image(self, fmt: str = "") -> ScratchImage:
        """The next image whose name is free, another one with each call; it is not made yet."""

    def shortage(self) -> str:
        """What is about to run out, empty when there is enough of everything."""
        return next((gauge.shortage for gauge in self.gauges() if gauge.shortage), "")

    def check(self) -> None:
        """:raises StorageError: there is no room for images."""
        short = self.shortage()
        if short:
            raise StorageError(
                f"cannot make fleecing images on {self.label}: {short}",
                hint="free space there, or choose another storage for fleecing",
            )

    def _name(self, taken: Callable[[str], bool]) -> str:
        while True:
            name = f"{self._stem}{self._next}"
            self._next += 1
            if not taken(name):
                return name


class FolderScratch(ScratchSpace):
    """Images that are files, sparse or qcow2.

    :param folder: is made with the first image.
    """

    def __init__(self, label: str, vmid: int, folder: str, fmt: str = "") -> None:
        # A qcow2 file would be copied on write twice over.
        super().__init__(label, vmid, fmt or ("raw" if filesystem_type(folder) == "btrfs" else "qcow2"))
        self.folder = folder

    def gauges(self) -> list[Gauge]:
        try:
            os.makedirs(self.folder, exist_ok=True)
            status = os.statvfs(self.folder)
        except OSError as exc:
            raise refusal(StorageError, f"make fleecing images on {self.label}", exc, self.folder) from exc
        return [Gauge.of_data(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize)]

    def image(self, fmt: str = "") -> ScratchImage:
        suffix = fmt or self.format
        name = self._name(lambda name: os.path.lexists(os.path.join(self.folder, f"{name}.{suffix}")))
        return _FileImage(os.path.join(self.folder, f"{name}.{suffix}"), suffix)


class _FileImage(ScratchImage):
    device = False

    def __init__(self, path: str, fmt: str) -> None:
        super().__init__(path, fmt)
        self.undo = (VOLUME, {"path": path})

    def allocate(self, size: int) -> None:
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
        except OSError as exc:
            raise refusal(StorageError, f"make the fleecing image {self.path}", exc, self.path) from exc

    def create(self, size: int) -> None:
        self.allocate(size)
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                if self.format == "raw":
                    os.truncate(fd, size)
            finally:
                os.close(fd)
        except OSError as exc:
            raise refusal(StorageError, f"make the fleecing image {self.path}", exc, self.path) from exc
        if self.format != "raw":
            argv = ["qemu-img", "create", "-q", "-f", self.format, self.path, str(size)]
            run(argv, timeout=60, error=StorageError)

    def remove(self) -> None:
        ImageVolume(self.path).free()


class VolumeScratch(ScratchSpace):
    """Images that are volumes of a pool, provisioned as they are written.

    :param volume: the volume of a name; :param names: of all that are there; :param gauges: of the pool.
    """

    def __init__(
        self,
        label: str,
        vmid: int,
        volume: Callable[[str], BlockVolume],
        names: Callable[[], Iterable[str]],
        gauges: Callable[[], list[Gauge]],
    ) -> None:
        super().__init__(label, vmid, "raw")
        self._volume = volume
        self._names = names
        self._gauges = gauges

    def gauges(self) -> list[Gauge]:
        return self._gauges()

    def image(self, fmt: str = "") -> ScratchImage:
        taken = set(self._names())
        return _VolumeImage(self._volume(self._name(taken.__contains__)), fmt or self.format)


class _VolumeImage(ScratchImage):
    device = True

    def __init__(self, volume: BlockVolume, fmt: str) -> None:
        super().__init__(volume.device, fmt)
        self._volume = volume
        self._mark = f"holdfast.{secrets.token_hex(8)}"
        self.undo = (MARKED, {"volume": volume.kind, "source": volume.source, "mark": self._mark})

    def allocate(self, size: int) -> None:
        # A full qcow2 image has tables, too: 10 bytes for each 64 KiB and some clusters.
        self._volume.allocate(size if self.format == "raw" else size + size // 1024 + (4 << 20), self._mark)

    def create(self, size: int) -> None:
        """Raw ones only: nobody needs another."""
        self.allocate(size)

    def remove(self) -> None:
        _remove_marked(self._volume, self._mark)


def _remove_marked(volume: BlockVolume, mark: str) -> None:
    if volume.has_mark(mark):
        volume.free()


def undo_marked(data: Mapping[str, Any]) -> None:
    """Remove a volume that was made for a backup, and not another one of that name."""
    volume = open_volume(str(data["volume"]), str(data["source"]))
    if not isinstance(volume, BlockVolume):
        raise TypeError(f"{volume.kind} is no kind of block device")
    _remove_marked(volume, str(data["mark"]))
