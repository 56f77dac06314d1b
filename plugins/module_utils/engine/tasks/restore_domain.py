# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The libvirt side of a restore: the archive of a domain becomes a domain again."""

from __future__ import annotations

import os
import re
import uuid
from typing import TYPE_CHECKING

from ..errors import ConfigError, IntegrityError, UsageError
from ..guests.model import GuestInfo
from ..settings.domain_rewrite import restored_xml, without_secrets
from ..settings.domain_xml import NVRAM_KEY, XML_BLOB, Domain, parse_domain
from ..settings.storages import StorageDef
from ..storages.base import Storage
from ..storages.dump import Archive
from ..storages.registry import open_storage
from ..system.host import Host
from ..system.report import Reporter
from ..system.undo import UndoStack
from .requests import RestoreRequest
from .restore_config import disk_map
from .restore_plan import Contents, NewVolume, RestorePlan, check_space, choose_storage
from .restore_vm import FORMATS, fill_vm
from .results import PlannedVolume, RestoreResult

if TYPE_CHECKING:
    from ..guests.libvirt.connection import LibvirtSettings
    from ..guests.libvirt.definition import Definitions


def becomes_domain(host: Host, request: RestoreRequest, existing: GuestInfo | None, contents: Contents) -> bool:
    """Whether a VM's archive is restored as a libvirt domain: what is asked for, else what the guest to be replaced is,
    else what the archive came from, where this node uses libvirt.

    :raises UsageError: a domain is asked for, and the archive did not come from one, or this node has no libvirt.
    """
    from ..guests.libvirt.connection import libvirt_settings

    used = libvirt_settings(host) is not None
    present = XML_BLOB in contents.blobs
    if request.kind != "libvirt":
        kind = request.kind or (existing.kind if existing is not None else "libvirt")
        return kind == "libvirt" and used and present
    if not used:
        raise UsageError(
            f"cannot restore {request.archive} as a libvirt domain: libvirt is not used on this node",
            hint=f"write its uri to {host.paths.libvirt_conf}, or restore it as kind qemu",
        )
    if not present:
        raise UsageError(
            f"cannot restore {request.archive} as a libvirt domain: it was not made from one",
            hint="restore it as kind qemu",
        )
    return True


def plan_domain(
    host: Host,
    request: RestoreRequest,
    archive: Archive,
    contents: Contents,
    existing: GuestInfo | None,
    *,
    write: bool,
) -> RestorePlan:
    """Which files to make for the devices in the archive, and the XML that names them.

    :raises IntegrityError: the archived XML, config and devices do not fit.
    """
    from ..guests.libvirt.connection import libvirt_settings
    from ..guests.libvirt.definition import Definitions

    settings = libvirt_settings(host)
    if settings is None:
        raise UsageError("libvirt is not used on this node")
    definitions = Definitions(settings.uri)
    text = contents.blobs[XML_BLOB].decode("utf-8", "replace")
    try:
        domain = parse_domain(text)
    except ConfigError as exc:
        raise IntegrityError(f"its {XML_BLOB} cannot be used: {exc.message}", hint="restore it as kind qemu") from exc
    replaced = None if existing is None else definitions.check_replaceable(_uuid_of(host, existing))
    name, identity = _identity(request, domain, replaced, definitions)
    volumes = _volumes(host, request, contents, domain, name, settings, definitions, write=write)
    disks = {volume.planned.key: (volume.path, volume.planned.format) for volume in volumes}
    done = restored_xml(
        text,
        name=name,
        uuid=identity,
        vmid=request.vmid,
        disks={target: place for target, place in disks.items() if target != NVRAM_KEY},
        nvram=disks.get(NVRAM_KEY, ("", ""))[0],
        new_macs=request.unique,
        trust=request.trust_config,
        overrides=request.overrides,
    )
    check_space(archive, volumes)
    result = RestoreResult(
        archive=archive.volid,
        vmid=request.vmid,
        kind="libvirt",
        name=name,
        state="planned",
        volumes=[volume.planned for volume in volumes],
        replaces=replaced is not None,
        config=without_secrets(done.text),
        config_path=f"{settings.uri} {name}",
        dropped=done.dropped,
        warnings=list(done.warnings),
        size=sum(contents.devices.values()),
        archive_size=archive.size,
    )
    if done.dropped:
        result.warnings.append(
            "these elements reach into the host and are left out (trust_config keeps them): " + "; ".join(done.dropped)
        )
    plan = RestorePlan(archive, result, volumes, definition=done.text)
    if replaced is not None:
        _retire(replaced, plan)
    return plan


def fill_domain(host: Host, plan: RestorePlan, request: RestoreRequest, undo: UndoStack, report: Reporter) -> None:
    """Make and fill the files, then let the definition name them."""
    from ..guests.libvirt.connection import libvirt_settings
    from ..guests.libvirt.definition import UNNAMED, Definitions

    settings = libvirt_settings(host)
    if settings is None:
        raise UsageError("libvirt is not used on this node")
    identity = parse_domain(plan.definition).uuid
    paths = [volume.path for volume in plan.volumes]
    token = undo.push(UNNAMED, uri=settings.uri, uuid=identity, paths=paths)
    for path in paths:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
    plan.result.size = fill_vm(host, plan, request, undo, report)
    old = undo.push(UNNAMED, uri=settings.uri, uuid=identity, paths=list(plan.result.freed))
    Definitions(settings.uri).define(plan.definition, identity)
    undo.drop(token)
    for path in plan.result.freed:
        report.info(f"freeing {path} of the replaced domain")
    undo.undo(old)


def _uuid_of(host: Host, existing: GuestInfo) -> str:
    from ..guests.libvirt.guest import LibvirtGuest

    return LibvirtGuest(host, existing).uuid


def _identity(
    request: RestoreRequest, domain: Domain, replaced: Domain | None, definitions: Definitions
) -> tuple[str, str]:
    """Name and uuid of the restored domain; a domain that is replaced keeps its own."""
    if replaced is not None:
        return replaced.name, replaced.uuid
    name, identity = str(request.overrides.get("name") or domain.name), domain.uuid
    if request.unique:
        identity = str(uuid.uuid4())
        if name in definitions.names():
            name = f"{name}-{request.vmid}"
    if not name or "/" in name or not identity:
        raise UsageError(f"{name!r} cannot be the name of a domain", hint="choose another one: --set name=NAME")
    definitions.check_free(name, identity)
    return name, identity


def _volumes(
    host: Host,
    request: RestoreRequest,
    contents: Contents,
    domain: Domain,
    name: str,
    settings: LibvirtSettings,
    definitions: Definitions,
    *,
    write: bool,
) -> list[NewVolume]:
    """Where each device of the archive goes; keys are libvirt's targets."""
    lines = {line.device: line for line in disk_map(contents.config)}
    known = {disk.key: disk for disk in domain.disks}
    volumes: list[NewVolume] = []
    for device, size in contents.devices.items():
        line = lines.get(device)
        if line is None or (line.key not in known and line.key != NVRAM_KEY):
            raise IntegrityError(
                f"its domain has no disk for the data of {device}",
                hint="restore it as kind qemu",
            )
        fmt = line.format if line.format in FORMATS else "raw"
        taken = {volume.path for volume in volumes}
        if line.key == NVRAM_KEY:
            storage = _folder_storage(host, os.path.join(settings.state_folder, "nvram"))
            target, path = NVRAM_KEY, _free(storage.definition.path, f"{name}_VARS", "fd", taken)
        else:
            target = known[line.key].target
            if request.storage and not os.path.isabs(request.storage):
                storage = choose_storage(host, request, "", "images", write=write)
                # A domain's disks are files.
                storage.volumes.folder(request.vmid)
                volid = storage.volumes.next_volume(
                    request.vmid, fmt, frozenset(v.planned.volid or "" for v in volumes)
                )
                volname = volid.partition(":")[2]
                planned = PlannedVolume(target, storage.name, fmt, size, volid, device)
                volumes.append(NewVolume(planned, storage, volname, storage.volumes.locate(volname)[0], device))
                continue
            storage = _folder_storage(host, request.storage or _folder(known[line.key].source, definitions))
            path = _free(storage.definition.path, f"{name}-{target}", fmt, taken)
        volumes.append(
            NewVolume(PlannedVolume(target, storage.name, fmt, size, path, device), storage, "", path, device)
        )
    return volumes


def _folder(source: str, definitions: Definitions) -> str:
    """The folder where the disk was, if it is one of libvirt's here; else where libvirt's tools put disks."""
    folders = definitions.folders()
    if os.path.dirname(source) in folders:
        return os.path.dirname(source)
    if not folders:
        raise UsageError(
            "there is no folder of libvirt's for the restored disks", hint="say where they go with the option storage"
        )
    return folders[0]


def _folder_storage(host: Host, path: str) -> Storage:
    """A folder as a storage, so that its free space can be asked."""
    if not os.path.isdir(path):
        raise UsageError(f"cannot restore disks to {path}: there is no such folder", hint="create it")
    return open_storage(StorageDef(name=path, type="dir", path=path, content=("images",)), host)


def _free(folder: str, stem: str, suffix: str, taken: set[str]) -> str:
    """A path that nothing has yet."""
    stem, number = re.sub(r"[^\w.-]+", "_", stem), 1
    path = os.path.join(folder, f"{stem}.{suffix}")
    while os.path.lexists(path) or path in taken:
        number += 1
        path = os.path.join(folder, f"{stem}-{number}.{suffix}")
    return path


def _retire(replaced: Domain, plan: RestorePlan) -> None:
    """Free the files of the replaced domain whose targets are restored; others are kept, and named."""
    restored = {volume.planned.key for volume in plan.volumes}
    for disk in replaced.disks:
        if not disk.backup or not disk.source:
            continue
        if disk.target in restored and disk.type == "file":
            plan.result.freed.append(disk.source)
        else:
            plan.result.warnings.append(f"disk {disk.target} of the replaced domain is kept: {disk.source}")
    if replaced.nvram and NVRAM_KEY in restored:
        plan.result.freed.append(replaced.nvram)
