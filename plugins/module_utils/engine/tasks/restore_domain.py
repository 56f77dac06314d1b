# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The libvirt side of a restore: the archive of a domain becomes a domain again."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from ..errors import ConfigError, IntegrityError, UsageError
from ..guests.model import GuestInfo
from ..settings.domain_rewrite import Place, restored_xml, without_secrets
from ..settings.domain_xml import NVRAM_KEY, TPM_KEY, XML_BLOB, Domain, parse_domain
from ..storages.dump import Archive
from ..system.host import Host
from ..system.report import Reporter
from ..system.undo import UndoStack
from .requests import RestoreRequest
from .restore_domain_disks import UNNAMED, entries, place_disks, retire
from .restore_domain_tpm import take_state, told_of_domain
from .restore_plan import Contents, RestorePlan, check_space
from .restore_vm import fill_vm, overwritten
from .results import RestoreResult

if TYPE_CHECKING:
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
    """Which disks to make for the devices in the archive, and the XML that names them.

    :raises IntegrityError: the archived XML, config and devices do not fit.
    """
    from ..guests.libvirt.connection import libvirt_settings
    from ..guests.libvirt.definition import Definitions
    from ..guests.libvirt.tpm import tpm_folder

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
    volumes = place_disks(host, request, contents, domain, name, identity, existing, settings, definitions, write=write)
    places = {
        volume.planned.key: Place(volume.path, volume.planned.format, volume.storage.volumes.devices)
        for volume in volumes
    }
    nvram, tpm = places.pop(NVRAM_KEY, None), places.pop(TPM_KEY, None)
    done = restored_xml(
        text,
        name=name,
        uuid=identity,
        vmid=request.vmid,
        disks=places,
        nvram="" if nvram is None else nvram.path,
        new_macs=request.unique,
        trust=request.trust_config,
        overrides=request.overrides,
    )
    check_space(archive, [volume for volume in volumes if volume.planned.key not in (NVRAM_KEY, TPM_KEY)])
    restored = parse_domain(done.text)
    tpm_warnings = told_of_domain(
        restored,
        tpm_folder(settings, identity),
        definitions,
        archived=tpm is not None,
        replaces=replaced is not None,
    )
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
        warnings=[*done.warnings, *overwritten(volumes), *tpm_warnings],
        size=sum(contents.devices.values()),
        archive_size=archive.size,
    )
    if done.dropped:
        result.warnings.append(
            "these elements reach into the host and are left out (trust_config keeps them): " + "; ".join(done.dropped)
        )
    plan = RestorePlan(archive, result, volumes, definition=done.text)
    if replaced is not None:
        retire(host, request.vmid, replaced, plan)
    return plan


def fill_domain(host: Host, plan: RestorePlan, request: RestoreRequest, undo: UndoStack, report: Reporter) -> None:
    """Make and fill the disks, then let the definition name them."""
    from ..guests.libvirt.connection import libvirt_settings
    from ..guests.libvirt.definition import Definitions
    from ..guests.libvirt.tpm import STATE, make_new_folder, tpm_folder

    settings = libvirt_settings(host)
    if settings is None:
        raise UsageError("libvirt is not used on this node")
    domain = parse_domain(plan.definition)
    identity, folder = domain.uuid, tpm_folder(settings, domain.uuid)
    made = entries(plan.volumes)
    token = undo.push(UNNAMED, uri=settings.uri, uuid=identity, volumes=made)
    disks = [path for path, _kind, _source in made]
    tpm = next((volume for volume in plan.volumes if volume.planned.key == TPM_KEY), None)
    state: int | None = None
    if tpm is not None:
        state = undo.push(STATE, uri=settings.uri, uuid=identity, folder=folder, disks=disks)
        make_new_folder(folder)
    for volume in plan.volumes:
        volume.storage.volumes.create_image(volume.volname, volume.planned.size or 0)
    plan.result.size = fill_vm(host, plan, request, undo, report)
    if tpm is not None and domain.tpm is not None:
        take_state(tpm, folder, domain.tpm)
    old = undo.push(UNNAMED, uri=settings.uri, uuid=identity, volumes=plan.old)
    Definitions(settings.uri).define(plan.definition, identity)
    undo.drop(token)
    if state is not None:
        undo.undo(state)
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
    name = str(request.overrides.get("name") or domain.name)
    try:
        # Folders are named after it.
        identity = str(uuid.uuid4() if request.unique else uuid.UUID(domain.uuid))
    except ValueError as exc:
        raise IntegrityError(f"its domain has no uuid but {domain.uuid!r}", hint="restore it with unique") from exc
    if request.unique and name in definitions.names():
        name = f"{name}-{request.vmid}"
    if not name or "/" in name:
        raise UsageError(f"{name!r} cannot be the name of a domain", hint="choose another one: --set name=NAME")
    definitions.check_free(name, identity)
    return name, identity
