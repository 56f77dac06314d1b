# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Root file systems of native LXC containers that are overlays of folders."""

from __future__ import annotations

from ...errors import StorageError
from .base import Volume

PREFIXES = ("overlay:", "overlayfs:")


class OverlayVolume(Volume):
    """``overlay:LOWER:...:UPPER`` as LXC writes it. It can be read while the container is stopped; it has no snapshots.

    Containers on overlays are restored to other kinds of volumes.
    """

    kind = "overlay"

    def create(self, size: int | None, owner: int) -> None:
        raise StorageError(f"cannot create {self.source}: overlays are not made here")

    def free(self) -> None:
        raise StorageError(f"cannot remove {self.source}: overlays are not removed here")

    def mount_argv(self, place: str) -> list[str]:
        # Without an upper folder it is read-only, and nothing needs a work folder. The upper one comes first here.
        folders = reversed(self.source.partition(":")[2].split(":"))
        return ["mount", "-t", "overlay", "-o", f"ro,lowerdir={':'.join(folders)}", "overlay", place]

    def mount(self, place: str, *, read_only: bool = False) -> None:
        super().mount(place)
