# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The locks of runs: one per node, one per guest, and one for their records."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator

from ..errors import LockError
from ..system.host import Host
from ..system.locks import hold
from ..system.report import Reporter

RECORDS_WAIT = 600.0
"""Seconds to wait for a process that cleans up after killed runs."""


@contextlib.contextmanager
def run_lock(host: Host, minutes: int, report: Reporter) -> Iterator[None]:
    """Hold the node's run lock: one backup run at a time, so that runs do not slow each other down.

    :param minutes: how long to wait for another run (``lockwait``); 0 means not at all.
    :raises LockError: the other run is still going on.
    """
    path = os.path.join(host.paths.locks, "run.lock")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(path, "a backup run"))
        except LockError as exc:
            if minutes <= 0:
                raise
            report.info(f"waiting up to {minutes} minutes: {exc.message}")
            stack.enter_context(hold(path, "a backup run", wait=minutes * 60))
            report.info("got the run lock")
        yield


def records_lock(host: Host, purpose: str) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of the run records: a record that is being made looks like one of a dead process.

    :raises LockError: another process has been cleaning up for :data:`RECORDS_WAIT` seconds.
    """
    return hold(os.path.join(host.paths.locks, "heal.lock"), purpose, wait=RECORDS_WAIT)


def guest_lock(host: Host, vmid: int, purpose: str, *, wait: float = 0) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of one guest, which backup, restore and clean-up share.

    :param wait: seconds to wait for whoever works with that guest.
    :raises LockError: somebody else works with that guest.
    """
    return hold(os.path.join(host.paths.locks, f"guest-{vmid}.lock"), purpose, wait=wait)
