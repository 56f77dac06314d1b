# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that are LVM thin volumes with a file system in them."""

from __future__ import annotations

import os
import re

from ...errors import StorageError
from ...system.process import run
from .base import SNAPSHOT, BlockVolume, need_size
from .image import make_ext4

_READ_AS_IT_IS = {"ext3": "ro,noload", "ext4": "ro,noload", "xfs": "ro,norecovery,nouuid"}
"""The kernel freezes a mounted file system while its device is snapshotted, so there is no journal to replay; and the
snapshot cannot be written to. XFS refuses a second file system with the same identity unless told otherwise."""


class LvmThinVolume(BlockVolume):
    """A thin volume, named ``VG/LV``. Its snapshot is another volume in the pool.

    :param pool: thin pool, needed only to create.
    """

    kind = "lvmthin"

    def __init__(self, source: str, pool: str = "") -> None:
        super().__init__(source)
        self._group, _slash, self._name = source.partition("/")
        self._pool = pool

    @property
    def device(self) -> str:
        """Path of its block device while it is active."""
        return f"/dev/{self.source}"

    @property
    def _snapshot(self) -> str:
        return f"{self._group}/snap_{self._name}_{SNAPSHOT}"

    def create(self, size: int | None, owner: int) -> None:
        self.allocate(need_size(self, size))
        make_ext4(self.device, owner)

    def allocate(self, size: int, mark: str = "") -> None:
        """:param mark: becomes a tag."""
        sectors = -(-size // 512)
        if _exists(self.source):
            raise StorageError(f"cannot create volume {self.source}: it exists already", hint=f"lvremove {self.source}")
        tag = ["--addtag", mark] if mark else []
        lvm("lvcreate", "-aly", "-Wy", "--yes", *tag, "-V", f"{sectors}s", "-n", self._name, "--thinpool",
            f"{self._group}/{self._pool}")  # fmt: skip

    def has_mark(self, mark: str) -> bool:
        # Asked of the group: what it says of a volume that is gone cannot be told from other failures.
        listed = lvm("lvs", "--noheadings", "--separator", ":", "-o", "lv_name,lv_tags", "--", self._group)
        tags = dict(line.strip().split(":", 1) for line in listed.splitlines())
        return mark in tags.get(self._name, "").split(",")

    def free(self) -> None:
        self.remove_snapshot()
        self._remove(self.source)

    def mount_argv(self, place: str) -> list[str]:
        return ["mount", "--", self.device, place]

    def mount(self, place: str, *, read_only: bool = False) -> None:
        lvm("lvchange", "-aly", "-K", self.source)
        super().mount(place, read_only=read_only)

    def can_snapshot(self) -> bool:
        return True

    def has_snapshot(self) -> bool:
        return _exists(self._snapshot)

    def take_snapshot(self) -> None:
        lvm("lvcreate", "-an", "-kn", "-pr", "-n", self._snapshot.partition("/")[2], "-s", self.source)

    def mount_snapshot(self, place: str) -> None:
        lvm("lvchange", "-aly", "-K", self._snapshot)
        device = f"/dev/{self._snapshot}"
        done = run(["blkid", "-p", "-o", "value", "-s", "TYPE", device], timeout=60, error=StorageError)
        options = _READ_AS_IT_IS.get(done.stdout.strip(), "ro")
        run(["mount", "-o", options, "--", device, place], timeout=120, error=StorageError)

    def remove_snapshot(self) -> None:
        self._remove(self._snapshot)

    @staticmethod
    def _remove(name: str) -> None:
        if _exists(name):
            lvm("lvremove", "-f", name)


def thin_volume_at(path: str) -> str:
    """``VG/LV`` of the thin volume behind a block device, empty when it is none."""
    if not os.path.exists("/dev/mapper/control"):
        return ""
    options = ["--noheadings", "--separator", ":", "-o", "segtype,vg_name,lv_name"]
    done = run(["lvs", *options, "--", path], check=False, timeout=60, error=StorageError)
    found = re.fullmatch(r"\s*thin:([^:\s]+):([^:\s]+)\s*", done.stdout)
    return f"{found[1]}/{found[2]}" if found and done.returncode == 0 else ""


def lvm(*argv: str) -> str:
    """Run one of LVM's commands and return its output."""
    return run([argv[0], "-qq", *argv[1:]], timeout=300, error=StorageError).stdout


def lvm_fields(name: str, *fields: str) -> list[str]:
    """What LVM tells of a volume or pool ``VG/LV``, sizes in bytes."""
    options = ("--noheadings", "--nosuffix", "--units", "b", "--separator", ":", "-o", ",".join(fields))
    return lvm("lvs", *options, "--", name).strip().split(":")


def pool_status(group: str, pool: str) -> str:
    """The kernel's status line of an active thin pool. Asking it costs little: LVM reads no metadata for it.

    :raises StorageError: the pool is not active.
    """
    mapped = "-".join(part.replace("-", "--") for part in (group, pool))
    listed = run(["dmsetup", "status", "--target", "thin-pool"], timeout=60, error=StorageError).stdout
    for line in listed.splitlines():
        name, _colon, status = line.partition(": ")
        # The second one is the pool itself as soon as it has volumes.
        if name in (mapped, f"{mapped}-tpool"):
            return status
    raise StorageError(f"the thin pool {group}/{pool} is not active", hint=f"lvchange -ay {group}/{pool}")


def _exists(name: str) -> bool:
    done = run(["lvs", "--noheadings", "-o", "lv_name", "--", name], check=False, timeout=60, error=StorageError)
    return done.returncode == 0
