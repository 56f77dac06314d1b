# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the disks of a restored domain go, and what becomes of those of a replaced one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping

from ..errors import IntegrityError, StorageError, UsageError
from ..guests.model import GuestInfo
from ..settings.domain_xml import NVRAM_KEY, TPM_KEY, Domain, DomainDisk
from ..storages.base import Need, Storage
from ..storages.plain import PlainFolder
from ..storages.volumes.base import Volume
from ..storages.volumes.image import FileVolume
from ..storages.volumes.registry import open_volume
from ..system.host import Host
from ..system.undo import Handler
from .requests import RestoreRequest
from .restore_config import disk_map
from .restore_domain_tpm import place_tpm
from .restore_plan import Contents, NewVolume, RestorePlan, choose_storage, journal_entry
from .restore_vm import new_disk, open_device
from .restore_wishes import Wish, parse_wishes
from .stores import get_storage, load_storages

if TYPE_CHECKING:
    from ..guests.libvirt.connection import LibvirtSettings
    from ..guests.libvirt.definition import Definitions

UNNAMED = "task.domain"
"""Undo kind: volumes that are of no use unless a domain's definition names them: ``uri``, ``uuid``, ``volumes`` (path,
kind, source)."""


def place_disks(
    host: Host,
    request: RestoreRequest,
    contents: Contents,
    domain: Domain,
    name: str,
    identity: str,
    existing: GuestInfo | None,
    settings: LibvirtSettings,
    definitions: Definitions,
    *,
    write: bool,
) -> list[NewVolume]:
    """Where each device of the archive goes; keys are libvirt's targets.

    :param name: of the restored domain, and :param identity: its uuid.
    :raises IntegrityError: a device that is no disk of the archived domain.
    """
    from ..guests.libvirt.tpm import tpm_folder

    known = {disk.key: disk for disk in domain.disks}
    lines = {line.device: line for line in disk_map(contents.config)}
    beside = (NVRAM_KEY, TPM_KEY) if domain.emulated_tpm is not None else (NVRAM_KEY,)
    for device in contents.devices:
        if device not in lines or lines[device].key not in (*known, *beside):
            raise IntegrityError(f"its domain has no disk for the data of {device}", hint="restore it as kind qemu")
    for key in beside:
        if key in request.volumes:
            raise UsageError(
                f"cannot place {key}: libvirt keeps UEFI variables and TPMs of domains in folders of its own",
                hint="place the disks alone",
            )
    archived = [lines[device].key for device in contents.devices]
    wishes = parse_wishes(request.volumes, {known[key].target: key for key in archived if key in known})
    volumes: list[NewVolume] = []
    for device, size in contents.devices.items():
        line = lines[device]
        if line.key == NVRAM_KEY:
            folder = os.path.join(settings.state_folder, "nvram")
            storage: Storage = _folder(host, folder, f"{name}_VARS", "fd")
            volumes.append(new_disk(request.vmid, NVRAM_KEY, line, size, storage, Wish(), volumes))
            continue
        if line.key == TPM_KEY:
            volumes.append(place_tpm(host, tpm_folder(settings, identity), line, size))
            continue
        disk = known[line.key]
        wish = wishes.get(disk.target, Wish())
        wanted = wish.storage or request.storage or _own_folder(disk, definitions)
        if not os.path.isabs(wanted):
            storage = choose_storage(host, request, "", "images", write=write, wanted=wanted)
        elif wish.storage and Path(wanted).is_block_device():
            storage = open_device(host, wanted, size, existing)
        else:
            storage = _folder(host, wanted, f"{name}-{disk.target}")
        volumes.append(new_disk(request.vmid, disk.target, line, size, storage, wish, volumes))
    return volumes


def entries(volumes: list[NewVolume]) -> list[tuple[str, str, str]]:
    """How undo entries name the disks that a restore makes."""
    made = [volume for volume in volumes if volume.made and volume.planned.key != TPM_KEY]
    return [(volume.path, *volume.journal_entry[1:]) for volume in made]


def retire(host: Host, vmid: int, replaced: Domain, plan: RestorePlan) -> None:
    """Free the disks of the replaced domain whose targets are restored; others are kept, and named."""
    restored = {volume.planned.key for volume in plan.volumes}
    in_place = {volume.path for volume in plan.volumes}
    for disk in replaced.disks:
        if not disk.backup or not disk.source or disk.source in in_place:
            continue
        volume = _volume(host, vmid, disk)
        if disk.target in restored and volume is not None:
            plan.result.freed.append(disk.source)
            plan.old.append(journal_entry(disk.source, volume))
        else:
            plan.result.warnings.append(f"disk {disk.target} of the replaced domain is kept: {disk.source}")
    if replaced.nvram and NVRAM_KEY in restored:
        plan.result.freed.append(replaced.nvram)
        plan.old.append(journal_entry(replaced.nvram, FileVolume(replaced.nvram)))


def _volume(host: Host, vmid: int, disk: DomainDisk) -> Volume | None:
    """What a replaced domain's disk is: a volume of a storage, or just a file; ``None`` if it is not ours to remove."""
    for name, definition in load_storages(host).items():
        if "images" not in definition.content:
            continue
        try:
            storage = get_storage(host, name)
            storage.activate(Need())
            for volid in storage.volumes.list_volumes(vmid):
                volname = volid.partition(":")[2]
                if storage.volumes.locate(volname)[0] == disk.source:
                    return storage.volumes.volume(volname)
        except StorageError:
            continue
    return FileVolume(disk.source) if disk.type == "file" else None


def _own_folder(disk: DomainDisk, definitions: Definitions) -> str:
    """The folder where the disk was, if it is one of libvirt's here; else where libvirt's tools put disks."""
    folders = definitions.folders()
    if os.path.dirname(disk.source) in folders:
        return os.path.dirname(disk.source)
    if not folders:
        raise UsageError(
            "there is no folder of libvirt's for the restored disks", hint="say where they go with the option storage"
        )
    return folders[0]


def _folder(host: Host, path: str, stem: str, suffix: str = "") -> Storage:
    storage = PlainFolder(path, host, stem, suffix)
    storage.activate(Need("images"))
    return storage


def _undo_unnamed(data: Mapping[str, Any]) -> None:
    """A definition names its disks in one step; before that step nobody needs the new ones, after it the old."""
    from ..guests.libvirt.definition import named_files

    named = named_files(str(data["uri"]), str(data["uuid"]))
    for path, kind, source in data["volumes"]:
        if path not in named:
            open_volume(str(kind), str(source)).free()


UNDO: dict[str, Handler] = {UNNAMED: _undo_unnamed}
