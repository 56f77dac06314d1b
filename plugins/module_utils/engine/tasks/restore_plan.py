# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What both kinds of restore share: the source, the target storages, and what becomes of a replaced guest's volumes."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field

from ..errors import HoldfastError, IntegrityError, StorageError, UsageError
from ..formats.vma_layout import VMSTATE
from ..guests.model import GuestInfo
from ..settings.domain_xml import XML_BLOB
from ..settings.vm_config import FIREWALL_BLOB
from ..storages.base import Need, Storage
from ..storages.dump import Archive
from ..storages.volumes.base import Volume
from ..system.host import Host
from .archives import locate
from .requests import RestoreRequest
from .restore_config import Transformed, config_lines, macs_in, split_volume
from .results import PlannedVolume, RestoreResult
from .stores import get_storage, load_storages

DEFAULT_STORAGE = "local"


@dataclass
class NewVolume:
    """A volume to be made: what callers see of it, and where it is.

    :param device: name of the device in the archive, or mount point in the container.
    """

    planned: PlannedVolume
    storage: Storage
    volname: str
    path: str
    device: str

    @property
    def made(self) -> bool:
        """Whether the restore makes it, and removes it again when it fails: not if it is a device that was there."""
        return self.storage.definition.type != "device"

    def stale_bytes(self) -> int:
        """How far around what is written there may be old data."""
        return self.storage.volumes.stale_bytes(self.volname)

    def note_allocated(self) -> None:
        """Ask the storage how much the volume takes."""
        self.planned.allocated = self.storage.volumes.allocated(self.volname)

    @property
    def journal_entry(self) -> tuple[str, str, str]:
        """How undo entries name the volume: its id, and what :func:`open_volume` takes."""
        return journal_entry(self.planned.volid or "", self.storage.volumes.volume(self.volname))


@dataclass
class RestorePlan:
    """A restore that is ready to begin.

    :param old: volumes of the replaced guest as undo entries name them, to be freed once the new one is in place.
    :param definition: of a libvirt domain: its XML, with the passwords that the result does not show.
    :param firewall: rules of the guest's firewall from the archive, if there are any.
    """

    archive: Archive
    result: RestoreResult
    volumes: list[NewVolume]
    old: list[tuple[str, str, str]] = field(default_factory=list)
    definition: str = ""
    firewall: bytes = b""


def journal_entry(volid: str, volume: Volume) -> tuple[str, str, str]:
    """A volume in an undo entry that decides by the guest's config whether it is still needed."""
    return volid, volume.kind, volume.source


def locate_source(host: Host, text: str) -> tuple[Archive, str]:
    """The archive and the kind of guest in it.

    :raises UsageError: archives of this form cannot be restored.
    """
    _storage, archive = locate(host, text)
    return archive, archive_guest(archive)


def archive_guest(archive: Archive) -> str:
    """The kind of guest in an archive.

    :raises UsageError: archives of this form cannot be restored.
    """
    body = archive.format.partition(".")[0]
    kind = archive.kind if archive.kind != "unknown" else {"vma": "qemu", "tar": "lxc", "tgz": "lxc"}[body]
    if (kind == "qemu") != (body == "vma"):
        raise UsageError(
            f"cannot restore {archive.volid}: a {'VM' if kind == 'qemu' else 'container'} archive of the form"
            f" .{archive.format} is not supported"
        )
    return kind


@dataclass(frozen=True)
class Contents:
    """What an archive says before its data.

    :param config: the guest's config in Proxmox VE syntax; :param devices: size in bytes of each device (VMs only);
    :param blobs: what stands beside the config, by name; :param firewall: rules of the guest's firewall, if it has any.
    :param warnings: what of the archive no restore can use.
    """

    config: str
    devices: dict[str, int] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    firewall: bytes = b""
    warnings: tuple[str, ...] = ()


def read_contents(archive: Archive, kind: str) -> Contents:
    """Read the beginning of an archive.

    :raises IntegrityError: the file is not such an archive, or holds no config.
    """
    from ..stream.source import open_source

    with open_source(archive.path) as source:
        if kind == "lxc":
            from ..capture.ct_restore import read_ct_config

            config, firewall = read_ct_config(source)
            return Contents(config, firewall=firewall)
        from ..capture.vm_restore import inspect

        configs, devices = inspect(source)
    blobs = dict(configs)
    if "qemu-server.conf" not in blobs:
        raise IntegrityError("it holds no qemu-server.conf", hint="it was not made by a VM backup")
    sizes = dict(devices)
    text, rules = blobs.pop("qemu-server.conf").decode("utf-8", "surrogateescape"), blobs.pop(FIREWALL_BLOB, b"")
    warnings = [f"{name} in the archive is of no use here and is left out" for name in blobs if name != XML_BLOB]
    if sizes.pop(VMSTATE, None) is not None:
        warnings.append("the memory of the machine in the archive is left out: the restored machine boots")
    return Contents(text, sizes, blobs, rules, tuple(warnings))


def choose_storage(
    host: Host, request: RestoreRequest, recorded: str, content: str, *, write: bool, wanted: str | None = None
) -> Storage:
    """The storage for one volume: the one asked for, else the recorded one where it exists here, else ``local``.

    :param wanted: asked for this very volume.
    """
    wanted = wanted or request.storage
    name = wanted or (recorded if recorded in load_storages(host) else DEFAULT_STORAGE)
    try:
        storage = get_storage(host, name)
    except UsageError as exc:
        if wanted:
            raise
        raise UsageError(
            f"cannot restore {request.archive}: its storage {recorded!r} does not exist here, and neither does"
            f" {DEFAULT_STORAGE!r}",
            hint="say where the volumes shall go with the option storage",
        ) from exc
    storage.activate(Need(content, write=write))
    return storage


def check_space(archive: Archive, volumes: list[NewVolume]) -> None:
    """Refuse what cannot fit: unpacked data takes at least the archive's size."""
    targets = {volume.storage.name: volume.storage for volume in volumes}
    if len(targets) == 1:
        for storage in targets.values():
            storage.check_space(archive.size, f"restoring {archive.volid}")


def existing_text(host: Host, existing: GuestInfo) -> str:
    """The config of a guest that is there already, in Proxmox VE syntax."""
    from ..guests.registry import guest_text

    return guest_text(host, existing)


def taken_macs(host: Host) -> list[str]:
    """MAC addresses of all guests of this node."""
    from .guests import list_guests

    found: list[str] = []
    for info in list_guests(host):
        # A guest that cannot be read is no reason against restoring another.
        with contextlib.suppress(HoldfastError):
            found += macs_in(existing_text(host, info))
    return found


def settle(
    host: Host,
    request: RestoreRequest,
    archive: Archive,
    kind: str,
    done: Transformed,
    volumes: list[NewVolume],
    existing: GuestInfo | None,
) -> RestorePlan:
    """The plan from its parts; decides what becomes of the replaced guest's volumes."""
    folder = host.paths.qemu_configs if kind == "qemu" else host.paths.lxc_configs
    name_key = "name" if kind == "qemu" else "hostname"
    keys = dict(config_lines(done.text)[1])
    default = f"VM {request.vmid}" if kind == "qemu" else f"CT{request.vmid}"
    plan = RestorePlan(
        archive,
        RestoreResult(
            archive=archive.volid,
            vmid=request.vmid,
            kind=kind,
            name=keys.get(name_key, default),
            state="planned",
            volumes=[volume.planned for volume in volumes],
            replaces=existing is not None,
            config=done.text,
            config_path=os.path.join(folder, f"{request.vmid}.conf"),
            dropped=done.dropped,
            warnings=list(done.warnings),
            archive_size=archive.size,
        ),
        volumes,
    )
    if done.dropped:
        plan.result.warnings.append(
            "these settings reach into the host and are left out (trust_config keeps them): " + "; ".join(done.dropped)
        )
    if existing is not None:
        _retire(host, existing, plan, {volume.planned.key for volume in volumes})
    return plan


def _retire(host: Host, existing: GuestInfo, plan: RestorePlan, replaced: set[str]) -> None:
    """Free the old volumes whose keys are restored; keep the others as ``unusedN`` of the new guest."""
    kept: list[str] = []
    for key, value in config_lines(existing_text(host, existing))[1]:
        volid, options = split_volume(value)
        volume = _owned(host, existing.vmid, volid)
        if volume is None or options.get("media") == "cdrom":
            continue
        if key in replaced:
            plan.result.freed.append(volid)
            plan.old.append(journal_entry(volid, volume))
        else:
            kept.append(volid)
    for number, volid in enumerate(kept):
        plan.result.config += f"unused{number}: {volid}\n"
        plan.result.warnings.append(f"volume {volid} of the replaced guest is kept as unused{number}")


def _owned(host: Host, vmid: int, volid: str) -> Volume | None:
    """A volume if it lies on a storage and belongs to the guest."""
    name, colon, volname = volid.partition(":")
    if not colon or name not in load_storages(host):
        return None
    try:
        storage = get_storage(host, name)
        storage.activate(Need())
    except StorageError:
        return None
    return storage.volumes.volume(volname) if volid in storage.volumes.list_volumes(vmid) else None
