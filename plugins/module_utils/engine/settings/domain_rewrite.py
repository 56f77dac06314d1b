# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the domain XML in an archive becomes the XML of the restored domain.

Elements that reach into the host are left out unless the archive is trusted: whoever can write an archive must not be
able to run things on the host that restores it, or to read its files.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Mapping

from ..errors import UsageError
from .domain_xml import NAMESPACE, DomainDisk, domain_text, parse_domain

_ROOT = re.compile(
    "name|uuid|genid|title|description|metadata|memory|currentMemory|maxMemory|vcpus?|iothreads|iothreadids|cputune|numatune"
    "|blkiotune|memtune|os|features|cpu|clock|pm|devices|on_poweroff|on_reboot|on_crash|sysinfo"
)
_OS = re.compile("type|loader|nvram|boot|bootmenu|bios|smbios|firmware")
_ANY: tuple[str, ...] = ()
_LINES = ("pty", "unix", "spicevmc", "spiceport", "null", "vc")
_DEVICES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("disk", "controller", "sound", "video", "watchdog", "memballoon", "panic", "vsock", "iommu"), _ANY
    ),
    **dict.fromkeys(("serial", "console", "parallel", "channel"), _LINES),
    "interface": ("network", "bridge", "user", "direct"),
    "graphics": ("vnc", "spice"),
    "input": ("mouse", "keyboard", "tablet"),
    "audio": ("none", "spice"),
}
"""Devices that do not name anything of the host, with those of their types for which that is so (empty: all)."""
_BACKENDS = {"rng": ("random", "builtin"), "tpm": ("emulator",)}
"""Devices of which the backend decides."""
_INNER = ("log", "script", "downscript", "backend", "seclabel", "listen", "gl")
"""Parts of allowed devices that name things of the host."""
_NOT_WORTH_TELLING = ("resource", "seclabel", "emulator", "listen", "gl")
"""What libvirt fills in by itself."""
_FIRMWARE = "/usr/share/"
_RANDOM = ("", "/dev/random", "/dev/urandom", "/dev/hwrng")
"""What random numbers may come from; libvirt would read any other file, too."""
OVERRIDES = ("cores", "memory", "name")


@dataclass(frozen=True)
class Place:
    """Where a restored disk is.

    :param format: ``raw`` or ``qcow2``; :param device: it is a block device, not a file.
    """

    path: str
    format: str
    device: bool = False


@dataclass
class Rewritten:
    """The restored domain's XML.

    :param dropped: elements left out because they reach into the host; :param warnings: what else people should know.
    """

    text: str = ""
    dropped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def restored_xml(
    text: str,
    *,
    name: str,
    uuid: str,
    vmid: int,
    disks: Mapping[str, Place],
    nvram: str,
    new_macs: bool,
    trust: bool,
    overrides: Mapping[str, object],
) -> Rewritten:
    """The XML to define.

    :param disks: each restored disk, by target; :param nvram: path of the restored UEFI variables,
        empty to have libvirt make new ones; :param new_macs: let libvirt choose new hardware addresses.
    """
    domain = parse_domain(text)
    root, done = domain.root, Rewritten()
    _set_text(root, "name", name)
    _set_text(root, "uuid", uuid)
    _set_vmid(root, vmid)
    genid = root.find("genid")
    if genid is not None:
        # The guest went back in time and must be told so; libvirt fills it in.
        genid.text = None
    if not trust:
        _leave_out(root, done)
    _place_disks(root, domain.disks, disks, done)
    _place_nvram(root, nvram)
    for backend in root.iterfind("devices/tpm/backend[@type='emulator']"):
        # The state is restored to where libvirt looks for it without being told.
        for source in backend.findall("source"):
            backend.remove(source)
    if new_macs:
        for interface in root.iterfind("devices/interface"):
            for mac in interface.findall("mac"):
                interface.remove(mac)
    _apply(root, overrides)
    done.text = domain_text(root)
    return done


def without_secrets(text: str) -> str:
    """The XML as people and logs may see it."""
    root = parse_domain(text).root
    for element in root.iter("graphics"):
        if element.get("passwd"):
            element.set("passwd", "...")
    return domain_text(root)


def _set_text(root: ET.Element, tag: str, text: str) -> None:
    element = root.find(tag)
    if element is None:
        element = ET.SubElement(root, tag)
    element.text = text


def _set_vmid(root: ET.Element, vmid: int) -> None:
    metadata = root.find("metadata")
    if metadata is None:
        metadata = ET.SubElement(root, "metadata")
    own = metadata.find(f"{{{NAMESPACE}}}guest")
    if own is None:
        own = ET.SubElement(metadata, f"{{{NAMESPACE}}}guest")
    own.set("vmid", str(vmid))


def _leave_out(root: ET.Element, done: Rewritten) -> None:
    """Keep only what is known not to name things of the host."""
    for element in list(root):
        if not _ROOT.fullmatch(element.tag) or (element.tag == "sysinfo" and element.get("type") != "smbios"):
            _drop(root, element, done)
    for system in root.findall("os"):
        for element in list(system):
            path = (element.text or "").strip()
            packaged = not path or (path.startswith(_FIRMWARE) and ".." not in path)
            if not _OS.fullmatch(element.tag) or (element.tag == "loader" and not packaged):
                _drop(system, element, done)
    for devices in root.findall("devices"):
        for element in list(devices):
            if _reaches_host(element):
                _drop(devices, element, done)
                continue
            for inner in [inner for tag in _INNER for inner in element.findall(tag)]:
                if element.tag not in _BACKENDS:
                    _drop(element, inner, done)
            element.attrib.pop("socket", None)
            if element.tag not in ("interface", "disk"):
                # libvirt chooses the paths of sockets and terminals itself.
                for source in element.findall("source"):
                    element.remove(source)


def _reaches_host(element: ET.Element) -> bool:
    if element.tag in _BACKENDS:
        backend = element.find("backend")
        chosen = None if backend is None else backend.get("type" if element.tag == "tpm" else "model")
        source = "" if backend is None else (backend.text or "").strip()
        return chosen not in _BACKENDS[element.tag] or (element.tag == "rng" and source not in _RANDOM)
    types = _DEVICES.get(element.tag)
    return types is None or (types != _ANY and element.get("type") not in types)


def _drop(parent: ET.Element, element: ET.Element, done: Rewritten) -> None:
    parent.remove(element)
    tag, kind = element.tag.rpartition("}")[2], element.get("type")
    if tag not in _NOT_WORTH_TELLING:
        done.dropped.append(f"<{tag}{f' type={kind!r}' if kind else ''}>{(element.text or '').strip()}")


def _place_disks(root: ET.Element, known: tuple[DomainDisk, ...], places: Mapping[str, Place], done: Rewritten) -> None:
    devices = root.find("devices")
    if devices is None:
        return
    for disk, element in zip(known, devices.findall("disk")):
        for tag in ("backingStore", "mirror", "source", "encryption", "auth"):
            for inner in element.findall(tag):
                element.remove(inner)
        if disk.target in places:
            place = places[disk.target]
            element.set("type", "block" if place.device else "file")
            driver = element.find("driver")
            if driver is None:
                driver = ET.SubElement(element, "driver", name="qemu")
            driver.set("type", place.format)
            ET.SubElement(element, "source", {"dev" if place.device else "file": place.path})
        elif disk.device in ("cdrom", "floppy"):
            element.set("type", "file")
        else:
            devices.remove(element)
            done.warnings.append(f"disk {disk.target} is not in the archive and not in the restored domain")


def _place_nvram(root: ET.Element, path: str) -> None:
    firmware, element = root.find("os"), root.find("os/nvram")
    if firmware is None or element is None:
        return
    if not path:
        firmware.remove(element)
        return
    for inner in list(element):
        element.remove(inner)
    element.attrib.clear()
    element.text = path


def _apply(root: ET.Element, overrides: Mapping[str, object]) -> None:
    for key, value in overrides.items():
        if key not in OVERRIDES:
            raise UsageError(
                f"cannot override {key!r} of a libvirt domain: only {', '.join(OVERRIDES)} can be",
                hint="change it after the restore: virsh edit NAME",
            )
        if key == "name":
            continue
        if not re.fullmatch(r"0*[1-9][0-9]{0,11}", str(value)):
            raise UsageError(f"cannot override {key!r}: {value!r} is not a number")
        if key == "memory":
            for tag in ("memory", "currentMemory"):
                _set_text(root, tag, str(value))
                root.find(tag).set("unit", "MiB")  # type: ignore[union-attr]
        else:
            vcpu, cpu = root.find("vcpu"), root.find("cpu")
            _set_text(root, "vcpu", str(value))
            if vcpu is not None:
                vcpu.attrib.pop("current", None)
            topology = None if cpu is None else cpu.find("topology")
            if cpu is not None and topology is not None:
                cpu.remove(topology)
