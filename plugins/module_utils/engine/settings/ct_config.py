# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container config says about its file systems, users and network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Mapping

from ..errors import ConfigError
from .guest_config import GuestConfig
from .propstring import parse_flag, parse_property_string


@dataclass(frozen=True)
class Mount:
    """``rootfs`` or one ``mpN``.

    :param type: ``volume`` (a storage's), ``bind`` (a host folder) or ``device`` (a host block device).
    :param mountpoint: absolute path inside the container; ``/`` for the root.
    :param included: whether a backup takes it; :param reason: why, or why not.
    """

    key: str
    volume: str
    type: str
    mountpoint: str
    backup: bool
    options: Mapping[str, str]
    included: bool
    reason: str
    read_only: bool = False


def ct_mounts(config: GuestConfig) -> list[Mount]:
    """The root and all mount points, in the order of their numbers.

    :raises ConfigError: no root, no volume, or a mount point that is no plain absolute path.
    """
    keys = [key for key, _value in config.items() if re.fullmatch(r"rootfs|mp\d+", key)]
    if "rootfs" not in keys:
        raise ConfigError("the container config has no 'rootfs'")
    ordered = sorted(keys, key=lambda key: -1 if key == "rootfs" else int(key[2:]))
    template = config.get("template") == "1"
    return [_mount(key, config.get(key) or "", template) for key in ordered]


def is_unprivileged(config: GuestConfig) -> bool:
    """Whether the container's users are shifted on the host."""
    return parse_flag(config.get("unprivileged") or "0", "unprivileged")


def ct_nets(config: GuestConfig) -> list[tuple[str, dict[str, str]]]:
    """``netN`` lines as key and options, by number."""
    found = [(key, parse_property_string(value)) for key, value in config.items() if re.fullmatch(r"net\d+", key)]
    return sorted(found, key=lambda item: int(item[0][3:]))


def _mount(key: str, value: str, template: bool) -> Mount:
    options = parse_property_string(value, "volume")
    volume = options.pop("volume", "")
    if not volume:
        raise ConfigError(f"{key}: {value!r} names no volume", hint="write 'storage:volume,mp=/path'")
    mountpoint = "/" if key == "rootfs" else options.get("mp", "")
    if not mountpoint.startswith("/") or any(part in (".", "..") for part in mountpoint.split("/")):
        raise ConfigError(f"{key}: the mount point {mountpoint!r} is not an absolute path inside the container")
    kind = "device" if volume.startswith("/dev/") else "bind" if volume.startswith("/") else "volume"
    backup = key == "rootfs" or parse_flag(options.get("backup", "0"), f"{key}: backup")
    if key == "rootfs":
        included, reason = True, "the root is always part of the backup"
    elif kind != "volume":
        included, reason = False, f"{kind} mount points are never part of a backup"
    elif backup:
        included, reason = True, "backup=1"
    else:
        included, reason = False, "backup is not 1"
    # The mount points of a template are read-only unless they say otherwise.
    read_only = parse_flag(options.get("ro", str(int(template and key != "rootfs"))), f"{key}: ro")
    return Mount(key, volume, kind, mountpoint, backup, options, included, reason, read_only)
