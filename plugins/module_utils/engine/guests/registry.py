# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kinds of guests on this node: finding all, opening one, and their undo handlers."""

from __future__ import annotations

import os
import re
from typing import Union

from ..errors import ConfigError, GuestError
from ..settings.guest_config import GuestConfig
from ..system.files import read_text
from ..system.host import Host
from ..system.undo import Handler
from .libvirt.guest import UNDO as LIBVIRT_UNDO
from .libvirt.guest import LibvirtGuest, list_domains
from .libvirt.tpm import UNDO as TPM_UNDO
from .lxc.guest import LxcGuest
from .lxc.native import NativeLxcGuest, list_native, native_guest_config
from .lxc.tools import UNDO as LXC_UNDO
from .model import GuestInfo, Resolve
from .qemu.adopted import UNDO as ADOPTED_UNDO
from .qemu.adopted import AdoptedGuest, list_adopted, read_adopted
from .qemu.guest import UNDO as QEMU_UNDO
from .qemu.guest import QemuGuest

Guest = Union[QemuGuest, LibvirtGuest, LxcGuest]

UNDO: dict[str, Handler] = {**QEMU_UNDO, **ADOPTED_UNDO, **LIBVIRT_UNDO, **TPM_UNDO, **LXC_UNDO}

_CONFIG = re.compile(r"([1-9]\d{2,8})\.conf")


def list_guests(host: Host) -> list[GuestInfo]:
    """Every guest defined on this node, by id within its kind.

    :raises ConfigError: one id is defined twice.
    """
    found = [
        *_defined(host.paths.qemu_configs, "qemu", "name", "VM"),
        *_defined(host.paths.lxc_configs, "lxc", "hostname", "CT"),
        *list_native(host),
        *list_adopted(host),
        *list_domains(host),
    ]
    seen: dict[int, GuestInfo] = {}
    for info in found:
        if info.vmid in seen:
            raise ConfigError(
                f"guest id {info.vmid} is defined twice: {seen[info.vmid].config_path} and {info.config_path}",
                hint="give one of them another id",
            )
        seen[info.vmid] = info
    return found


def open_guest(host: Host, info: GuestInfo, resolve: Resolve) -> Guest:
    """A handle on a guest.

    :raises GuestError: its definition is gone; :raises ConfigError: it cannot be parsed.
    """
    if info.kind == "libvirt":
        return LibvirtGuest(host, info)
    if info.kind == "adopted":
        return AdoptedGuest(host, info)
    if info.native:
        return NativeLxcGuest(host, info)
    text = read_text(info.config_path)
    if text is None:
        raise GuestError(f"guest {info.vmid} ({info.name}) does not exist: {info.config_path} is gone")
    config = GuestConfig.parse(text, info.config_path)
    if info.kind == "qemu":
        return QemuGuest(host, info, config, resolve)
    if info.kind == "lxc":
        return LxcGuest.managed(host, info, config, resolve)
    raise GuestError(f"guest {info.vmid} is of the unknown kind {info.kind!r}")


def guest_text(host: Host, info: GuestInfo) -> str:
    """A guest's definition in Proxmox VE syntax: its own, or the one made from what it is; empty if it is gone."""
    if info.kind == "libvirt":
        return LibvirtGuest(host, info).config.to_text()
    if info.kind == "adopted":
        return read_adopted(info.config_path).config.to_text()
    if info.native:
        return native_guest_config(info).to_text()
    return read_text(info.config_path) or ""


def _defined(folder: str, kind: str, name_key: str, prefix: str) -> list[GuestInfo]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = []
    for match in filter(None, map(_CONFIG.fullmatch, names)):
        path = os.path.join(folder, match[0])
        text = read_text(path)
        if text is None:
            continue
        # A config with a wrong line is a matter of its own guest, not of all that are listed with it.
        config = GuestConfig.parse(text, path, strict=False)
        found.append(
            GuestInfo(
                kind=kind,
                vmid=int(match[1]),
                name=config.get(name_key) or f"{prefix}{match[1]}",
                tags=tuple(filter(None, re.split(r"[;,\s]+", config.get("tags") or ""))),
                pool=config.get("pool") or "",
                template=config.get("template") == "1",
                config_path=path,
            )
        )
    return sorted(found, key=lambda info: info.vmid)
