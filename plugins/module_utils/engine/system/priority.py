# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Leaving the guests' own reading and writing the precedence."""

from __future__ import annotations

import os

from ..errors import HoldfastError
from .process import run
from .report import Reporter

IDLE = 8


def set_io_priority(level: int, report: Reporter) -> None:
    """Give this process, and the threads and programs it starts from now on, vzdump's ``ionice``; best effort.

    :param level: 0 (first) to 7 (last) among the others, 8 for only when nobody else wants the disk.
    """
    choice = ["-c", "3"] if level >= IDLE else ["-c", "2", "-n", str(level)]
    try:
        run(["ionice", *choice, "-p", str(os.getpid())], timeout=10)
    except HoldfastError as exc:
        report.warn(f"the run has the usual priority for reading and writing: {exc.message}")
