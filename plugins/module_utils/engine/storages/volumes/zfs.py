# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that are ZFS datasets."""

from __future__ import annotations

import contextlib
import os
import time

from ...errors import DependencyError, StorageError
from ...system.process import run
from ..mounts import filesystem_type
from .base import SNAPSHOT, BlockVolume

_MARK = "holdfast:fleece"
_GRAIN = 1 << 20
"""Sizes of zvols are multiples of their blocks, which are smaller."""
_UDEV_SECONDS = 10.0


class ZfsVolume(BlockVolume):
    """A dataset, whose size is its quota for referenced data, as in Proxmox VE; or a zvol, when it was allocated."""

    kind = "zfs"

    @property
    def _snapshot(self) -> str:
        return f"{self.source}@{SNAPSHOT}"

    def create(self, size: int | None, owner: int) -> None:
        if _exists(self.source):
            raise StorageError(
                f"cannot create volume {self.source}: it exists already", hint=f"zfs destroy {self.source}"
            )
        quota = ["-o", f"refquota={size}"] if size else []
        zfs("create", "-o", "acltype=posixacl", "-o", "xattr=sa", *quota, self.source)
        os.chown(_property(self.source, "mountpoint"), owner, owner)

    @property
    def device(self) -> str:
        return f"/dev/zvol/{self.source}"

    def allocate(self, size: int, mark: str = "") -> None:
        """:param mark: becomes a property."""
        marked = ["-o", f"{_MARK}={mark}"] if mark else []
        zfs("create", "-s", *marked, "-V", str(-(-size // _GRAIN) * _GRAIN), self.source)
        deadline = time.monotonic() + _UDEV_SECONDS
        while not os.path.exists(self.device):
            if time.monotonic() > deadline:
                raise StorageError(
                    f"the device {self.device} does not appear within {_UDEV_SECONDS:g} s",
                    hint="see whether udev runs: it makes the devices of ZFS volumes",
                )
            time.sleep(0.05)

    def has_mark(self, mark: str) -> bool:
        # Asked of what is above: what it says of a volume that is gone cannot be told from other failures.
        above = self.source.rpartition("/")[0]
        listed = zfs("get", "-H", "-o", "name,value", "-d", "1", "-t", "volume", _MARK, above)
        return [self.source, mark] in [line.split("\t") for line in listed.splitlines()]

    def free(self) -> None:
        deadline = time.monotonic() + _UDEV_SECONDS
        while _exists(self.source):
            try:
                zfs("destroy", "-r", self.source)
            except StorageError:
                # udev looks into the devices of zvols that were just closed.
                if not os.path.exists(self.device) or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def mount_argv(self, place: str) -> list[str]:
        return ["mount", "--bind", "--", _property(self.source, "mountpoint"), place]

    def mount(self, place: str, *, read_only: bool = False) -> None:
        if _property(self.source, "mounted") != "yes":
            zfs("mount", self.source)
        super().mount(place, read_only=read_only)

    def can_snapshot(self) -> bool:
        return True

    def has_snapshot(self) -> bool:
        return _exists(self._snapshot)

    def take_snapshot(self) -> None:
        zfs("snapshot", self._snapshot)

    def mount_snapshot(self, place: str) -> None:
        run(["mount", "-t", "zfs", "-o", "ro", "--", self._snapshot, place], timeout=120, error=StorageError)

    def remove_snapshot(self) -> None:
        if self.has_snapshot():
            zfs("destroy", self._snapshot)


def dataset_at(path: str) -> str:
    """The dataset that is mounted exactly there, empty when there is none."""
    if filesystem_type(path) != "zfs":
        return ""
    with contextlib.suppress(DependencyError, StorageError):
        name, mounted = zfs("list", "-H", "-o", "name,mountpoint", "--", path).rstrip("\n").split("\t")
        return name if os.path.realpath(mounted) == os.path.realpath(path) else ""
    return ""


def zfs(*arguments: str) -> str:
    """Run ``zfs`` and return its output."""
    return run(["zfs", *arguments], timeout=300, error=StorageError).stdout


def _exists(name: str) -> bool:
    done = run(
        ["zfs", "list", "-H", "-o", "name", "-t", "all", "--", name], check=False, timeout=60, error=StorageError
    )
    return done.returncode == 0


def _property(name: str, key: str) -> str:
    return zfs("get", "-H", "-p", "-o", "value", key, name).strip()
