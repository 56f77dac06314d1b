# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""libvirt's backup job in pull mode: what the guest overwrites goes to scratch files until the backup has read it."""

from __future__ import annotations

import contextlib
import os
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from ..errors import GuestError, StorageError
from ..guests.libvirt.connection import libvirt_errors, load_libvirt
from ..guests.libvirt.guest import LibvirtGuest, recorded_domain, stalled
from ..settings.domain_xml import DomainDisk
from ..storages.scratch import ScratchImage, ScratchSpace
from ..system.report import Reporter
from ..system.undo import UndoStack
from .fleecing import SpaceWatch
from .model import CaptureOptions

JOB = "capture.domain.job"
"""Undo kind: a backup job of a domain: ``uri``, ``uuid``, ``label``, ``socket``, ``running``."""

_SOCKET = "holdfast.nbd"
_END_SECONDS = 60


@dataclass(frozen=True)
class Scratch:
    """Where a job puts its things.

    :param socket: of its NBD server; :param space: where the scratch images are; :param images: by target of the disk;
    :param left_out: other disks; :param tokens: undo tokens that remove the images.
    :param failures: what :meth:`lost` has found.
    """

    socket: str
    space: ScratchSpace
    images: Mapping[str, ScratchImage]
    left_out: Sequence[str]
    tokens: Sequence[int]
    failures: list[str] = field(default_factory=list)

    @classmethod
    def plan(
        cls, guest: LibvirtGuest, disks: Sequence[DomainDisk], options: CaptureOptions, undo: UndoStack
    ) -> Scratch:
        """Choose the places, and make there what libvirt cannot make.

        The folder of this backup is opened to QEMU's user, who must get at its files there.

        :raises StorageError: there is no room.
        """
        space = options.fleecing_space(guest.info.vmid)
        space.check()
        if options.fleecing is None:
            os.chmod(options.workdir, 0o711)
        images, tokens = {}, []
        for disk in disks:
            image = images[disk.target] = space.image("qcow2")
            kind, data = image.undo
            tokens.append(undo.push(kind, **data))
            image.allocate(guest.size_of(disk))
        others = [disk.target for disk in guest.definition.disks if disk.target not in images]
        return cls(os.path.join(guest.socket_folder(), _SOCKET), space, images, others, tokens)

    def to_xml(self) -> str:
        """The job as libvirt wants to hear it."""
        root = ET.Element("domainbackup", mode="pull")
        ET.SubElement(root, "server", transport="unix", socket=self.socket)
        disks = ET.SubElement(root, "disks")
        for target, image in self.images.items():
            kind, attribute = ("block", "dev") if image.device else ("file", "file")
            disk = ET.SubElement(disks, "disk", name=target, backup="yes", type=kind, exportname=target)
            ET.SubElement(disk, "driver", type=image.format)
            ET.SubElement(disk, "scratch", {attribute: image.path})
        for target in self.left_out:
            ET.SubElement(disks, "disk", name=target, backup="no")
        return ET.tostring(root, encoding="unicode")

    def lost(self) -> str:
        """What of the scratch images could not be kept so far, empty when all could.

        QEMU writes to a device through the page cache: it does not hear of a pool that is full, and the pool does not
        fill until somebody has it written out, as this does.
        """
        for image in self.images.values():
            try:
                if image.device:
                    with open(image.path, "rb") as stream:
                        os.fsync(stream.fileno())
            except OSError as exc:
                # The kernel says it once.
                self.failures.append(f"{image.path}: {exc.strerror}")
        return next(iter(self.failures), "")

    def check_kept(self) -> None:
        """To be called when the disks are read.

        :raises StorageError: something that the guest overwrote could not be kept.
        """
        lost = self.lost()
        if lost:
            raise StorageError(
                f"what the guest overwrote could not be kept on {self.space.label}: {lost}",
                hint="choose a larger storage for fleecing, or a faster target for the backup",
            )

    def remove(self) -> None:
        """Remove the images; the job must have ended."""
        for image in self.images.values():
            image.remove()


def begin(guest: LibvirtGuest, scratch: Scratch) -> None:
    """Begin the job: from here on the exports show all disks as they are at this instant.

    :raises GuestError: libvirt cannot.
    """
    if not scratch.images:
        return
    hint = (
        f"QEMU's user must be able to reach {next(iter(scratch.images.values())).path}: choose a storage for"
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
    """End the job of a run that may be dead; if the domain stopped, so did the job."""
    with recorded_domain(data) as (handle, status):
        if status != "stopped" and _job_socket(handle) == str(data["socket"]):
            _end(handle, str(data["label"]), bool(data["running"]))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(str(data["socket"]))


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
    """Watches the room for scratch images, and the guest: QEMU pauses it when a scratch image cannot take a block.

    :param job: the undo entry of the job.
    """

    def __init__(self, guest: LibvirtGuest, scratch: Scratch, job: Mapping[str, Any]) -> None:
        super().__init__(scratch.space, self._end_job)
        self._guest = guest
        self._scratch = scratch
        self._job = job

    def trouble(self) -> str:
        stalled = bool(self._job["running"]) and self._guest.stalled()
        missed = "a scratch image could not take what the guest overwrote" if stalled else ""
        return missed or self._scratch.lost() or super().trouble()

    def _end_job(self) -> None:
        undo_job(self._job)
        self._scratch.remove()
