# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the rest of the engine knows about a guest and its volumes, whatever its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable


@dataclass(frozen=True)
class GuestInfo:
    """One guest defined on this node.

    :param kind: ``qemu``, ``adopted`` (a VM that somebody else starts), ``libvirt`` or ``lxc``.
    :param config_path: file that defines it; of a libvirt domain, the connection's URI and its name.
    """

    kind: str
    vmid: int
    name: str
    tags: tuple[str, ...]
    pool: str
    template: bool
    config_path: str

    @property
    def archive_kind(self) -> str:
        """The kind in names of archives."""
        return archive_kind(self.kind)

    @property
    def native(self) -> bool:
        """Whether LXC's own config defines the container."""
        return self.kind == "lxc" and self.config_path.endswith("/config")

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{'CT' if self.kind == 'lxc' else 'VM'} {self.vmid} ({self.name})"


def archive_kind(kind: str) -> str:
    """The kind in names of archives of a kind of guest: ``qemu`` for every VM, else ``lxc``."""
    return "lxc" if kind == "lxc" else "qemu"


@dataclass(frozen=True)
class ResolvedVolume:
    """Where a volume id leads on this node.

    :param path: absolute path of the image file, block device or directory.
    :param format: ``raw``, ``qcow2`` or ``subvol``.
    """

    path: str
    format: str


Resolve = Callable[[str], ResolvedVolume]
"""Turns a volume id of a guest config (``local:100/vm-100-disk-0.qcow2`` or an absolute path) into its place."""
