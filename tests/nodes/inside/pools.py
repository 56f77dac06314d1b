# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools of the node for fleecing images, and looking into them beside the engine."""

from __future__ import annotations

import os
import subprocess
from typing import Union

from helpers.process import wait_for
from helpers.volumes import sh


class ThinPool:
    """A thin pool with the smallest chunks and as little metadata as there can be.

    :ivar section: how it is declared as the storage ``pool``.
    """

    def __init__(self, group: str, size: int) -> None:
        self.group = group
        self.size = size
        self.section = f"lvmthin: pool\n\tvgname {group}\n\tthinpool fleece\n\tcontent images\n\n"
        argv = ["lvcreate", "-q", "-L", f"{size}b", "-c", "64k", "--poolmetadatasize", "2M", "--thinpool", "fleece"]
        sh(*argv, group)

    def make(self, name: str, size: int) -> str:
        """Make a volume of somebody else's; returns its path."""
        sh("lvcreate", "-q", "-V", f"{size}b", "-n", name, "--thinpool", "fleece", self.group)
        return f"/dev/{self.group}/{name}"

    def volid(self, name: str) -> str:
        """How a guest's config names a volume."""
        return f"pool:{name}"

    def names(self) -> list[str]:
        """All volumes in it."""
        return sorted(sh("lvs", "--noheadings", "-o", "lv_name", "-S", "pool_lv=fleece", self.group).split())

    def used(self, name: str = "fleece") -> int:
        """Bytes that a volume takes, or all of them."""
        os.sync()
        argv = ["lvs", "--noheadings", "--nosuffix", "--units", "b", "-o", "lv_size,data_percent"]
        size, percent = sh(*argv, f"{self.group}/{name}").split()
        return round(int(size) * float(percent) / 100)

    def percents(self) -> list[float]:
        """How full its data and its metadata are."""
        os.sync()
        argv = ["lvs", "--noheadings", "-o", "data_percent,metadata_percent"]
        return [float(word) for word in sh(*argv, f"{self.group}/fleece").split()]

    def close(self) -> None:
        for name in [*self.names(), "fleece"]:
            sh("lvremove", "-q", "-f", f"{self.group}/{name}")


class ZfsDataset:
    """A dataset that may take so much; otherwise as :class:`ThinPool`."""

    def __init__(self, tank: str, size: int) -> None:
        self.name = f"{tank}/fleece"
        self.size = size
        self.section = f"zfspool: pool\n\tpool {self.name}\n\tcontent images\n\n"
        sh("zfs", "create", "-o", f"quota={size}", self.name)

    def make(self, name: str, size: int) -> str:
        path = f"/dev/zvol/{self.name}/{name}"
        sh("zfs", "create", "-s", "-V", str(size), f"{self.name}/{name}")
        wait_for(lambda: os.path.exists(path), path)
        return path

    def volid(self, name: str) -> str:
        return f"/dev/zvol/{self.name}/{name}"

    def names(self) -> list[str]:
        return [line.rpartition("/")[2] for line in sh("zfs", "list", "-H", "-o", "name", "-t", "volume").splitlines()]

    def used(self, name: str = "") -> int:
        """The same; what an empty volume takes for itself is left out."""
        os.sync()
        used = int(sh("zfs", "get", "-H", "-p", "-o", "value", "used", f"{self.name}/{name}".rstrip("/")))
        return used if used > 256 << 10 else 0

    def close(self) -> None:
        # udev may still look into the devices.
        wait_for(self._destroyed, f"zfs destroy {self.name}")

    def _destroyed(self) -> bool:
        return subprocess.run(["zfs", "destroy", "-r", self.name], check=False, capture_output=True).returncode == 0


Pool = Union[ThinPool, ZfsDataset]


def fill(path: str, size: int) -> None:
    """Overwrite the beginning of a block device, and wait for the device."""
    sh("dd", "if=/dev/urandom", f"of={path}", "bs=1M", f"count={size >> 20}", "conv=fsync,notrunc", "status=none")
