# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container whose processes stand still for a moment."""

from __future__ import annotations

import contextlib
import time
from typing import Iterator

from ..guests.lxc.guest import LxcGuest
from ..guests.lxc.tools import THAW
from ..system.report import Reporter
from ..system.undo import UndoStack
from .model import Timings


@contextlib.contextmanager
def frozen(guest: LxcGuest, undo: UndoStack, report: Reporter, timings: Timings) -> Iterator[None]:
    """No process of the container runs while the block does; thawing it depends on nothing else."""
    token = undo.push(THAW, **guest.undo_data)
    report.info("suspending container")
    began = time.monotonic()
    try:
        guest.freeze()
        yield
    finally:
        undo.undo(token)
        timings.freeze_seconds = time.monotonic() - began
        timings.guest_frozen = True
    report.info(f"container is online again after {timings.freeze_seconds:.2f} s")
