# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A libvirt domain in Proxmox VE syntax, so that its archive restores on Proxmox VE and as a managed VM."""

from __future__ import annotations

import re
import shlex
from typing import Iterator, Mapping

from .domain_xml import TPM_KEY, Domain, DomainDisk, mebibytes
from .guest_config import GuestConfig
from .sizes import format_size
from .vm_config import TPM_BYTES

_SCSI = {"virtio-scsi": "virtio-scsi-pci", "virtio-transitional": "virtio-scsi-pci", "lsilogic": "lsi",
         "vmpvscsi": "pvscsi", "lsisas1078": "megasas"}  # fmt: skip
_NICS = ("e1000", "e1000e", "ne2k_pci", "pcnet", "rtl8139", "virtio", "vmxnet3")
_VGA = {"vga": "std", "bochs": "std", "cirrus": "cirrus", "qxl": "qxl", "virtio": "virtio", "vmvga": "vmware",
        "none": "none"}  # fmt: skip
_MACHINE = re.compile(r"(?:pc|q35|pc-i440fx-\d+(?:\.\d+)+|pc-q35-\d+(?:\.\d+)+)")
_SMALL_NVRAM = 128 << 10
"""Bytes of the UEFI variables of the older firmware images of 2 MiB; the others have 4 MiB."""


def domain_config(
    domain: Domain, sizes: Mapping[str, int], bridges: Mapping[str, str], nvram: int, tpm: str = ""
) -> GuestConfig:
    """The domain as ``qemu-server.conf``: what Proxmox VE's syntax has a word for.

    :param sizes: bytes of the disks by target, as far as they are known; :param bridges: bridge of each libvirt network
        by name; :param nvram: bytes of the UEFI variables, 0 without.
    :param tpm: path of the TPM's state, empty without.
    """
    values = {"name": re.sub(r"[^a-zA-Z0-9.-]+", "-", domain.name).strip("-.") or "domain"}
    for key, value in (*_machine(domain), *_devices(domain, sizes, bridges)):
        values[key] = value
    if domain.nvram and nvram:
        kind = "2m" if nvram <= _SMALL_NVRAM else "4m"
        values["efidisk0"] = f"{domain.nvram},efitype={kind},size={format_size(nvram)}"
    if domain.tpm is not None and tpm:
        values[TPM_KEY] = f"{_listed(tpm)},size={format_size(TPM_BYTES)},version=v{domain.tpm.version}"
    if domain.tags:
        values["tags"] = ";".join(domain.tags)
    if domain.pool:
        values["pool"] = domain.pool
    config = GuestConfig(values=tuple(sorted(values.items())))
    return config.with_description(domain.root.findtext("description") or "")


def _machine(domain: Domain) -> Iterator[tuple[str, str]]:
    root = domain.root
    yield "memory", str(mebibytes(root.find("memory")) or 512)
    current = mebibytes(root.find("currentMemory"))
    if current and current < mebibytes(root.find("memory")):
        yield "balloon", str(current)
    yield from _processors(domain)
    kind = root.find("os/type")
    machine = "" if kind is None else kind.get("machine", "")
    if _MACHINE.fullmatch(machine):
        yield "machine", machine
    loader, firmware = root.find("os/loader"), root.find("os")
    if (loader is not None and loader.get("type") == "pflash") or (firmware is not None and firmware.get("firmware")):
        yield "bios", "ovmf"
    if domain.type != "kvm":
        yield "kvm", "0"
    yield "smbios1", f"uuid={domain.uuid}"
    genid = root.findtext("genid")
    if genid:
        yield "vmgenid", genid
    kernel = _kernel(domain)
    if kernel:
        yield "args", kernel


def _processors(domain: Domain) -> Iterator[tuple[str, str]]:
    vcpu, cpu = domain.root.find("vcpu"), domain.root.find("cpu")
    count = int((vcpu.text if vcpu is not None else None) or 1)
    topology = None if cpu is None else cpu.find("topology")
    sockets = int(topology.get("sockets", "1")) if topology is not None else 1
    yield "cores", str(max(1, count // sockets))
    if sockets > 1:
        yield "sockets", str(sockets)
    if vcpu is not None and vcpu.get("current", str(count)) != str(count):
        yield "vcpus", vcpu.get("current", "1")
    if cpu is not None and cpu.get("mode") in ("host-passthrough", "host-model", "maximum") and domain.type == "kvm":
        yield "cpu", "host"


def _kernel(domain: Domain) -> str:
    """A kernel that is booted directly, as raw arguments: restores keep them only from trusted archives."""
    words = []
    for tag, option in (("kernel", "-kernel"), ("initrd", "-initrd"), ("cmdline", "-append")):
        text = (domain.root.findtext(f"os/{tag}") or "").strip()
        if text:
            words += [option, shlex.quote(text)]
    return " ".join(words)


def _devices(domain: Domain, sizes: Mapping[str, int], bridges: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    root = domain.root
    for disk in domain.disks:
        if disk.device != "floppy":
            yield disk.key, _drive(disk, sizes.get(disk.target, 0))
    controller = root.find("devices/controller[@type='scsi']")
    if controller is not None:
        yield "scsihw", _SCSI.get(controller.get("model", ""), "virtio-scsi-pci")
    for number, nic in enumerate(root.iterfind("devices/interface")):
        model, mac, source = nic.find("model"), nic.find("mac"), nic.find("source")
        name = "virtio" if model is None else model.get("type", "virtio")
        text = name if name in _NICS else "virtio"
        if mac is not None:
            text += f"={mac.get('address', '').upper()}"
        where = {} if source is None else source.attrib
        bridge = where.get("bridge") or bridges.get(where.get("network", ""), "")
        yield f"net{number}", text + (f",bridge={bridge}" if bridge else "")
    for number, _serial in zip(range(4), root.iterfind("devices/serial")):
        yield f"serial{number}", "socket"
    video = root.find("devices/video/model")
    yield "vga", "none" if video is None else _VGA.get(video.get("type", ""), "std")
    if domain.agent:
        yield "agent", "1"
    order = _boot_order(domain)
    if order:
        yield "boot", "order=" + ";".join(order)


def _drive(disk: DomainDisk, size: int) -> str:
    if disk.device == "cdrom":
        return "none,media=cdrom"
    # A medium outside the file system has no path. This is for people to read: a restored drive gets a new volume.
    path = disk.source if disk.type in ("file", "block") else f"/{disk.type}/{disk.source}"
    text = _listed(path)
    if disk.excluded:
        text += ",backup=0"
    return text + (f",size={format_size(size)}" if size else "")


def _listed(path: str) -> str:
    """A path as it can stand among options."""
    return re.sub(r"[,\s]", "_", path)


def _boot_order(domain: Domain) -> list[str]:
    """Keys in the order of booting: by numbers on the devices, or by the kinds of devices that the system lists."""
    numbered: list[tuple[int, str]] = []
    keys: dict[str, list[str]] = {"hd": [], "cdrom": [], "network": []}
    for disk, element in zip(domain.disks, domain.root.iterfind("devices/disk")):
        boot = element.find("boot")
        if boot is not None:
            numbered.append((int(boot.get("order", "0")), disk.key))
        keys.setdefault("cdrom" if disk.device == "cdrom" else "hd", []).append(disk.key)
    for number, element in enumerate(domain.root.iterfind("devices/interface")):
        boot = element.find("boot")
        if boot is not None:
            numbered.append((int(boot.get("order", "0")), f"net{number}"))
        keys["network"].append(f"net{number}")
    if numbered:
        return [key for _order, key in sorted(numbered)]
    return [key for boot in domain.root.iterfind("os/boot") for key in keys.get(boot.get("dev", ""), [])]
