# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that are ZFS datasets."""

from __future__ import annotations

import contextlib
import os

from ...errors import DependencyError, StorageError
from ...system.process import run
from ..mounts import filesystem_type
from .base import SNAPSHOT, Volume


class ZfsVolume(Volume):
    """A dataset; its size is its quota for referenced data, as in Proxmox VE."""

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

    def free(self) -> None:
        if _exists(self.source):
            zfs("destroy", "-r", self.source)

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
