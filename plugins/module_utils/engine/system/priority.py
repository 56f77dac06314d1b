# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Leaving the guests' own reading and writing the precedence."""

from __future__ import annotations

import os

from ..errors import HoldfastError
from .files import read_text
from .process import run
from .report import Reporter

IDLE = 8

SYS = "/sys"


def set_io_priority(level: int, report: Reporter) -> None:
    """Give this process, and the threads and programs it starts from now on, vzdump's ``ionice``; best effort.

    :param level: 0 (first) to 7 (last) among the others, 8 for only when nobody else wants the disk.
    """
    choice = ["-c", "3"] if level >= IDLE else ["-c", "2", "-n", str(level)]
    try:
        run(["ionice", *choice, "-p", str(os.getpid())], timeout=10)
    except HoldfastError as exc:
        report.warn(f"the run has the usual priority for reading and writing: {exc.message}")


def heedless_disks(device: str, level: int) -> dict[str, str]:
    """Disks below a block device whose I/O scheduler makes no difference of such a priority, with the scheduler's name.

    :param device: its number, ``8:1``. :param level: as above.
    """
    place = os.path.realpath(os.path.join(SYS, "dev/block", device))
    if os.path.exists(os.path.join(place, "partition")):
        place = os.path.dirname(place)
    below = os.path.join(place, "slaves")
    slaves = os.listdir(below) if os.path.isdir(below) else []
    if slaves:
        # LVM, RAID, encryption: the disks schedule.
        found: dict[str, str] = {}
        for name in slaves:
            number = (read_text(os.path.join(below, name, "dev")) or "").strip()
            found.update(heedless_disks(number, level))
        return found
    text = (read_text(os.path.join(place, "queue/scheduler")) or "").strip()
    chosen = text.partition("[")[2].partition("]")[0] or text
    # mq-deadline knows classes, but no levels in them.
    heeds = not chosen or chosen == "bfq" or (chosen == "mq-deadline" and level >= IDLE)
    return {} if heeds else {os.path.basename(place): chosen}
