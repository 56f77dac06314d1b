# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Capturing VMs: a running one through filters in its QEMU, a stopped one through a storage daemon."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import replace
from typing import Any, Callable, Iterator, Sequence

from ..errors import GuestError, HoldfastError
from ..guests.qemu.disks import archive_name, efi_limits
from ..guests.qemu.guest import CONT, QemuGuest
from ..settings.vm_config import FIREWALL_BLOB, Drive
from ..system.files import read_text
from ..system.report import Reporter
from ..system.undo import Handler, UndoStack
from .fleecing import SpaceWatch, make_image
from .model import CaptureOptions, Timings
from .nbd import NbdExport
from .storage_daemon import ready_file, serve
from .vm_archive import CapturedDisk, CapturedMachine
from .vm_filters import (
    FILE,
    FILTERS,
    Filtered,
    disk_sizes,
    export,
    export_copy,
    prepare,
    refuse_iothreads,
    remove,
    undo_file,
    undo_filters,
)
from .vm_instant import take_instant

UNDO: dict[str, Handler] = {FILTERS: undo_filters, FILE: undo_file}

_SECTOR = 512


@contextlib.contextmanager
def capture_vm(
    guest: QemuGuest, mode: str, options: CaptureOptions, undo: UndoStack, report: Reporter
) -> Iterator[CapturedMachine]:
    """Hold a consistent state of all included disks while the block runs.

    :param mode: ``snapshot`` freezes the guest's file systems if its agent answers; ``suspend`` only pauses it for the
        instant; ``stop`` shuts it down and starts it again, reading while it boots. A VM that does not run is read as
        it is (``stop``), one that is paused stays paused.
    :raises GuestError: the VM cannot be brought into that state; it goes on as before.
    """
    drives = _included(guest, report)
    if guest.status() == "stopped":
        options.phases.begin("stop")
        with _stopped(guest, drives, options, undo) as machine:
            yield machine
        return
    socket = _socket(guest)
    with guest.qmp() as qmp:
        if remove(qmp, guest.block_devices(qmp, [drive.key for drive in guest.disks()]), socket):
            report.warn("removed what an earlier backup left in the running QEMU")
        refuse_iothreads(qmp, guest.block_devices(qmp, _block_keys(drives)), guest.label)
    options.phases.begin(mode)
    if mode == "stop" and not guest.starts_paused:
        with _shut_down(guest, drives, options, undo, report) as machine:
            yield machine
        return
    with contextlib.ExitStack() as interruption:
        restarting = interruption.enter_context(options.phases.interruption())
        resume: int | None = None
        began = time.monotonic()
        if mode == "stop":
            resume = _restart_paused(guest, options, undo, report, interruption, restarting)

        def goes_on(timings: Timings) -> None:
            if mode == "stop":
                timings.downtime_seconds = time.monotonic() - began
                report.info(f"guest runs again after {timings.downtime_seconds:.1f} s")
            interruption.close()

        with _filtered(guest, mode, drives, options, undo, report, resume, goes_on) as machine:
            yield machine


def _included(guest: QemuGuest, report: Reporter) -> list[Drive]:
    """The drives that go into the archive, in the order that archives of Proxmox VE have."""
    drives = []
    for drive in guest.disks():
        if drive.backup:
            report.info(f"include disk {drive.key} ({drive.volid})")
            drives.append(drive)
        elif not drive.is_cdrom and not drive.is_cloudinit:
            report.info(f"exclude disk {drive.key} ({drive.volid})")
    for key, value in guest.config.items():
        if key.startswith("unused"):
            report.info(f"exclude disk {key} ({value}): the guest does not use it")
    if not drives:
        report.warn("no disk is part of the backup: the archive has the config alone")
    return sorted(drives, key=lambda drive: drive.key)


@contextlib.contextmanager
def _stopped(
    guest: QemuGuest, drives: Sequence[Drive], options: CaptureOptions, undo: UndoStack
) -> Iterator[CapturedMachine]:
    socket = _socket(guest)
    os.makedirs(os.path.dirname(socket), mode=0o700, exist_ok=True)
    volumes = [(archive_name(drive.key), guest.resolve(drive.volid)) for drive in drives]
    images = [(name, volume.path, volume.format) for name, volume in volumes]
    limits = {archive_name(key): size for key, size in efi_limits(guest.config).items()}
    with contextlib.ExitStack() as stack:
        sizes = {}
        if images:
            for path in (socket, ready_file(socket)):
                stack.callback(undo.undo, undo.push(FILE, path=path))
            stack.enter_context(serve(images, socket, writable=False, limits=limits))
        for drive in drives:
            with NbdExport(socket, archive_name(drive.key), f"{drive.key} of {guest.label}") as one:
                sizes[drive.key] = one.size
        yield _machine(guest, "stop", drives, sizes, socket, Timings(), options.workers)


@contextlib.contextmanager
def _filtered(
    guest: QemuGuest,
    mode: str,
    drives: Sequence[Drive],
    options: CaptureOptions,
    undo: UndoStack,
    report: Reporter,
    resume: int | None,
    goes_on: Callable[[Timings], None],
) -> Iterator[CapturedMachine]:
    """The disks of a VM that has a QEMU process, seen through filters; ``goes_on`` is called when the guest does."""
    place = options.fleecing_place
    socket = _socket(guest)
    block = _block_keys(drives)
    with guest.qmp() as qmp:
        devices = guest.block_devices(qmp, block)
        sizes = disk_sizes(qmp, devices, guest.label)
    images = [make_image(place, guest.info.vmid, sizes[device.key], undo) for device in devices]
    disks = [Filtered(device, path, place.format) for device, (path, _token) in zip(devices, images)]
    copies = []
    for drive in drives:
        if drive.key not in block:
            # The TPM's state is a small file that another process writes, beside QEMU's disks: it is copied.
            source = guest.resolve(drive.volid).path
            with open(source, "rb") as stream:
                # swtpm makes a file as small as its state; disks come in whole sectors.
                sizes[drive.key] = -(-stream.seek(0, os.SEEK_END) // _SECTOR) * _SECTOR
            image = make_image(replace(place, format="raw"), guest.info.vmid, sizes[drive.key], undo)
            copies.append((archive_name(drive.key), source, image))
    undo_data: dict[str, Any] = {
        "qmp": guest.sockets.qmp,
        "label": guest.label,
        "devices": [device.to_list() for device in devices],
        "socket": socket,
    }
    token = undo.push(FILTERS, **undo_data)

    def copy() -> None:
        for _name, source, (path, _token) in copies:
            with open(source, "rb") as old, open(path, "r+b") as new:
                shutil.copyfileobj(old, new)

    def give_up() -> None:
        with contextlib.suppress(HoldfastError):
            undo_filters(undo_data)
            for path, _token in images:
                os.truncate(path, 0)

    try:
        with guest.qmp() as qmp:
            prepare(qmp, disks)
            timings = take_instant(guest, qmp, disks, copy, undo, report, freeze=mode == "snapshot", resume=resume)
            export(qmp, disks, socket, guest.label)
            for name, _source, (path, _token) in copies:
                export_copy(qmp, name, path)
        with SpaceWatch(place, give_up):
            goes_on(timings)
            yield _machine(guest, mode, drives, sizes, socket, timings, options.workers)
    finally:
        undo.undo(token)
        for _path, made in [*images, *(image for _name, _source, image in copies)]:
            undo.undo(made)


def _block_keys(drives: Sequence[Drive]) -> list[str]:
    """Keys of the drives that are disks in QEMU."""
    return [drive.key for drive in drives if drive.interface != "tpmstate"]


def _socket(guest: QemuGuest) -> str:
    """Where the disks are served."""
    return os.path.splitext(guest.sockets.pid)[0] + ".backup.nbd"


def _machine(
    guest: QemuGuest,
    mode: str,
    drives: Sequence[Drive],
    sizes: dict[str, int],
    socket: str,
    timings: Timings,
    workers: int,
) -> CapturedMachine:
    captured = [
        CapturedDisk(drive, guest.resolve(drive.volid), archive_name(drive.key), sizes[drive.key]) for drive in drives
    ]
    firewall = read_text(guest.firewall_path)
    blobs = [] if firewall is None else [(FIREWALL_BLOB, firewall.encode("utf-8", "surrogateescape"))]
    return CapturedMachine(mode, guest.label, guest.archived_config, captured, socket, timings, workers, blobs)


@contextlib.contextmanager
def _shut_down(
    guest: QemuGuest, drives: Sequence[Drive], options: CaptureOptions, undo: UndoStack, report: Reporter
) -> Iterator[CapturedMachine]:
    """The disks of a VM that is off while they are read, because nobody can start it paused."""
    # What only a running QEMU tells is asked now.
    report.info(f"the guest stays off while its disks are read ({guest.archived_config.get('name')})")
    with options.phases.interruption() as restarting:
        began = time.monotonic()
        start = _stop(guest, options, undo, report)
        try:
            with _stopped(guest, drives, options, undo) as machine:
                yield machine
        finally:
            try:
                restarting()
            finally:
                undo.undo(start)
        machine.timings.downtime_seconds = time.monotonic() - began
        report.info(f"guest runs again after {machine.timings.downtime_seconds:.1f} s")


def _restart_paused(
    guest: QemuGuest,
    options: CaptureOptions,
    undo: UndoStack,
    report: Reporter,
    interruption: contextlib.ExitStack,
    restarting: Callable[[], None],
) -> int:
    """Shut the guest down and start it without letting it run; returns the undo token that lets it run.

    :param interruption: its end lets the guest run after a failure.
    """
    start = _stop(guest, options, undo, report)
    interruption.callback(undo.undo, start)
    restarting()
    report.info("starting guest for the backup")
    resume = undo.push(CONT, qmp=guest.sockets.qmp, label=guest.label)
    interruption.callback(undo.undo, resume)
    guest.start(paused=True)
    undo.drop(start)
    return resume


def _stop(guest: QemuGuest, options: CaptureOptions, undo: UndoStack, report: Reporter) -> int:
    """Shut the guest down; returns the undo token that starts it again."""
    kind, data = guest.start_undo()
    start = undo.push(kind, **data)
    report.info("stopping guest")
    try:
        guest.shutdown(options.stopwait)
    except GuestError:
        # It runs on; if it powers off later after all, that is what it was asked for.
        undo.drop(start)
        raise
    return start
