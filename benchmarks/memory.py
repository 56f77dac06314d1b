# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Peak memory whatever the size of a VM's disk, and the time for what is empty."""

from __future__ import annotations

import os
import subprocess
from functools import partial

from data import MIB, patterns
from engine.capture.storage_daemon import serve
from measure import MEMORY_AIM, apart, function, remove, say, verdict
from vm import DEVICE, backup, restore

TIB = MIB * MIB


def disk(path: str, size: int, mib: int) -> None:
    """A raw disk with ``mib`` MiB of data in pieces that lie evenly over it."""
    pieces = patterns()[1:]
    count = mib * MIB // len(pieces[0])
    with open(path, "wb") as file:
        file.truncate(size)
        for number in range(count):
            os.pwrite(file.fileno(), pieces[number % len(pieces)], size // count * number)


def main(folder: str, mib: int, threads: int, _rounds: int) -> None:
    path, socket, archive, target = (os.path.join(folder, name) for name in ("raw", "socket", "vma.zst", "restored"))
    peaks = []
    for name, size, filled in (
        (f"disk of {mib} MiB, full", mib * MIB, mib),
        (f"disk of 1 TiB with {mib} MiB in it", TIB, mib),
        ("disk of 1 TiB, empty", TIB, 0),
    ):
        apart(partial(disk, path, size, filled))
        with serve([(DEVICE, path, "raw")], socket, writable=False):
            one = function(partial(backup, socket, size, archive, threads))
        two = function(partial(restore, archive, target))
        subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", path, target], check=True)
        say(f"== {name}: archive of {os.path.getsize(archive) / MIB:.1f} MiB, restored equal")
        for what, result in (("backup", one), ("restore", two)):
            say(f"   {what:7} {result.seconds:6.2f} s, processors {result.busy:6.2f} s, peak {result.own:.0f} MiB")
            peaks.append(result.own)
        for used in (path, archive, target):
            remove(used)
    say(f"   highest peak {max(peaks):.0f} MiB, {verdict(max(peaks), MEMORY_AIM)}")
