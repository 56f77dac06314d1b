# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""libvirt's backup job in pull mode: what the guest overwrites goes to scratch files until the backup has read it."""

from __future__ import annotations

import contextlib
import os
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ..errors import GuestError, HoldfastError
from ..guests.libvirt.connection import libvirt_errors, load_libvirt
from ..guests.libvirt.guest import LibvirtGuest, recorded_domain, stalled
from ..settings.domain_xml import DomainDisk
from ..system.report import Reporter
from .fleecing import SpaceWatch
from .model import CaptureOptions, FleecingPlace

JOB = "capture.domain.job"
"""Undo kind: a backup job of a domain: ``uri``, ``uuid``, ``label``, ``socket``, ``files``, ``running``."""

_SOCKET = "holdfast.nbd"
_END_SECONDS = 60


@dataclass(frozen=True)
class Scratch:
    """Where a job puts its things.

    :param socket: of its NBD server; :param place: of the scratch files; :param files: the scratch file of each disk,
        by target; :param left_out: other disks.
    """

    socket: str
    place: FleecingPlace
    files: Mapping[str, str]
    left_out: Sequence[str]

    @classmethod
    def plan(cls, guest: LibvirtGuest, disks: Sequence[DomainDisk], options: CaptureOptions) -> Scratch:
        """Choose the places. The folder of this backup is opened to QEMU's user, who must get at its files there."""
        place = options.fleecing_place
        os.makedirs(place.folder, exist_ok=True)
        if options.fleecing is None:
            os.chmod(options.workdir, 0o711)
        stem = os.path.join(place.folder, f"vm-{guest.info.vmid}-fleece-")
        files = {disk.target: f"{stem}{disk.target}.qcow2" for disk in disks}
        others = [disk.target for disk in guest.definition.disks if disk.target not in files]
        return cls(os.path.join(guest.socket_folder(), _SOCKET), place, files, others)

    def to_xml(self) -> str:
        """The job as libvirt wants to hear it."""
        root = ET.Element("domainbackup", mode="pull")
        ET.SubElement(root, "server", transport="unix", socket=self.socket)
        disks = ET.SubElement(root, "disks")
        for target, path in self.files.items():
            disk = ET.SubElement(disks, "disk", name=target, backup="yes", type="file", exportname=target)
            ET.SubElement(disk, "driver", type="qcow2")
            ET.SubElement(disk, "scratch", file=path)
        for target in self.left_out:
            ET.SubElement(disks, "disk", name=target, backup="no")
        return ET.tostring(root, encoding="unicode")


def begin(guest: LibvirtGuest, scratch: Scratch) -> None:
    """Begin the job: from here on the exports show all disks as they are at this instant.

    :raises GuestError: libvirt cannot.
    """
    if not scratch.files:
        return
    hint = (
        f"QEMU's user must be able to reach {os.path.dirname(next(iter(scratch.files.values())))}: choose a storage for"
        " fleecing that it can (fleecing: enabled=1,storage=S)"
    )
    with libvirt_errors(f"begin the backup of {guest.label}", hint=hint):
        guest.handle.backupBegin(scratch.to_xml(), None, 0)


def refuse_foreign_job(guest: LibvirtGuest, report: Reporter) -> None:
    """Make sure that no job is in the way; one that a killed run left is ended.

    :raises GuestError: somebody else backs up this domain.
    """
    socket = _job_socket(guest.handle)
    if socket is None:
        return
    if os.path.basename(socket) != _SOCKET:
        raise GuestError(
            f"cannot back up {guest.label}: another program backs it up at the moment",
            hint=f"wait for it, or end it: virsh domjobabort {guest.info.name}",
        )
    report.warn("ended the job that an earlier backup left in the running domain")
    with libvirt_errors(f"end the old backup job of {guest.label}"):
        _end(guest.handle, guest.label, False)


def undo_job(data: Mapping[str, Any]) -> None:
    """End the job of a run that may be dead, and remove its files; if the domain stopped, so did the job."""
    with recorded_domain(data) as (handle, status):
        if status != "stopped" and _job_socket(handle) == str(data["socket"]):
            _end(handle, str(data["label"]), bool(data["running"]))
    for path in (str(data["socket"]), *map(str, data["files"])):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _job_socket(handle: Any) -> str | None:
    """Socket of the domain's backup job, empty if it has another kind of server; ``None`` without a job."""
    libvirt = load_libvirt()
    try:
        text = handle.backupGetXMLDesc()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN_BACKUP, libvirt.VIR_ERR_OPERATION_INVALID):
            return None
        raise
    server = ET.fromstring(text).find("server")
    return "" if server is None else server.get("socket", "")


def _end(handle: Any, label: str, running: bool) -> None:
    """:param running: the guest ran before the job, and shall not stay paused because of it."""
    libvirt = load_libvirt()
    # A job that ends already refuses this.
    with contextlib.suppress(libvirt.libvirtError):
        handle.abortJob()
    deadline = time.monotonic() + _END_SECONDS
    while True:
        # QEMU gives the job up at once, but libvirt may notice late (30 s when an agent connected meanwhile).
        present = _job_socket(handle) is not None
        if running and stalled(handle):
            handle.resume()
        if not present:
            return
        if time.monotonic() > deadline:
            raise GuestError(
                f"the backup job of {label} does not end within {_END_SECONDS} s",
                hint="look whether libvirtd answers: virsh domjobinfo NAME; then virsh domjobabort NAME",
            )
        time.sleep(0.1)


class JobWatch(SpaceWatch):
    """Watches the scratch files' file system, and the guest: QEMU pauses it when a scratch file cannot take a block.

    :param job: the undo entry of the job.
    """

    def __init__(self, guest: LibvirtGuest, place: FleecingPlace, job: Mapping[str, Any]) -> None:
        super().__init__(place, self._end_job)
        self._guest = guest
        self._job = job

    def is_needed(self) -> bool:
        # A state that cannot be told is met again by whoever reads the disks.
        with contextlib.suppress(HoldfastError):
            return super().is_needed() or (bool(self._job["running"]) and self._guest.stalled())
        return False

    def _end_job(self) -> None:
        # What does not succeed here is tried again at the end of the backup.
        with contextlib.suppress(HoldfastError):
            undo_job(self._job)
