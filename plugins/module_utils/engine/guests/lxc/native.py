# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers that LXC's own configs define: ``/var/lib/lxc/<name>/config``."""

from __future__ import annotations

import os

from ...errors import ConfigError
from ...settings.ct_config import Mount
from ...settings.guest_config import GuestConfig
from ...settings.native_lxc import config_from_native, native_root
from ...system.files import read_text
from ...system.host import Host
from ..model import GuestInfo, ResolvedVolume
from ..vmids import stable_vmids
from .guest import LxcGuest
from .tools import LxcTools

STORAGE = "lxc"
"""Storage in the archived config of a native container, whose root lies on none."""


def list_native(host: Host) -> list[GuestInfo]:
    """Every native container with a root of its own."""
    folder = host.paths.lxc_native
    names = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if not os.path.isdir(os.path.join(folder, name)):
            continue
        try:
            native_root(read_text(os.path.join(folder, name, "config")) or "")
        except ConfigError:
            continue
        names.append(name)
    if not names:
        return []
    identities = {name: f"lxc:{host.node}/{name}" for name in names}
    vmids = stable_vmids(host, identities.values())
    return [
        GuestInfo("lxc", vmids[identities[name]], name, (), "", False, os.path.join(folder, name, "config"))
        for name in names
    ]


def native_guest_config(info: GuestInfo) -> GuestConfig:
    """Its Proxmox VE config, made from LXC's own.

    :raises ConfigError: the native config is gone or says nothing of a root.
    """
    return config_from_native(info.name, read_text(info.config_path) or "")


class NativeLxcGuest(LxcGuest):
    """One native container; its config is only read."""

    def __init__(self, host: Host, info: GuestInfo) -> None:
        super().__init__(info, native_guest_config(info), _no_volumes, LxcTools(host.paths.lxc_native, info.name))
        self._native = read_text(info.config_path) or ""

    @property
    def native_config(self) -> str | None:
        return self._native

    def archived_config(self) -> GuestConfig:
        """The config for archives: its root becomes a volume, so that it can be restored anywhere."""
        return self.config.with_changes({"rootfs": f"{STORAGE}:subvol-{self.info.vmid}-disk-0"})

    def source(self, mount: Mount) -> str:
        return native_root(self._native) if mount.key == "rootfs" else mount.volume

    def place(self, mount: Mount) -> str:
        return self.source(mount)

    def _prepare(self) -> None:
        """LXC has its config already."""


def _no_volumes(volid: str) -> ResolvedVolume:
    raise ConfigError(f"a native container has no volumes on storages: {volid}")
