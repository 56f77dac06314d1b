# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The option ``ionice``: applied to a run, and whether the disks that the run reads and writes heed it."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Iterable, Iterator

from ..errors import ConfigError, GuestError
from ..guests.model import GuestInfo
from ..rules.precedence import DEFAULT
from ..storages.mounts import device_of
from ..system.host import Host
from ..system.priority import heedless_disks, set_io_priority
from ..system.report import Reporter
from .backup_setup import Prepared
from .stores import load_storages
from .volumes import describe_volumes


def lower_priority(host: Host, prepared: Prepared, guests: Iterable[GuestInfo], report: Reporter) -> None:
    """Give the run its priority, and say which disks ignore it, if somebody asked for one."""
    level = prepared.settings.ionice
    set_io_priority(level, report)
    if prepared.settings.options.sources["ionice"] == DEFAULT:
        return
    places = {prepared.storage.archives.path, *_volume_places(host, guests)}
    devices = {device for device in map(device_of, places) if device is not None}
    ignoring = {disk: name for device in devices for disk, name in heedless_disks(device, level).items()}
    if ignoring:
        disks = ", ".join(f"{disk} ({name})" for disk, name in sorted(ignoring.items()))
        report.warn(
            f"ionice {level} has no effect on disks whose I/O scheduler ignores it: {disks};"
            " choose bfq in /sys/block/DISK/queue/scheduler, or limit the run by bwlimit"
        )


def _volume_places(host: Host, guests: Iterable[GuestInfo]) -> Iterator[str]:
    """Paths on the file systems, or of the devices, with the guests' volumes, as far as they are easily told."""
    storages = load_storages(host)
    for info in guests:
        volumes: list[dict[str, Any]] = []
        # A config that cannot be read is met again by the guest's backup.
        with contextlib.suppress(ConfigError, GuestError):
            volumes = describe_volumes(host, info)
        for volume in volumes:
            volid = str(volume["volid"])
            definition = storages.get(volid.partition(":")[0])
            if os.path.isabs(volid):
                yield volid
            elif definition is not None and definition.path:
                yield definition.path
