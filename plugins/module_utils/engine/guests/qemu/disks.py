# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of a VM's command line that concerns drives: controllers, iothreads, disks, CD drives, UEFI variables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator

from ...errors import ConfigError, GuestError
from ...settings.guest_config import GuestConfig
from ...settings.propstring import parse_flag
from ...settings.vm_config import Drive, vm_disks
from ..model import Resolve, ResolvedVolume

EFI_BYTES = {"2m": 131072, "4m": 540672}
"""Size of the UEFI variables by ``efitype``; their volume may be larger, but the firmware wants exactly this."""

_FIRMWARE = {
    "2m": ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_CODE.fd"),
    "4m": ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/edk2/ovmf/OVMF_CODE_4M.fd"),
}
_SCSI = {"virtio-scsi-pci": "virtio-scsi-pci", "virtio-scsi-single": "virtio-scsi-pci", "lsi": "lsi53c895a"}


def node_name(key: str) -> str:
    """Block node of a drive, below the guest's device."""
    return f"drive-{key}"


def archive_name(key: str) -> str:
    """Name of a drive in archives."""
    return f"drive-{key}-backup" if key.startswith("tpmstate") else node_name(key)


def efi_limits(config: GuestConfig) -> dict[str, int]:
    """How much of a raw volume the guest sees, by drive key, where that is not all of it."""
    return {drive.key: _efi_bytes(drive) for drive in vm_disks(config) if drive.interface == "efidisk"}


def firmware_args(vmid: int, config: GuestConfig, resolve: Resolve) -> tuple[str, list[str]]:
    """What ``-machine`` needs to know of the firmware, and the options that go with it.

    :raises ConfigError: a firmware without its variables, or one that is not known.
    :raises GuestError: the firmware is not installed.
    """
    bios = config.get("bios") or "seabios"
    if bios == "seabios":
        return "", []
    if bios != "ovmf":
        raise ConfigError(f"VM {vmid}: bios {bios!r} is not supported", hint="known are seabios and ovmf")
    drive = next((drive for drive in vm_disks(config) if drive.interface == "efidisk"), None)
    if drive is None:
        raise ConfigError(
            f"VM {vmid}: bios ovmf needs a volume for its variables", hint="add an efidisk0, or use seabios"
        )
    kind = drive.options.get("efitype", "2m")
    code = next((path for path in _FIRMWARE[_efi_type(drive)] if Path(path).exists()), None)
    if code is None:
        raise GuestError(f"VM {vmid}: the UEFI firmware ({kind}) is not installed", hint="install the package ovmf")
    if drive.options.get("pre-enrolled-keys", "0") == "1":
        raise ConfigError(
            f"VM {vmid}: {drive.key}: secure boot (pre-enrolled-keys) is not supported", hint="remove that option"
        )
    rom = {"driver": "raw", "node-name": "firmware", "read-only": True, "file": {"driver": "file", "filename": code}}
    variables = _node(vmid, drive, resolve(drive.volid))
    machine = f",pflash0=firmware,pflash1={node_name(drive.key)}"
    return machine, ["-blockdev", json.dumps(rom), "-blockdev", json.dumps(variables)]


def drive_args(vmid: int, config: GuestConfig, resolve: Resolve, order: list[str]) -> Iterator[str]:
    """Options for all drives, what they hang on first.

    :param order: keys in the order of booting.
    :raises ConfigError: a drive that QEMU could not be told; :raises GuestError: a volume that is no image.
    """
    drives = [drive for drive in vm_disks(config) if not drive.is_cloudinit]
    drives = [drive for drive in drives if drive.interface not in ("efidisk", "tpmstate")]
    yield from _controllers(vmid, config, drives)
    for drive in drives:
        boot = f",bootindex={order.index(drive.key) + 1}" if drive.key in order else ""
        if drive.is_cdrom and drive.volid in ("none", "cdrom"):
            yield from ("-device", _device(vmid, drive, config) + boot)
            continue
        yield from ("-blockdev", json.dumps(_node(vmid, drive, resolve(drive.volid))))
        yield from ("-device", f"{_device(vmid, drive, config)},drive={node_name(drive.key)}{boot}")


def _controllers(vmid: int, config: GuestConfig, drives: list[Drive]) -> Iterator[str]:
    """Iothreads and buses; their options stand before the drives'."""
    kind = config.get("scsihw") or "lsi"
    if kind not in _SCSI:
        raise ConfigError(f"VM {vmid}: scsihw {kind!r} is not supported", hint="known are " + ", ".join(_SCSI))
    for drive in drives:
        if _iothread(vmid, drive, config):
            yield from ("-object", f"iothread,id=iothread-{drive.key}")
        if drive.interface == "scsi" and kind == "virtio-scsi-single":
            thread = f",iothread=iothread-{drive.key}" if _iothread(vmid, drive, config) else ""
            yield from ("-device", f"{_SCSI[kind]},id={_scsi_bus(drive, kind)}{thread}")
    interfaces = {drive.interface for drive in drives}
    if "scsi" in interfaces and kind != "virtio-scsi-single":
        yield from ("-device", f"{_SCSI[kind]},id=scsihw0")
    if "sata" in interfaces:
        yield from ("-device", "ich9-ahci,id=ahci0")


def _iothread(vmid: int, drive: Drive, config: GuestConfig) -> bool:
    if not parse_flag(drive.options.get("iothread", "0"), f"VM {vmid}: {drive.key}: iothread"):
        return False
    # As in the original, the option is without effect where one controller serves several disks.
    return drive.interface == "virtio" or (drive.interface == "scsi" and config.get("scsihw") == "virtio-scsi-single")


def _scsi_bus(drive: Drive, kind: str) -> str:
    return f"virtioscsi{drive.index}" if kind == "virtio-scsi-single" else "scsihw0"


def _device(vmid: int, drive: Drive, config: GuestConfig) -> str:
    index, kind = drive.index, "cd" if drive.is_cdrom else "hd"
    if drive.interface == "virtio":
        thread = f",iothread=iothread-{drive.key}" if _iothread(vmid, drive, config) else ""
        return f"virtio-blk-pci,id={drive.key}{thread}"
    if drive.interface == "scsi":
        scsihw = config.get("scsihw") or "lsi"
        if scsihw == "lsi" and index > 6:
            raise ConfigError(f"VM {vmid}: {drive.key}: the lsi controller has 7 places", hint="use virtio-scsi-pci")
        place = 0 if scsihw == "virtio-scsi-single" else index
        return f"scsi-{kind},id={drive.key},bus={_scsi_bus(drive, scsihw)}.0,scsi-id={place}"
    if drive.interface == "sata":
        return f"ide-{kind},id={drive.key},bus=ahci0.{index}"
    return f"ide-{kind},id={drive.key},bus=ide.{index // 2},unit={index % 2}"


def _node(vmid: int, drive: Drive, volume: ResolvedVolume) -> dict[str, Any]:
    if volume.format not in ("raw", "qcow2"):
        raise GuestError(f"VM {vmid}: {drive.key} is a {volume.format} volume, which is no disk image")
    driver = "host_device" if Path(volume.path).is_block_device() else "file"
    node: dict[str, Any] = {
        "driver": volume.format,
        "node-name": node_name(drive.key),
        "file": {"driver": driver, "filename": volume.path},
        "discard": "unmap",
    }
    if drive.is_cdrom:
        node["read-only"] = True
    if drive.interface == "efidisk" and volume.format == "raw":
        node["size"] = _efi_bytes(drive)
    return node


def _efi_type(drive: Drive) -> str:
    kind = drive.options.get("efitype", "2m")
    if kind not in EFI_BYTES:
        raise ConfigError(f"{drive.key}: efitype {kind!r} is not known", hint="write 2m or 4m")
    return kind


def _efi_bytes(drive: Drive) -> int:
    return EFI_BYTES[_efi_type(drive)]
