# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a VM config says about disks, network and guest agent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Mapping

from ..errors import ConfigError
from .guest_config import GuestConfig
from .propstring import parse_flag, parse_property_string

FIREWALL_BLOB = "qemu-server.fw"
"""Name of the firewall's rules in archives."""
TPM_BYTES = 4 << 20
"""Size of the volume ``tpmstate0``."""
_DRIVE = re.compile(r"(?:ide[0-3]|sata[0-5]|scsi(?:[0-9]|[12][0-9]|30)|virtio(?:[0-9]|1[0-5])|efidisk0|tpmstate0)")
_ORDER = ("ide", "scsi", "virtio", "sata", "efidisk", "tpmstate")
_CLOUDINIT = re.compile(r"[:/](?:vm-\d+-)?cloudinit(?:\.[a-z0-9]+)?$")


@dataclass(frozen=True)
class Drive:
    """One drive line.

    :param volid: volume id, absolute path, ``none`` or ``cdrom``.
    :param backup: whether a backup takes it; :param reason: why, or why not.
    """

    key: str
    volid: str
    options: Mapping[str, str]
    is_cdrom: bool
    is_cloudinit: bool
    backup: bool
    reason: str

    @property
    def interface(self) -> str:
        """``scsi``, ``virtio``, ``ide``, ``sata``, ``efidisk`` or ``tpmstate``."""
        return self.key.rstrip("0123456789")

    @property
    def index(self) -> int:
        return int(self.key[len(self.interface) :])

    @property
    def storage(self) -> str:
        """Name of its storage; empty for an absolute path."""
        return "" if self.volid.startswith("/") else self.volid.partition(":")[0]


@dataclass(frozen=True)
class AgentSettings:
    """:param freeze_fs: freeze the guest's file systems for a backup; :param type: ``virtio`` or ``isa``."""

    enabled: bool = False
    freeze_fs: bool = True
    type: str = "virtio"


@dataclass(frozen=True)
class Nic:
    """One ``netN`` line; ``mac`` is empty when QEMU shall choose."""

    key: str
    model: str
    mac: str
    bridge: str
    options: Mapping[str, str]


def vm_disks(config: GuestConfig) -> list[Drive]:
    """All drives, in the order of interfaces and numbers that backups use.

    :raises ConfigError: a drive line names no volume.
    """
    ovmf = config.get("bios") == "ovmf"
    drives = [_drive(key, value, ovmf) for key, value in config.items() if _DRIVE.fullmatch(key)]
    return sorted(drives, key=lambda drive: (_ORDER.index(drive.interface), drive.index))


def agent_settings(config: GuestConfig) -> AgentSettings:
    """The ``agent`` line; without one there is no agent.

    :raises ConfigError: a value that is no boolean.
    """
    values = parse_property_string(config.get("agent") or "", "enabled")
    enabled = parse_flag(values.get("enabled", "0"), "agent")
    freeze = True
    for alias in ("freeze-fs", "freeze-fs-on-backup", "guest-fsfreeze"):
        if alias in values:
            freeze = parse_flag(values[alias], f"agent: {alias}")
    return AgentSettings(enabled, freeze, values.get("type", "virtio"))


def vm_nics(config: GuestConfig) -> list[Nic]:
    """All network cards, by number."""
    nics = []
    for key, value in config.items():
        if not re.fullmatch(r"net\d+", key):
            continue
        options = parse_property_string(value, "model")
        model, mac = options.pop("model", ""), options.pop("macaddr", "")
        if not model:
            # The usual short form: the model is the key of the address (virtio=BC:24:11:00:00:01).
            model, mac = next(iter(options.items()), ("", ""))
            options.pop(model, None)
        nics.append(Nic(key, model, mac, options.pop("bridge", ""), options))
    return sorted(nics, key=lambda nic: int(nic.key[3:]))


def _drive(key: str, value: str, ovmf: bool) -> Drive:
    options = parse_property_string(value, "file")
    volid = options.pop("file", options.pop("volume", ""))
    if not volid:
        raise ConfigError(f"{key}: {value!r} names no volume", hint="write 'storage:vmid/image,options'")
    wanted = parse_flag(options.get("backup", "1"), f"{key}: backup")
    cloudinit = _CLOUDINIT.search(volid) is not None
    cdrom = options.get("media") == "cdrom" or volid in ("none", "cdrom")
    if cloudinit:
        backup, reason = False, "made anew from the config"
    elif cdrom:
        backup, reason = False, "a CD drive"
    elif not wanted:
        backup, reason = False, "backup is 0"
    elif key == "efidisk0" and not ovmf:
        backup, reason = False, "the bios is not ovmf"
    else:
        backup, reason = True, "disk"
    return Drive(key, volid, options, cdrom, cloudinit, backup, reason)
