# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fleecing images: what a running VM overwrites is kept in them until the backup has read it.

They are as large as the disks, but hold only what the guest overwrites before it is read. When their storage is about
to be full the backup is given up, so that neither the guest nor the host, nor other guests with disks there, run out of
space because of it.
"""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import Callable, Iterable

from ..errors import HoldfastError, StorageError
from ..storages.scratch import ScratchImage, ScratchSpace
from ..system.undo import UndoStack

_WATCH_SECONDS = 1.0


def make_image(space: ScratchSpace, size: int, undo: UndoStack, fmt: str = "") -> tuple[ScratchImage, int]:
    """Make one empty image; returns it and the undo token that removes it.

    :raises StorageError: there is no room for it, or it cannot be made.
    """
    space.check()
    image = space.image(fmt)
    kind, data = image.undo
    token = undo.push(kind, **data)
    image.create(size)
    return image, token


def remove_images(tokens: Iterable[int], undo: UndoStack) -> None:
    """Remove images by their undo tokens. What does not succeed is tried again at the end, which tells of it."""
    for token in tokens:
        with contextlib.suppress(StorageError, OSError):
            undo.undo(token)


class SpaceWatch:
    """Watches the room for fleecing images in a thread while the block runs.

    The copy itself may be stuck in a write to a dead target, so the watch does not rely on it.

    :param give_up: called once when too little is free; it takes the images away from the guest, and removes them.
    """

    def __init__(self, space: ScratchSpace, give_up: Callable[[], None]) -> None:
        self._space = space
        self._give_up = give_up
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fleecing", daemon=True)
        self._short = ""

    def __enter__(self) -> SpaceWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        if self._short and isinstance(value, HoldfastError):
            raise StorageError(
                f"the fleecing images filled {self._space.label}, so the backup was given up and the guest goes on:"
                f" {self._short}",
                hint="choose a larger storage for fleecing, or a faster target for the backup",
            ) from value

    def trouble(self) -> str:
        """Why the backup has to be given up, empty when it can go on."""
        return self._space.shortage()

    def _watch(self) -> None:
        while not self._end.wait(_WATCH_SECONDS):
            # A state that cannot be told is met again by whoever reads the disks.
            with contextlib.suppress(HoldfastError):
                self._short = self.trouble()
            if self._short:
                # What does not succeed here is tried again at the end of the backup.
                with contextlib.suppress(HoldfastError, OSError):
                    self._give_up()
                return
