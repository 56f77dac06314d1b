# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that are raw images with a file system in them, and block devices that nothing here manages."""

from __future__ import annotations

import contextlib
import os

from ...errors import StorageError
from ...system.process import run
from ...system.trouble import refusal
from ..mounts import mounted_from
from .base import Volume, check_absent, need_size
from .folder import make_guest_folder, remove_empty_parent


class ImageVolume(Volume):
    """A raw image; ``mount`` sets up its loop device. It has no snapshots."""

    kind = "image"

    def create(self, size: int | None, owner: int) -> None:
        check_absent(self.source)
        bytes_wanted = need_size(self, size)
        try:
            make_guest_folder(os.path.dirname(self.source), owner)
            with open(self.source, "xb") as stream:
                os.fchmod(stream.fileno(), 0o640)
                stream.truncate(bytes_wanted)
        except OSError as exc:
            raise refusal(StorageError, f"create volume {self.source}", exc, self.source) from exc
        make_ext4(self.source, owner)

    def free(self) -> None:
        """An image that is mounted somewhere is kept: its loop device would hold the deleted file."""
        for device in _loop_devices(self.source):
            for place in mounted_from(device):
                raise StorageError(
                    f"cannot remove volume {self.source}: it is mounted on {place}", hint=f"umount {place}"
                )
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.source)
            self._leave()

    def _leave(self) -> None:
        """The image is gone from its folder."""
        remove_empty_parent(self.source)

    def mount_argv(self, place: str) -> list[str]:
        # For a regular file mount sets up a loop device by itself, and it is released with the last mount.
        return ["mount", "--", self.source, place]


class FileVolume(ImageVolume):
    """An image in a folder that is not ours, and stays when it is empty."""

    kind = "file"

    def _leave(self) -> None:
        """Nothing goes with it."""


def make_ext4(path: str, owner: int) -> None:
    """An empty ext4 whose root folder belongs to the container's root."""
    run(["mkfs.ext4", "-q", "-F", "-E", f"root_owner={owner}:{owner}", path], timeout=600, error=StorageError)


def _loop_devices(path: str) -> list[str]:
    if not os.path.isfile(path):
        return []
    argv = ["losetup", "--noheadings", "--output", "NAME", "--associated", path]
    return run(argv, timeout=60, error=StorageError).stdout.split()
