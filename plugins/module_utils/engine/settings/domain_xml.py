# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a libvirt domain's XML says, as far as backups need it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from ..errors import ConfigError

NAMESPACE = "https://holdfast.virt/guest/1"
"""Namespace of our element in a domain's metadata: ``<holdfast:guest vmid="" tags="" pool="" exclude-disks=""/>``."""
XML_BLOB = "libvirt-domain.xml"
"""Name of a domain's own definition in archives."""
NVRAM_KEY = "efidisk0"
"""Key of the UEFI variables in Proxmox VE syntax."""
TPM_KEY = "tpmstate0"
"""Key of the TPM's state in Proxmox VE syntax."""
_PREFIXES = {
    "holdfast": NAMESPACE,
    "qemu": "http://libvirt.org/schemas/domain/qemu/1.0",
    "libosinfo": "http://libosinfo.org/xmlns/libvirt/domain/1.0",
}
_LIMITS = {"ide": 4, "sata": 6, "scsi": 31, "virtio": 16}
"""How many drives each interface has in Proxmox VE."""
_UNITS = {"b": 1, "bytes": 1, "KB": 1000, "k": 1024, "KiB": 1024, "MB": 10**6, "M": 1 << 20, "MiB": 1 << 20}
_UNITS.update({"GB": 10**9, "G": 1 << 30, "GiB": 1 << 30, "TB": 10**12, "T": 1 << 40, "TiB": 1 << 40})

for _prefix, _uri in _PREFIXES.items():
    ET.register_namespace(_prefix, _uri)


@dataclass(frozen=True)
class DomainDisk:
    """One ``<disk>``.

    :param target: libvirt's name (``vda``); :param key: its key in Proxmox VE syntax (``virtio0``).
    :param device: ``disk``, ``cdrom``, ``floppy`` or ``lun``.
    :param type: where the data is: ``file``, ``block``, ``volume``, ``network`` and so on.
    :param source: path of a file or block device, ``pool/volume`` of a volume; empty when there is no medium.
    :param format: ``raw``, ``qcow2`` or whatever the XML names.
    :param iothread: the device runs in an iothread; :param encrypted: libvirt holds the key of the image.
    :param excluded: the domain's metadata leaves it out of backups.
    """

    target: str
    key: str
    device: str
    type: str
    source: str
    format: str
    iothread: bool = False
    encrypted: bool = False
    excluded: bool = False

    @property
    def backup(self) -> bool:
        """Whether a backup takes it."""
        return self.device in ("disk", "lun") and not self.excluded


@dataclass(frozen=True)
class DomainTpm:
    """A ``<tpm>``.

    :param backend: who is the TPM: ``emulator`` is swtpm, started by libvirt; ``passthrough``, ``external``.
    :param version: ``1.2`` or ``2.0``; :param source: path of the state, if libvirt is told one.
    :param source_type: what is there, ``dir`` or ``file``.
    :param secret: uuid of libvirt's secret that encrypts the state, empty without.
    """

    backend: str
    version: str
    source: str = ""
    source_type: str = "dir"
    secret: str = ""


@dataclass(frozen=True)
class Domain:
    """A domain.

    :param type: ``kvm`` or ``qemu``; :param nvram: path of the UEFI variables, empty without;
    :param nvram_format: their format; :param tpm: ``None`` without one.
    :param vmid: id given in the metadata, 0 without; :param agent: it has a guest agent's channel;
    :param agent_connected: an agent listens there (running domains only).
    """

    root: ET.Element
    name: str
    uuid: str
    type: str
    disks: tuple[DomainDisk, ...]
    nvram: str
    nvram_format: str
    tpm: DomainTpm | None
    vmid: int
    tags: tuple[str, ...]
    pool: str
    agent: bool
    agent_connected: bool

    @property
    def emulated_tpm(self) -> DomainTpm | None:
        """Its TPM, if libvirt keeps the state of that."""
        return self.tpm if self.tpm is not None and self.tpm.backend == "emulator" else None


def parse_domain(text: str) -> Domain:
    """Understand a domain's XML.

    :raises ConfigError: it is not the XML of a domain.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ConfigError("this is not a domain's XML: it declares entities")
    try:
        root = ET.fromstring(text)
    except ET.ParseError as exc:
        raise ConfigError(f"this is not a domain's XML: {exc}") from exc
    if root.tag != "domain":
        raise ConfigError(f"this is not a domain's XML: its element is <{root.tag}>")
    for tag in ("devices", "os"):
        # libvirt takes them all together; who looks at the first alone would overlook the others.
        if len(root.findall(tag)) > 1:
            raise ConfigError(f"this is not a domain's XML: it has several elements <{tag}>")
    own = root.find(f"metadata/{{{NAMESPACE}}}guest")
    ours = {} if own is None else own.attrib
    vmid = ours.get("vmid", "0")
    if not re.fullmatch(r"0|[1-9][0-9]{2,8}", vmid):
        raise ConfigError(f"domain {root.findtext('name')!r}: the vmid {vmid!r} in its metadata is no guest id")
    channel = root.find("devices/channel/target[@name='org.qemu.guest_agent.0']")
    nvram = root.find("os/nvram")
    return Domain(
        root=root,
        name=root.findtext("name") or "",
        uuid=root.findtext("uuid") or "",
        type=root.get("type", ""),
        disks=_disks(root, _words(ours.get("exclude-disks", ""))),
        nvram="" if nvram is None else _nvram_path(nvram),
        nvram_format="raw" if nvram is None else nvram.get("format", "raw"),
        tpm=_tpm(root.find("devices/tpm/backend")),
        vmid=int(vmid),
        tags=_words(ours.get("tags", "")),
        pool=ours.get("pool", ""),
        agent=channel is not None,
        agent_connected=channel is not None and channel.get("state") == "connected",
    )


def domain_text(root: ET.Element) -> str:
    """An element as text again."""
    return ET.tostring(root, encoding="unicode")


def mebibytes(element: ET.Element | None) -> int:
    """Content of an element with a unit, in MiB; 0 without one."""
    if element is None or not re.fullmatch(r"[0-9]{1,18}", (element.text or "").strip()):
        return 0
    return int(element.text or 0) * _UNITS.get(element.get("unit", "KiB"), 1024) // (1 << 20)


def _nvram_path(nvram: ET.Element) -> str:
    """The path is the element's text, or since libvirt 8.5 a source of its own."""
    source = nvram.find("source")
    return (nvram.text or "").strip() if source is None else source.get("file", source.get("dev", ""))


def _tpm(backend: ET.Element | None) -> DomainTpm | None:
    if backend is None:
        return None
    source, encryption = backend.find("source"), backend.find("encryption")
    place = {} if source is None else source.attrib
    return DomainTpm(
        backend=backend.get("type", ""),
        version=backend.get("version", "2.0"),
        source=place.get("path", ""),
        source_type=place.get("type", "dir"),
        secret="" if encryption is None else encryption.get("secret", ""),
    )


def _disks(root: ET.Element, excluded: tuple[str, ...]) -> tuple[DomainDisk, ...]:
    threaded = {
        controller.get("index", "0")
        for controller in root.iterfind("devices/controller[@type='scsi']")
        if controller.find("driver[@iothread]") is not None
    }
    disks: list[DomainDisk] = []
    for element in root.iterfind("devices/disk"):
        target, driver, source = element.find("target"), element.find("driver"), element.find("source")
        name, bus = ("", "") if target is None else (target.get("dev", ""), target.get("bus", ""))
        address = element.find("address")
        on = "0" if address is None else address.get("controller", "0")
        in_source = None if source is None else source.find("encryption")
        disks.append(
            DomainDisk(
                target=name,
                key=_key(bus, name, {disk.key for disk in disks}),
                device=element.get("device", "disk"),
                type=element.get("type", ""),
                source=_source(source),
                format="raw" if driver is None else driver.get("type", "raw"),
                iothread=(driver is not None and driver.get("iothread") is not None)
                or (bus == "scsi" and on in threaded),
                encrypted=element.find("encryption") is not None or in_source is not None,
                excluded=name in excluded,
            )
        )
    return tuple(disks)


def _source(source: ET.Element | None) -> str:
    if source is None:
        return ""
    if source.get("pool"):
        return f"{source.get('pool')}/{source.get('volume')}"
    return source.get("file") or source.get("dev") or source.get("name") or ""


def _key(bus: str, target: str, taken: set[str]) -> str:
    """The drive key that stands for a target: ``vdc`` is ``virtio2``; what the interface has no place for goes on."""
    interface = bus if bus in _LIMITS else "scsi"
    number = 0
    for letter in re.sub(r"^(?:vd|sd|hd|xvd|ubd|fd)", "", target):
        number = number * 26 + ord(letter) - 96 if letter.islower() else number
    wanted = f"{interface}{max(number - 1, 0)}"
    if number <= _LIMITS[interface] and wanted not in taken:
        return wanted
    free = (f"{name}{n}" for name in (interface, "scsi", "virtio", "sata") for n in range(_LIMITS[name]))
    for key in free:
        if key not in taken:
            return key
    raise ConfigError(f"disk {target!r}: the domain has more disks than Proxmox VE's syntax has places")


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, re.split(r"[;,\s]+", text)))
