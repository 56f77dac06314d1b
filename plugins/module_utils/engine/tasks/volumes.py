# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backup would take of a guest, read from its config alone."""

from __future__ import annotations

from typing import Any

from ..guests.model import GuestInfo
from ..settings.ct_config import ct_mounts
from ..settings.guest_config import GuestConfig
from ..settings.sizes import parse_size
from ..settings.vm_config import vm_disks
from ..system.host import Host
from .restore_plan import existing_text


def describe_volumes(host: Host, info: GuestInfo) -> list[dict[str, Any]]:
    """Every volume of a guest: ``key``, ``volid``, ``size`` (bytes or ``None``), ``included`` and ``reason``."""
    config = GuestConfig.parse(existing_text(host, info), info.config_path)
    if info.kind == "lxc":
        return [
            {
                "key": mount.key,
                "volid": mount.volume,
                "size": parse_size(mount.options.get("size", "")),
                "included": mount.included,
                "reason": mount.reason,
            }
            for mount in ct_mounts(config)
        ]
    return [
        {
            "key": drive.key,
            "volid": drive.volid,
            "size": parse_size(drive.options.get("size", "")),
            "included": drive.backup,
            "reason": drive.reason,
        }
        for drive in vm_disks(config)
    ]
