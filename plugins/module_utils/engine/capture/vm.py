# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Capturing VMs: a running one through filters in its QEMU, a stopped one through a storage daemon."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Iterator, Sequence

from ..errors import ProtocolError
from ..guests.qemu.guest import CONT, START, THAW, QemuGuest
from ..guests.qemu.launcher import node_name
from ..guests.qemu.qmp import QmpClient
from ..settings.vm_config import Drive, agent_settings
from ..system.report import Reporter
from ..system.undo import Handler, UndoStack
from .model import CaptureOptions, Timings
from .nbd import NbdExport
from .storage_daemon import ready_file, serve
from .vm_archive import CapturedDisk, CapturedMachine
from .vm_filters import FILE, FILTERS, Filtered, disk_sizes, export, insert, prepare, remove, undo_file, undo_filters

UNDO: dict[str, Handler] = {FILTERS: undo_filters, FILE: undo_file}


@contextlib.contextmanager
def capture_vm(
    guest: QemuGuest, mode: str, options: CaptureOptions, undo: UndoStack, report: Reporter
) -> Iterator[CapturedMachine]:
    """Hold a consistent state of all included disks while the block runs.

    :param mode: ``snapshot`` freezes the guest's file systems if its agent answers; ``suspend`` only pauses it for the
        instant; ``stop`` shuts it down and starts it again, reading while it boots. A VM that does not run is read as
        it is (``stop``).
    :raises GuestError: the VM cannot be brought into that state; it goes on as before.
    """
    drives = []
    for drive in guest.disks():
        report.info(f"{'include' if drive.backup else 'exclude'} disk {drive.key} ({drive.volid})")
        if drive.backup:
            drives.append(drive)
    timings = Timings()
    if guest.status() == "stopped":
        with _stopped(guest, drives, undo) as machine:
            yield machine
        return
    resume: int | None = None
    began = time.monotonic()
    if mode == "stop":
        resume = _restart_paused(guest, options, undo, report)
    socket = os.path.splitext(guest.sockets.pid)[0] + ".backup.nbd"
    with guest.qmp() as qmp:
        keys = [drive.key for drive in guest.disks()]
        if remove(qmp, keys, socket):
            report.warn("removed what an earlier backup left in the running QEMU")
        sizes = disk_sizes(qmp, [drive.key for drive in drives], guest.label)
    disks = [Filtered(drive.key, _fleece(guest, options, drive), sizes[drive.key]) for drive in drives]
    files = [undo.push(FILE, path=disk.fleece) for disk in disks]
    token = undo.push(FILTERS, qmp=guest.sockets.qmp, label=guest.label, devices=keys, socket=socket)
    try:
        _take(guest, mode, disks, socket, resume, undo, report, timings)
        if mode == "stop":
            timings.downtime_seconds = time.monotonic() - began
            report.info(f"guest runs again after {timings.downtime_seconds:.1f} s")
        yield _machine(guest, mode, drives, sizes, socket, timings)
    finally:
        for one in (token, *files):
            undo.undo(one)


@contextlib.contextmanager
def _stopped(guest: QemuGuest, drives: Sequence[Drive], undo: UndoStack) -> Iterator[CapturedMachine]:
    socket = os.path.splitext(guest.sockets.pid)[0] + ".backup.nbd"
    os.makedirs(os.path.dirname(socket), mode=0o700, exist_ok=True)
    images = []
    for drive in drives:
        volume = guest.resolve(drive.volid)
        images.append((node_name(drive.key), volume.path, volume.format))
    with contextlib.ExitStack() as stack:
        sizes = {}
        if images:
            for path in (socket, ready_file(socket)):
                stack.callback(undo.undo, undo.push(FILE, path=path))
            stack.enter_context(serve(images, socket, writable=False))
        for drive in drives:
            with NbdExport(socket, node_name(drive.key), f"{drive.key} of {guest.label}") as one:
                sizes[drive.key] = one.size
        yield _machine(guest, "stop", drives, sizes, socket, Timings())


def _machine(
    guest: QemuGuest, mode: str, drives: Sequence[Drive], sizes: dict[str, int], socket: str, timings: Timings
) -> CapturedMachine:
    captured = [
        CapturedDisk(drive, guest.resolve(drive.volid), node_name(drive.key), sizes[drive.key]) for drive in drives
    ]
    return CapturedMachine(mode, guest.label, guest.config, captured, socket, timings)


def _restart_paused(guest: QemuGuest, options: CaptureOptions, undo: UndoStack, report: Reporter) -> int:
    """Shut the guest down and start it without letting it run; returns the undo token that lets it run."""
    start = undo.push(START, **guest.undo_start)
    report.info("stopping guest")
    guest.shutdown(options.stopwait)
    report.info("starting guest for the backup")
    resume = undo.push(CONT, qmp=guest.sockets.qmp, label=guest.label)
    guest.start(paused=True)
    undo.drop(start)
    return resume


def _take(
    guest: QemuGuest,
    mode: str,
    disks: Sequence[Filtered],
    socket: str,
    resume: int | None,
    undo: UndoStack,
    report: Reporter,
    timings: Timings,
) -> None:
    """Insert the filters at one instant and serve the views.

    :param resume: undo token that lets a guest run which was started paused; ``None`` for one that runs.
    """
    with guest.qmp() as qmp:
        prepare(qmp, disks)
        running = bool(qmp.execute("query-status")["running"])
        with contextlib.ExitStack() as stack:
            if running and mode == "snapshot":
                stack.enter_context(_frozen(guest, undo, report, timings))
            # The guest runs again before it is thawed, also after a failure: its agent has to do that.
            if running or resume is not None:
                stack.enter_context(_paused(guest, qmp, resume, undo, timings))
            insert(qmp, disks)
        export(qmp, disks, socket, guest.label)


@contextlib.contextmanager
def _paused(guest: QemuGuest, qmp: QmpClient, resume: int | None, undo: UndoStack, timings: Timings) -> Iterator[None]:
    """Keep the virtual CPUs from running; ``resume`` is the undo token of a guest that does not run yet."""
    began = time.monotonic()
    token = undo.push(CONT, qmp=guest.sockets.qmp, label=guest.label) if resume is None else resume
    try:
        if resume is None:
            qmp.execute("stop")
        yield
    finally:
        qmp.execute("cont")
        undo.drop(token)
        timings.pause_seconds = time.monotonic() - began


@contextlib.contextmanager
def _frozen(guest: QemuGuest, undo: UndoStack, report: Reporter, timings: Timings) -> Iterator[None]:
    """Keep the guest's file systems from changing, if that is wanted and possible."""
    token = _freeze(guest, undo, report)
    began = time.monotonic()
    try:
        yield
    finally:
        if token is not None:
            undo.undo(token)
            timings.guest_frozen = True
            timings.freeze_seconds = time.monotonic() - began
            report.info(f"guest file systems were frozen for {timings.freeze_seconds:.2f} s")


def _freeze(guest: QemuGuest, undo: UndoStack, report: Reporter) -> int | None:
    """Freeze the guest's file systems; returns the undo token that thaws them, ``None`` when they are not frozen."""
    settings = agent_settings(guest.config)
    if not settings.enabled or not settings.freeze_fs:
        report.info("guest file systems are not frozen: the agent or its freeze option is disabled in the config")
        return None
    try:
        agent = guest.agent()
    except ProtocolError as exc:
        report.warn(f"guest file systems are not frozen: {exc.message}")
        return None
    if agent is None:
        return None
    with agent:
        token = undo.push(THAW, agent=guest.sockets.agent, qmp=guest.sockets.qmp, label=guest.label)
        try:
            report.info(f"froze {agent.freeze()} file systems of the guest")
            return token
        except ProtocolError as exc:
            report.warn(f"guest file systems could not be frozen, the backup goes on without: {exc.message}")
    # Some may be frozen all the same. If the agent does not thaw them now, it is asked again at the end of the backup.
    with contextlib.suppress(ProtocolError):
        undo.undo(token)
    return None


def _fleece(guest: QemuGuest, options: CaptureOptions, drive: Drive) -> str:
    return os.path.join(options.fleecing_dir, f"vm-{guest.info.vmid}-fleece-{drive.key}.raw")
