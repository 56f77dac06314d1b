# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A libvirt domain: found, started, stopped, paused and frozen through libvirt alone."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from typing import Any, Iterator, Mapping

from ...errors import GuestError, HoldfastError
from ...settings.domain_config import domain_config
from ...settings.domain_xml import Domain, DomainDisk, parse_domain
from ...settings.guest_config import GuestConfig
from ...system.host import Host
from ...system.undo import Handler
from ..model import GuestInfo
from ..vmids import placeholder, stable_vmids
from .connection import connect, find_domain, libvirt_errors, libvirt_settings, load_libvirt
from .tpm import state_path

RESUME = "libvirt.resume"
"""Undo kind: a domain that ran was paused by us: ``uri``, ``uuid``, ``label``."""
THAW = "libvirt.thaw"
"""Undo kind: a domain's file systems may be frozen: ``uri``, ``uuid``, ``label``."""
START = "libvirt.start"
"""Undo kind: a domain is shut down and shall run again: ``uri``, ``uuid``, ``label``, ``was`` (its id before)."""

SHUTDOWN_SECONDS = 60.0
"""How long clean-up waits for a guest that was asked to power off by a run that is over."""
FREEZE_SECONDS = 60
THAW_SECONDS = 30
_ASK_AGAIN_SECONDS = 10.0
"""A guest that still boots hears nobody: it is asked again."""


def list_domains(host: Host) -> list[GuestInfo]:
    """Every domain of this node's libvirt, by id; none when libvirt is not used, a placeholder when it cannot."""
    try:
        return _domains(host)
    except HoldfastError:
        return [placeholder("libvirt", "libvirt", host.paths.libvirt_conf)]


def _domains(host: Host) -> list[GuestInfo]:
    settings = libvirt_settings(host)
    if settings is None:
        return []
    connection = connect(settings.uri)
    with libvirt_errors(f"list the domains of {settings.uri}"):
        domains = [parse_domain(handle.XMLDesc(0)) for handle in connection.listAllDomains()]
    given = stable_vmids(host, [f"libvirt:{domain.uuid}" for domain in domains if not domain.vmid])
    found = [
        GuestInfo(
            kind="libvirt",
            vmid=domain.vmid or given[f"libvirt:{domain.uuid}"],
            name=domain.name,
            tags=domain.tags,
            pool=domain.pool,
            template=False,
            config_path=f"{settings.uri} {domain.name}",
        )
        for domain in domains
    ]
    return sorted(found, key=lambda info: info.vmid)


class LibvirtGuest:
    """One domain; ``definition`` is what it is at the moment: of a running domain, its live state."""

    def __init__(self, host: Host, info: GuestInfo) -> None:
        settings = libvirt_settings(host)
        if settings is None:
            raise GuestError(f"guest {info.vmid} ({info.name}) does not exist: libvirt is not used on this node")
        self.info = info
        self.label = f"domain {info.name}"
        self.run_folder = os.path.join(host.paths.run, "libvirt")
        self._settings = settings
        self._libvirt = load_libvirt()
        self._connection = connect(settings.uri)
        with libvirt_errors(f"find the {self.label}"):
            self.handle = self._connection.lookupByName(info.name)
            self.uuid = str(self.handle.UUIDString())

    @property
    def undo_data(self) -> dict[str, str]:
        """What an undo entry needs to find this domain again."""
        return {"uri": self._settings.uri, "uuid": self.uuid, "label": self.label}

    @property
    def definition(self) -> Domain:
        with libvirt_errors(f"read the definition of {self.label}"):
            return parse_domain(self.handle.XMLDesc(0))

    @functools.cached_property
    def config(self) -> GuestConfig:
        """The domain in Proxmox VE syntax."""
        domain = self.definition
        sizes = {}
        for disk in domain.disks:
            with contextlib.suppress(self._libvirt.libvirtError):
                sizes[disk.target] = int(self.handle.blockInfo(disk.target)[0])
        bridges = {}
        for source in domain.root.iterfind("devices/interface/source[@network]"):
            name = source.get("network", "")
            with contextlib.suppress(self._libvirt.libvirtError):
                bridges[name] = str(self._connection.networkLookupByName(name).bridgeName())
        nvram = os.path.getsize(domain.nvram) if os.path.exists(domain.nvram) else 0
        tpm = self.tpm_state
        return domain_config(domain, sizes, bridges, nvram, tpm if os.path.exists(tpm) else "")

    @property
    def tpm_state(self) -> str:
        """File for the permanent state of its emulated TPM; empty when it has no such TPM."""
        domain = self.definition
        tpm = domain.emulated_tpm
        return "" if tpm is None else state_path(self._settings, domain, tpm)

    def archived_xml(self) -> str:
        """The definition for an archive: what the next start would use, unless other disks are plugged in now."""
        flags = self._libvirt.VIR_DOMAIN_XML_SECURE
        with libvirt_errors(f"read the definition of {self.label}"):
            text = str(self.handle.XMLDesc(flags | self._libvirt.VIR_DOMAIN_XML_INACTIVE))
            if _targets(parse_domain(text)) != _targets(self.definition):
                text = str(self.handle.XMLDesc(flags | self._libvirt.VIR_DOMAIN_XML_MIGRATABLE))
        return text

    def status(self) -> str:
        """``running``, ``paused`` or ``stopped``."""
        return _status(self.handle, self.label)

    def start(self, *, paused: bool = False) -> None:
        """Start it.

        :param paused: the guest does not run until :meth:`resume`.
        :raises GuestError: it runs already, or libvirt cannot start it.
        """
        flags = self._libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        with libvirt_errors(f"start {self.label}", hint=f"see /var/log/libvirt/qemu/{self.info.name}.log"):
            self.handle.createWithFlags(flags)

    def shutdown(self, timeout: float) -> None:
        """Ask the guest to power off, by its agent or else by ACPI, and wait.

        :param timeout: seconds.
        :raises GuestError: it is paused, so that it cannot answer, or it still runs after that; it is not killed.
        """
        if self.status() == "paused":
            raise GuestError(
                f"{self.label} cannot shut down, because it is paused", hint="let it go on first, or do without that"
            )
        deadline = time.monotonic() + timeout
        asked = -_ASK_AGAIN_SECONDS
        while self.status() != "stopped":
            now = time.monotonic()
            if now > deadline:
                raise GuestError(
                    f"{self.label} did not power off within {timeout:g} s",
                    hint="look what keeps the guest from it, or raise stopwait",
                )
            if now - asked >= _ASK_AGAIN_SECONDS:
                self._ask_to_power_off()
                asked = now
            time.sleep(0.1)

    def stop(self) -> None:
        """End it at once, as if the power failed."""
        if self.status() != "stopped":
            with libvirt_errors(f"stop {self.label}"):
                self.handle.destroy()

    def stalled(self) -> bool:
        """Whether QEMU paused it because a block could not be written."""
        with libvirt_errors(f"ask the state of {self.label}"):
            return stalled(self.handle)

    def pause(self) -> None:
        """Stop its virtual CPUs."""
        with libvirt_errors(f"pause {self.label}"):
            self.handle.suspend()

    def resume(self) -> None:
        """Let its virtual CPUs run."""
        with libvirt_errors(f"resume {self.label}"):
            self.handle.resume()

    def freeze(self) -> int:
        """Flush and freeze all file systems of the guest; returns how many.

        :raises GuestError: the agent refuses, or did not answer in time.
        """
        with libvirt_errors(f"freeze the file systems of {self.label}"):
            self._limit_agent(FREEZE_SECONDS)
            return int(self.handle.fsFreeze())

    @property
    def persistent(self) -> bool:
        """Whether the domain is still defined when it does not run."""
        return bool(self.handle.isPersistent())

    @property
    def saved(self) -> bool:
        """Whether libvirt keeps the memory of the stopped domain, to go on with it at the next start."""
        return bool(self.handle.hasManagedSaveImage())

    @property
    def qemu_version(self) -> tuple[int, int]:
        """Major and minor version of QEMU."""
        number = int(self._connection.getVersion())
        return number // 1_000_000, number // 1000 % 1000

    def path_of(self, disk: DomainDisk) -> str:
        """Path of a disk's image or block device on this node.

        :raises GuestError: the disk is not a file or block device here.
        """
        if disk.type in ("file", "block"):
            return disk.source
        if disk.type == "volume":
            pool, _slash, volume = disk.source.partition("/")
            with libvirt_errors(f"find the volume {disk.source} of {self.label}"):
                return str(self._connection.storagePoolLookupByName(pool).storageVolLookupByName(volume).path())
        raise GuestError(
            f"cannot read {disk.target} of {self.label} while it does not run: it is a {disk.type} disk",
            hint="back it up while it runs, or leave the disk out (exclude-disks in the domain's metadata)",
        )

    def socket_folder(self) -> str:
        """Where this running domain's QEMU may create sockets, whatever confines it.

        :raises GuestError: there is no such folder.
        """
        prefix = f"domain-{self.handle.ID()}-"
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._settings.state_folder):
                if name.startswith(prefix):
                    return os.path.join(self._settings.state_folder, name)
        raise GuestError(
            f"cannot back up {self.label}: libvirt's folder of the running domain, {prefix}*, is not in"
            f" {self._settings.state_folder}",
            hint="set state-folder in libvirt.conf to where your libvirt keeps it",
        )

    def _ask_to_power_off(self) -> None:
        if self.definition.agent_connected:
            with contextlib.suppress(self._libvirt.libvirtError):
                self._limit_agent(FREEZE_SECONDS)
                self.handle.shutdownFlags(self._libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)
                return
        # A guest that powered off in this moment cannot be asked any more; the caller sees that.
        with contextlib.suppress(self._libvirt.libvirtError):
            self.handle.shutdownFlags(self._libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

    def _limit_agent(self, seconds: int) -> None:
        self.handle.agentSetResponseTimeout(seconds, 0)


def _targets(domain: Domain) -> set[tuple[str, str]]:
    return {(disk.target, disk.source) for disk in domain.disks if disk.backup}


def _status(handle: Any, label: str) -> str:
    libvirt = load_libvirt()
    with libvirt_errors(f"ask the state of {label}"):
        state = handle.state()[0]
    if state in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED):
        return "stopped"
    return "paused" if state in (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED) else "running"


def stalled(handle: Any) -> bool:
    """Whether QEMU paused a domain because a block could not be written."""
    libvirt = load_libvirt()
    return bool(handle.state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR])


@contextlib.contextmanager
def recorded_domain(data: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """The domain of an undo entry and its state; ``None`` and ``stopped`` when it does not exist any more."""
    label = str(data["label"])
    handle = find_domain(connect(str(data["uri"])), str(data["uuid"]))
    with libvirt_errors(f"clean up {label}"):
        yield handle, "stopped" if handle is None else _status(handle, label)


def _undo_resume(data: Mapping[str, Any]) -> None:
    with recorded_domain(data) as (handle, status):
        if status == "paused":
            handle.resume()


def _undo_thaw(data: Mapping[str, Any]) -> None:
    libvirt = load_libvirt()
    with recorded_domain(data) as (handle, status):
        if status == "stopped":
            return
        handle.agentSetResponseTimeout(THAW_SECONDS, 0)
        try:
            handle.fsThaw()
        finally:
            handle.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0)


def _undo_start(data: Mapping[str, Any]) -> None:
    deadline = time.monotonic() + SHUTDOWN_SECONDS
    while True:
        with recorded_domain(data) as (handle, status):
            if handle is None:
                return
            # The guest may still be on its way down. One that does not end in this time does not want to, and runs on.
            if status == "stopped":
                handle.create()
                return
            if handle.ID() != data["was"] or time.monotonic() > deadline:
                return
        time.sleep(0.1)


UNDO: dict[str, Handler] = {RESUME: _undo_resume, THAW: _undo_thaw, START: _undo_start}
