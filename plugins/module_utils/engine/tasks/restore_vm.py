# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The VM side of a restore."""

from __future__ import annotations

import os
from typing import Mapping, Sequence

from ..errors import IntegrityError, UsageError
from ..guests.model import GuestInfo
from ..storages.base import Need, Storage
from ..storages.device import DeviceStorage
from ..storages.dump import Archive
from ..system.host import Host
from ..system.report import Reporter
from ..system.undo import UndoStack
from .guests import list_guests
from .requests import RestoreRequest
from .restore_config import MapLine, config_lines, disk_map, split_volume, transform_vm
from .restore_plan import NewVolume, RestorePlan, check_space, choose_storage, existing_text, settle, taken_macs
from .restore_wishes import Wish, choose_image_format, parse_wishes
from .results import PlannedVolume
from .undoing import FOLDER, make_folder


def plan_vm(
    host: Host,
    request: RestoreRequest,
    archive: Archive,
    text: str,
    devices: dict[str, int],
    existing: GuestInfo | None,
    *,
    write: bool,
) -> RestorePlan:
    """Which volumes to make for the devices in the archive, and the config that names them.

    :raises IntegrityError: the archived config and the devices in the archive do not fit.
    """
    volumes: list[NewVolume] = []
    lines = mapped_disks(text, devices)
    wishes = parse_wishes(request.volumes, {line.key: line for line in lines})
    for line in lines:
        wish, size = wishes.get(line.key, Wish()), devices[line.device]
        if wish.storage is not None and os.path.isabs(wish.storage):
            storage = open_device(host, wish.storage, size, existing)
        else:
            storage = choose_storage(host, request, line.storage, "images", write=write, wanted=wish.storage)
        volumes.append(new_disk(request.vmid, line.key, line, size, storage, wish, volumes))
    done = transform_vm(
        text,
        {volume.planned.key: (volume.planned.volid or "", volume.planned.size or 0) for volume in volumes},
        unique=request.unique,
        trust=request.trust_config,
        overrides=request.overrides,
        taken_macs=taken_macs(host) if request.unique else (),
    )
    check_space(archive, volumes)
    plan = settle(host, request, archive, "qemu", done, volumes, existing)
    plan.result.size = sum(devices.values())
    plan.result.warnings += overwritten(volumes)
    return plan


def new_disk(
    vmid: int, key: str, line: MapLine, size: int, storage: Storage, wish: Wish, others: Sequence[NewVolume]
) -> NewVolume:
    """The volume to be made for a disk.

    :param key: its key in the restored guest; :param others: what is to be made beside it.
    :raises UsageError: a wish that the storage cannot fulfil.
    """
    fmt = choose_image_format(storage, line.format, wish)
    volid = storage.volumes.next_volume(vmid, fmt, frozenset(other.planned.volid or "" for other in others))
    volname = volid if os.path.isabs(volid) else volid.partition(":")[2]
    planned = PlannedVolume(key, storage.name, fmt, size, volid, line.device)
    return NewVolume(planned, storage, volname, storage.volumes.locate(volname)[0], line.device)


def overwritten(volumes: Sequence[NewVolume]) -> list[str]:
    """Warnings about devices that cannot be put back."""
    return [
        f"{volume.planned.key}: {volume.path} is overwritten in place; a restore that fails leaves it in pieces"
        for volume in volumes
        if not volume.made
    ]


def open_device(host: Host, path: str, size: int, existing: GuestInfo | None) -> Storage:
    """A block device as the place for a disk.

    :raises StorageError: it is none, too small, or in use; :raises UsageError: another guest has it.
    """
    storage = DeviceStorage(path, host)
    storage.activate(Need("images", write=True))
    storage.check_space(size, "the disk")
    for info in list_guests(host):
        text = existing_text(host, info) if existing is None or info.vmid != existing.vmid else ""
        if any(split_volume(value)[0] == path for _key, value in config_lines(text)[1]):
            raise UsageError(
                f"cannot restore to {path}: it is a disk of guest {info.vmid} ({info.name})", hint="use another one"
            )
    return storage


def mapped_disks(text: str, devices: Mapping[str, int]) -> list[MapLine]:
    """Which device of the archive belongs to which drive, by the drives' keys.

    :raises IntegrityError: the archived config and the devices in the archive do not fit.
    """
    keys = dict(config_lines(text)[1])
    lines = sorted(disk_map(text), key=lambda line: line.key)
    missing = sorted(set(devices) - {line.device for line in lines})
    if missing:
        raise IntegrityError(
            f"its config does not say where {', '.join(missing)} belongs",
            hint="the archived qemu-server.conf lacks '#qmdump#map' lines",
        )
    for line in lines:
        if line.device not in devices:
            raise IntegrityError(f"it holds no data for {line.key} ({line.device})")
        if line.key not in keys:
            raise IntegrityError(f"its config has no drive {line.key} for the data of {line.device}")
    return lines


def fill_vm(host: Host, plan: RestorePlan, request: RestoreRequest, undo: UndoStack, report: Reporter) -> int:
    """Write the archive's devices to the new volumes; returns the bytes of the guest's disks."""
    from ..capture.vm_restore import Target, extract_vma
    from ..stream.progress import Progress
    from ..stream.source import open_source

    total = plan.result.size or 0
    targets = {
        volume.device: Target(volume.path, volume.planned.format, volume.stale_bytes()) for volume in plan.volumes
    }
    folder = os.path.join(host.paths.qemu_run, f"{request.vmid}.restore")
    token = undo.push(FOLDER, path=folder)
    make_folder(folder)
    with open_source(plan.archive.path, request.bwlimit or 0) as source:
        extract_vma(source, targets, Progress(total, report), report, workdir=folder)
    undo.undo(token)
    return total
