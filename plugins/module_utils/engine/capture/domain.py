# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Capturing libvirt domains: a running one by libvirt's backup job, a stopped one through a storage daemon."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Callable, Iterator, Sequence

from ..errors import GuestError
from ..guests.libvirt.guest import RESUME, START, THAW, LibvirtGuest
from ..guests.model import ResolvedVolume
from ..guests.qemu.disks import archive_name
from ..settings.domain_xml import XML_BLOB, Domain, DomainDisk
from ..settings.vm_config import Drive, vm_disks
from ..system.report import Reporter
from ..system.undo import Handler, UndoStack
from .domain_extras import copy_extras, extra_keys, tell_tpm
from .domain_job import JOB, JobWatch, Scratch, begin, refuse_foreign_job, undo_job
from .model import CaptureOptions, Timings
from .nbd import NbdExport
from .storage_daemon import Image, ready_file, serve
from .vm_archive import CapturedDisk, CapturedMachine
from .vm_filters import FILE, FIRST_SAFE_WITH_IOTHREAD

UNDO: dict[str, Handler] = {JOB: undo_job}


@contextlib.contextmanager
def capture_domain(
    guest: LibvirtGuest, mode: str, options: CaptureOptions, undo: UndoStack, report: Reporter
) -> Iterator[CapturedMachine]:
    """Hold a consistent state of all included disks while the block runs.

    :param mode: as for other VMs; see :func:`.vm.capture_vm`.
    :raises GuestError: the domain cannot be brought into that state; it goes on as before.
    """
    domain = guest.definition
    disks = []
    for disk in domain.disks:
        report.info(f"{'include' if disk.backup else 'exclude'} disk {disk.target} ({disk.source or 'no medium'})")
        if disk.backup:
            disks.append(disk)
    running = guest.status() != "stopped"
    _check(guest, domain, disks, running, mode)
    tell_tpm(guest, domain, report)
    if running:
        with _running(guest, domain, disks, mode, options, undo, report) as machine:
            yield machine
        return
    if guest.saved:
        report.warn("the memory that libvirt saved for the next start is not in the archive, only the disks are")
    options.phases.begin("stop")
    with _stopped(guest, domain, disks, options, undo) as machine:
        yield machine


def _check(guest: LibvirtGuest, domain: Domain, disks: Sequence[DomainDisk], running: bool, mode: str) -> None:
    """Refuse before anything is changed what cannot be captured."""
    if running and mode == "stop" and not guest.persistent:
        raise GuestError(
            f"cannot back up {guest.label} in mode stop: it is transient and would be gone when it stops",
            hint="use mode snapshot or suspend, or define it: virsh dumpxml NAME | virsh define /dev/stdin",
        )
    for disk in disks:
        why = ""
        if disk.device == "lun":
            why = "it is passed through to the guest as a SCSI device"
        elif disk.encrypted:
            why = "it is encrypted with a key that libvirt keeps"
        elif not running and disk.format not in ("raw", "qcow2"):
            why = f"it has the format {disk.format}"
        elif running and disk.iothread and guest.qemu_version < FIRST_SAFE_WITH_IOTHREAD:
            # QEMU 7.2 aborts when a reader disconnects from a disk with an iothread: that would cost the guest.
            why = "it has an iothread, with which QEMU before 9.0 can crash"
        if why:
            raise GuestError(
                f"cannot back up {guest.label}: disk {disk.target} cannot be read: {why}",
                hint="leave the disk out (exclude-disks in the domain's metadata)"
                + (", or shut the domain down for the backup" if disk.iothread else ""),
            )


@contextlib.contextmanager
def _running(
    guest: LibvirtGuest,
    domain: Domain,
    disks: Sequence[DomainDisk],
    mode: str,
    options: CaptureOptions,
    undo: UndoStack,
    report: Reporter,
) -> Iterator[CapturedMachine]:
    timings = Timings()
    refuse_foreign_job(guest, report)
    options.phases.begin(mode)
    with contextlib.ExitStack() as interruption:
        restarting = interruption.enter_context(options.phases.interruption())
        began = time.monotonic()
        resume: int | None = None
        if mode == "stop":
            resume = _restart_paused(guest, options, undo, report, interruption, restarting)
        scratch = Scratch.plan(guest, disks, options)
        runs = resume is not None or guest.status() == "running"
        job = {**guest.undo_data, "socket": scratch.socket, "files": list(scratch.files.values()), "running": runs}
        token = undo.push(JOB, **job)
        try:
            with contextlib.ExitStack() as stack:
                extras = _take(guest, domain, mode, scratch, options.workdir, resume, undo, report, timings)
                if mode == "stop":
                    timings.downtime_seconds = time.monotonic() - began
                    report.info(f"guest runs again after {timings.downtime_seconds:.1f} s")
                beside = stack.enter_context(_served(guest, extras, undo))
                stack.enter_context(JobWatch(guest, scratch.place, job))
                interruption.close()
                yield _machine(guest, mode, disks, scratch.socket, beside, timings, options.workers)
        finally:
            undo.undo(token)


def _restart_paused(
    guest: LibvirtGuest,
    options: CaptureOptions,
    undo: UndoStack,
    report: Reporter,
    interruption: contextlib.ExitStack,
    restarting: Callable[[], None],
) -> int:
    """Shut the domain down and start it without letting it run; returns the undo token that lets it run.

    :param interruption: its end lets the domain run after a failure.
    """
    start = undo.push(START, **guest.undo_data, was=guest.handle.ID())
    report.info("stopping guest")
    try:
        guest.shutdown(options.stopwait)
    except GuestError:
        # It runs on; if it powers off later after all, that is what it was asked for.
        undo.drop(start)
        raise
    interruption.callback(undo.undo, start)
    restarting()
    report.info("starting guest for the backup")
    resume = undo.push(RESUME, **guest.undo_data)
    interruption.callback(undo.undo, resume)
    guest.start(paused=True)
    undo.drop(start)
    return resume


@contextlib.contextmanager
def _stopped(
    guest: LibvirtGuest, domain: Domain, disks: Sequence[DomainDisk], options: CaptureOptions, undo: UndoStack
) -> Iterator[CapturedMachine]:
    images = [(disk.target, guest.path_of(disk), disk.format) for disk in disks]
    images += copy_extras(guest, domain, options.workdir)
    with _served(guest, images, undo) as socket:
        yield _machine(guest, "stop", disks, socket, socket, Timings(), options.workers)


@contextlib.contextmanager
def _served(guest: LibvirtGuest, images: Sequence[Image], undo: UndoStack) -> Iterator[str]:
    """Export images at the socket that this yields."""
    os.makedirs(guest.run_folder, mode=0o700, exist_ok=True)
    socket = os.path.join(guest.run_folder, f"{guest.info.vmid}.nbd")
    with contextlib.ExitStack() as stack:
        if images:
            for path in (socket, ready_file(socket)):
                stack.callback(undo.undo, undo.push(FILE, path=path))
            stack.enter_context(serve(images, socket, writable=False))
        yield socket


def _take(
    guest: LibvirtGuest,
    domain: Domain,
    mode: str,
    scratch: Scratch,
    workdir: str,
    resume: int | None,
    undo: UndoStack,
    report: Reporter,
    timings: Timings,
) -> list[Image]:
    """Begin the job, at one instant of all disks and of what is copied beside them.

    :param workdir: for the copies; :param resume: undo token that lets a guest run which was started paused, ``None``
        for one that runs.
    """
    running = guest.status() == "running"
    with contextlib.ExitStack() as stack:
        if running and mode == "snapshot":
            stack.enter_context(_frozen(guest, domain, undo, report, timings))
        if resume is not None or (running and (mode == "suspend" or extra_keys(guest))):
            stack.enter_context(_paused(guest, resume, undo, timings))
        begin(guest, scratch)
        return copy_extras(guest, domain, workdir)


@contextlib.contextmanager
def _paused(guest: LibvirtGuest, resume: int | None, undo: UndoStack, timings: Timings) -> Iterator[None]:
    """Keep the virtual CPUs from running; ``resume`` is the undo token of a guest that does not run yet."""
    began = time.monotonic()
    token = undo.push(RESUME, **guest.undo_data) if resume is None else resume
    try:
        if resume is None:
            guest.pause()
        yield
    finally:
        undo.undo(token)
        timings.pause_seconds = time.monotonic() - began


@contextlib.contextmanager
def _frozen(guest: LibvirtGuest, domain: Domain, undo: UndoStack, report: Reporter, timings: Timings) -> Iterator[None]:
    """Keep the guest's file systems from changing, if that is possible."""
    token = _freeze(guest, domain, undo, report)
    began = time.monotonic()
    try:
        yield
    finally:
        if token is not None:
            undo.undo(token)
            timings.guest_frozen = True
            timings.freeze_seconds = time.monotonic() - began
            report.info(f"guest file systems were frozen for {timings.freeze_seconds:.2f} s")


def _freeze(guest: LibvirtGuest, domain: Domain, undo: UndoStack, report: Reporter) -> int | None:
    """Freeze the guest's file systems; returns the undo token that thaws them, ``None`` when they are not frozen."""
    if not domain.agent_connected:
        why = "no guest agent is connected" if domain.agent else "the domain has no channel for a guest agent"
        report.warn(f"guest file systems are not frozen: {why}")
        return None
    token = undo.push(THAW, **guest.undo_data)
    try:
        report.info(f"froze {guest.freeze()} file systems of the guest")
        return token
    except GuestError as exc:
        report.warn(f"guest file systems could not be frozen, the backup goes on without: {exc.message}")
    # Some may be frozen all the same. If the agent does not thaw them now, it is asked again at the end of the backup.
    with contextlib.suppress(GuestError):
        undo.undo(token)
    return None


def _machine(
    guest: LibvirtGuest,
    mode: str,
    disks: Sequence[DomainDisk],
    socket: str,
    beside: str,
    timings: Timings,
    workers: int,
) -> CapturedMachine:
    """:param beside: socket at which is served what is no disk."""
    drives = {drive.key: drive for drive in vm_disks(guest.config)}
    captured = [_disk(guest, drives[disk.key], disk.format, socket, disk.target) for disk in disks]
    captured += [_disk(guest, drives[key], "raw", beside, key) for key in extra_keys(guest)]
    blobs = [(XML_BLOB, guest.archived_xml().encode())]
    return CapturedMachine(mode, guest.label, guest.config, captured, socket, timings, workers, blobs)


def _disk(guest: LibvirtGuest, drive: Drive, fmt: str, socket: str, export: str) -> CapturedDisk:
    with NbdExport(socket, export, f"{drive.key} of {guest.label}") as one:
        size = one.size
    volume = ResolvedVolume(drive.volid, fmt if fmt in ("raw", "qcow2") else "raw")
    return CapturedDisk(drive, volume, archive_name(drive.key), size, socket, export)
