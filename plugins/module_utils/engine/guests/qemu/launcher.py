# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VM config in Proxmox VE syntax becomes a QEMU command line.

Keys that would change the guest and are not understood are refused; those that only concern Proxmox VE's own
management are without effect. ``hookscript`` is not run.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass

from ...errors import ConfigError, GuestError
from ...settings.guest_config import GuestConfig
from ...settings.propstring import parse_flag, parse_property_string
from ...settings.vm_config import Nic, agent_settings, vm_nics
from ..model import Resolve
from .disks import drive_args, firmware_args
from .tpm import tpm_device

_KNOWN = re.compile(
    r"agent|args|bios|boot|cores|cpu|kvm|machine|memory|name|scsihw|smbios1|sockets|vga|vmgenid|vcpus"
    r"|(?:net|scsi|virtio|sata|ide|serial)\d+|efidisk0|tpmstate0"
)
_NO_EFFECT = re.compile(
    r"acpi|affinity|allow-ksm|autostart|balloon|bootdisk|cdrom|ci\w+|cpulimit|cpuunits|description|digest|freeze"
    r"|hookscript|hotplug|ipconfig\d+|keyboard|localtime|lock|meta|migrate_\w+|nameserver|numa|onboot|ostype|parent|pool"
    r"|protection|reboot|rng0|searchdomain|shares|sshkeys|startdate|startup|tablet|tags|tdf|template|unused\d+|watchdog"
)
_CPU_MODELS = {
    "x86-64-v2": "qemu64,+popcnt,+pni,+sse4.1,+sse4.2,+ssse3",
    "x86-64-v2-AES": "qemu64,+aes,+popcnt,+pni,+sse4.1,+sse4.2,+ssse3",
}
_NICS = {"virtio": "virtio-net-pci", "e1000": "e1000", "rtl8139": "rtl8139", "vmxnet3": "vmxnet3", "e1000e": "e1000e"}


@dataclass(frozen=True)
class Sockets:
    """Where a running VM's control files are; ``console`` collects what the guest writes to its serial ports."""

    qmp: str
    agent: str
    pid: str
    console: str
    tpm: str

    @classmethod
    def of(cls, folder: str, vmid: int) -> Sockets:
        base = os.path.join(folder, str(vmid))
        return cls(f"{base}.qmp", f"{base}.qga", f"{base}.pid", f"{base}.serial.log", f"{base}.swtpm")


def qemu_argv(vmid: int, config: GuestConfig, resolve: Resolve, sockets: Sockets, *, paused: bool = False) -> list[str]:
    """The command line of a VM.

    :param paused: do not let the guest run yet.
    :raises ConfigError: a key or value that QEMU could not be told; :raises GuestError: a bridge does not exist here.
    """
    for key, _value in config.items():
        if not _KNOWN.fullmatch(key) and not _NO_EFFECT.fullmatch(key):
            raise ConfigError(f"VM {vmid}: the key {key!r} is not supported", hint="remove it from the VM's config")
    flash, firmware = firmware_args(vmid, config, resolve)
    kvm = parse_flag(config.get("kvm") or "1", "kvm")
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"]
    # A comma would begin another option, unless it is doubled.
    name = (config.get("name") or f"VM{vmid}").replace(",", ",,")
    argv += ["-name", f"guest={name},debug-threads=on"]
    argv += ["-machine", _machine(config) + flash, "-accel", "kvm" if kvm else "tcg,thread=multi"]
    argv += ["-m", str(_memory(config)), "-smp", str(_cpus(config))]
    argv += _cpu(config, kvm)
    argv += ["-qmp", f"unix:{sockets.qmp},server=on,wait=off", "-pidfile", sockets.pid]
    argv += [*_identity(config), *_agent(config, sockets), *_serial(config, sockets)]
    order = _boot_order(config)
    argv += [*firmware, *tpm_device(config, sockets), *drive_args(vmid, config, resolve, order)]
    for nic in vm_nics(config):
        argv += _nic(vmid, nic, order)
    if (config.get("vga") or "std").split(",")[0] not in ("none", "serial0", "serial1"):
        argv += ["-device", "VGA"]
    try:
        argv += shlex.split(config.get("args") or "")
    except ValueError as exc:
        raise ConfigError(f"VM {vmid}: args cannot be split into words: {exc}", hint="close the quotation") from exc
    if paused:
        argv.append("-S")
    return [*argv, "-daemonize"]


def _machine(config: GuestConfig) -> str:
    """The machine's type alone: QEMU's own options of it would name files of the host, like a kernel."""
    values = parse_property_string(config.get("machine") or "pc", "type")
    machine = values.pop("type", "pc")
    if values:
        raise ConfigError(f"machine: {', '.join(values)} is not supported", hint="write the type alone, like q35")
    return machine


def _memory(config: GuestConfig) -> int:
    text = parse_property_string(config.get("memory") or "512", "current")["current"]
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ConfigError(f"memory: {text!r} is not a number of MiB")
    return int(text)


def _cpus(config: GuestConfig) -> int:
    given = {key: config.get(key) or "1" for key in ("vcpus", "cores", "sockets")}
    for key, text in given.items():
        if not re.fullmatch(r"[1-9][0-9]{0,4}", text):
            raise ConfigError(f"{key}: {text!r} is not a number of processors")
    return int(given["vcpus"] if config.get("vcpus") else int(given["cores"]) * int(given["sockets"]))


def _cpu(config: GuestConfig, kvm: bool) -> list[str]:
    values = parse_property_string(config.get("cpu") or "", "cputype")
    model = values.get("cputype")
    if not model:
        return []
    if model == "host" and not kvm:
        raise ConfigError("cpu: 'host' needs KVM, but the config says kvm: 0", hint="choose another cpu")
    flags = "".join(f",{flag}" for flag in values.get("flags", "").split(";") if flag)
    return ["-cpu", _CPU_MODELS.get(model, model) + flags]


def _identity(config: GuestConfig) -> list[str]:
    argv = []
    uuid = parse_property_string(config.get("smbios1") or "", "uuid").get("uuid")
    if uuid:
        argv += ["-uuid", uuid]
    if config.get("vmgenid") not in (None, "0"):
        argv += ["-device", f"vmgenid,guid={config.get('vmgenid')}"]
    return argv


def _agent(config: GuestConfig, sockets: Sockets) -> list[str]:
    settings = agent_settings(config)
    if not settings.enabled:
        return []
    argv = ["-chardev", f"socket,path={sockets.agent},server=on,wait=off,id=qga0"]
    if settings.type == "isa":
        return [*argv, "-device", "isa-serial,chardev=qga0"]
    return [*argv, "-device", "virtio-serial-pci,id=qga-bus",
            "-device", "virtserialport,chardev=qga0,name=org.qemu.guest_agent.0"]  # fmt: skip


def _serial(config: GuestConfig, sockets: Sockets) -> list[str]:
    argv = []
    for key, value in config.items():
        if not re.fullmatch(r"serial\d+", key):
            continue
        if value != "socket":
            raise ConfigError(f"{key}: {value!r} is not supported", hint="write 'socket'")
        path = f"{os.path.splitext(sockets.pid)[0]}.{key}"
        log = f",logfile={sockets.console},logappend=off" if key == "serial0" else ""
        argv += ["-chardev", f"socket,id={key},path={path},server=on,wait=off{log}"]
        argv += ["-device", f"isa-serial,chardev={key}"]
    return argv


def _boot_order(config: GuestConfig) -> list[str]:
    boot = parse_property_string(config.get("boot") or "", "legacy")
    return [key for key in boot.get("order", "").split(";") if key]


def _nic(vmid: int, nic: Nic, order: list[str]) -> list[str]:
    if nic.model not in _NICS:
        raise ConfigError(f"VM {vmid}: {nic.key}: model {nic.model!r} is not supported", hint=", ".join(_NICS))
    if nic.bridge and not os.path.exists(f"/sys/class/net/{nic.bridge}"):
        raise GuestError(
            f"VM {vmid}: {nic.key} wants the bridge {nic.bridge!r}, which does not exist here",
            hint="create the bridge, or change that line",
        )
    backend = f"bridge,br={nic.bridge}" if nic.bridge else "user,restrict=on"
    mac = f",mac={nic.mac}" if nic.mac else ""
    boot = f",bootindex={order.index(nic.key) + 1}" if nic.key in order else ""
    return ["-netdev", f"{backend},id={nic.key}", "-device", f"{_NICS[nic.model]},netdev={nic.key}{mac}{boot}"]
