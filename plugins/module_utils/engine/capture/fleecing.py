# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fleecing images: what a running VM overwrites is kept in them until the backup has read it.

They are as large as the disks, but hold only what the guest overwrites before it is read. When their file system is
about to be full the backup is given up, so that neither the guest nor the host runs out of space because of it.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Callable

from ..errors import HoldfastError, StorageError
from ..storages.images import VOLUME
from ..system.process import run
from ..system.trouble import refusal
from ..system.undo import UndoStack
from .model import FleecingPlace

RESERVE = 1 << 30
"""Bytes that stay free beside fleecing images, or a twentieth of a smaller file system."""

_WATCH_SECONDS = 1.0


def reserve_of(folder: str) -> int:
    """Bytes that fleecing leaves free on the file system of a folder."""
    status = os.statvfs(folder)
    return min(RESERVE, status.f_blocks * status.f_frsize // 20)


def free_space(folder: str) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def make_image(place: FleecingPlace, vmid: int, size: int, undo: UndoStack) -> tuple[str, int]:
    """Make one empty image; returns its path and the undo token that removes it.

    :raises StorageError: there is no room for it, or it cannot be made.
    """
    try:
        os.makedirs(place.folder, exist_ok=True)
        if free_space(place.folder) < reserve_of(place.folder):
            raise StorageError(
                f"cannot make fleecing images on {place.label}: only {free_space(place.folder)} bytes are free there",
                hint="free space there, or choose another storage for fleecing",
            )
        number = 0
        while True:
            path = os.path.join(place.folder, f"vm-{vmid}-fleece-{number}.{place.format}")
            if not os.path.lexists(path):
                break
            number += 1
        token = undo.push(VOLUME, path=path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if place.format == "raw":
                os.truncate(fd, size)
        finally:
            os.close(fd)
    except OSError as exc:
        raise refusal(StorageError, f"make fleecing images on {place.label}", exc, place.folder) from exc
    if place.format != "raw":
        run(["qemu-img", "create", "-q", "-f", place.format, path, str(size)], timeout=60, error=StorageError)
    return path, token


class SpaceWatch:
    """Watches the fleecing images' file system in a thread while the block runs.

    The copy itself may be stuck in a write to a dead target, so the watch does not rely on it.

    :param give_up: called once when too little is free; it takes the images away from the guest.
    """

    def __init__(self, place: FleecingPlace, give_up: Callable[[], None]) -> None:
        self._place = place
        self._give_up = give_up
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fleecing", daemon=True)
        self._gave_up = False

    def __enter__(self) -> SpaceWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        if self._gave_up and isinstance(value, HoldfastError):
            raise StorageError(
                f"the fleecing images filled {self._place.label}, so the backup was given up and the guest goes on",
                hint="choose a larger storage for fleecing, or a faster target for the backup",
            ) from value

    def is_needed(self) -> bool:
        """Whether the backup has to be given up."""
        return free_space(self._place.folder) < reserve_of(self._place.folder)

    def _watch(self) -> None:
        while not self._end.wait(_WATCH_SECONDS):
            if self.is_needed():
                self._gave_up = True
                self._give_up()
                return
