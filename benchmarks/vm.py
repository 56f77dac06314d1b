# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backup and restore of a stopped VM's disk: the engine against nbdcopy, zstd and dd, on the same export."""

from __future__ import annotations

import os
import subprocess
from functools import partial

from data import MIB, image
from engine.capture.model import Timings
from engine.capture.storage_daemon import serve
from engine.capture.vm_archive import CapturedDisk, CapturedMachine
from engine.capture.vm_restore import Target, extract_vma
from engine.guests.model import ResolvedVolume
from engine.settings.guest_config import GuestConfig
from engine.settings.vm_config import Drive
from engine.stream.progress import Progress
from engine.stream.sink import open_sink
from engine.stream.source import open_source
from engine.system.report import SilentReporter
from measure import Step, apart, compare, function, remove, say, shell

DEVICE = "drive-scsi0"


def backup(socket: str, size: int, archive: str, threads: int, level: int = 1) -> None:
    """What a task does once the guest is captured."""
    drive = Drive(
        "scsi0", "local:100/vm-100-disk-0.qcow2", {}, is_cdrom=False, is_cloudinit=False, backup=True, reason="enabled"
    )
    disk = CapturedDisk(drive, ResolvedVolume("", "qcow2"), DEVICE, size)
    machine = CapturedMachine("stop", "VM 100", GuestConfig(), [disk], socket, Timings())
    progress = Progress(size, SilentReporter())
    with open_sink(archive, "zst", threads=threads, level=level, on_written=progress.set_written) as sink:
        machine.write_to(sink, progress)


def restore(archive: str, target: str) -> None:
    """What a task does once the volumes are chosen."""
    report = SilentReporter()
    with open_source(archive) as source:
        workdir = os.path.dirname(target)
        extract_vma(source, {DEVICE: Target(target, "raw")}, Progress(0, report), report, workdir=workdir)


def main(folder: str, mib: int, threads: int, rounds: int) -> None:
    raw, disk, socket = (os.path.join(folder, name) for name in ("disk.raw", "disk.qcow2", "socket"))
    ours, theirs = (os.path.join(folder, name) for name in ("ours.vma.zst", "theirs.zst"))
    target, plain = (os.path.join(folder, name) for name in ("ours.raw", "theirs.raw"))
    apart(lambda: image(raw, mib * MIB))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk], check=True)
    with serve([(DEVICE, disk, "qcow2")], socket, writable=False):
        # Level 3 first, so that the restore below reads what backups write: level 1.
        for level in (3, 1):
            pipe = f"nbdcopy 'nbd+unix:///{DEVICE}?socket={socket}' - | zstd -q -f -T{threads} -{level} -o {theirs}"
            compare(
                f"VM backup, zstd {level}",
                rounds,
                0.9,
                Step("engine", partial(function, partial(backup, socket, mib * MIB, ours, threads, level))),
                Step("nbdcopy | zstd", partial(shell, f"{pipe} && sync {theirs}")),
            )
            say(f"   archives of {os.path.getsize(ours) / MIB:.0f} and {os.path.getsize(theirs) / MIB:.0f} MiB")
    sparse = f"dd of={plain} bs=1M iflag=fullblock conv=sparse,fsync status=none"
    compare(
        "VM restore",
        rounds,
        1.0,
        Step("engine", lambda: function(lambda: restore(ours, target)), lambda: remove(target)),
        Step("zstd -d | dd", lambda: shell(f"zstd -q -d -c {theirs} | {sparse}"), lambda: remove(plain)),
    )
    for restored in (target, plain):
        subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", raw, restored], check=True)
    say("   both restored disks equal the original (qemu-img compare)")
