# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cleaning up after runs that were killed. Called before every run, and by hand with ``holdfast heal``."""

from __future__ import annotations

import contextlib

from ..errors import HoldfastError, LockError
from ..storages.base import Need
from ..storages.dump import PARTIAL
from ..system.host import Host
from ..system.report import Reporter
from ..system.trouble import FileError
from ..system.undo import UndoStack
from .locking import guest_lock, records_lock
from .record import RunRecord, load_records

LAST_BREATH = 5.0
"""Seconds that what a killed run was just starting may keep its locks: it inherited them, and is yet to notice."""


def heal(host: Host, report: Reporter) -> list[str]:
    """Undo what runs of dead processes left in guests and on storages, and mark those runs as aborted.

    :returns: ids of the runs that were cleaned up. What cannot be undone is warned about and tried again next time.
    """
    if not any(_needs_care(record) for record in load_records(host)):
        return []
    healed = []
    with records_lock(host, "cleaning up after killed runs"):
        for record in load_records(host):
            if _needs_care(record):
                _heal_run(host, record, report)
                healed.append(record.id)
    return healed


def _needs_care(record: RunRecord) -> bool:
    if record.alive and record.state == "running":
        return False
    # A process that is gone by now may have ended properly after its record was read.
    record.refresh()
    return record.state == "running" or bool(record.journals())


def _heal_run(host: Host, record: RunRecord, report: Reporter) -> None:
    from .undoing import handlers

    report.warn(f"run {record.id} of {record.data.get('kind', 'unknown kind')} did not end properly; cleaning up")
    for vmid, path in record.journals():
        try:
            with guest_lock(host, vmid, f"cleaning up guest {vmid} after run {record.id}", wait=LAST_BREATH):
                stack = UndoStack.load(path, handlers())
                for number, line in stack.junk:
                    report.warn(
                        f"guest {vmid}: line {number} of {path} cannot be understood: {line[:200]!r}; what it would"
                        " undo may be left: see whether the guest is frozen or paused, and its snapshots and mounts"
                    )
                _wake_storages(host, stack)
                for kind, data in reversed(stack.pending):
                    report.info(f"guest {vmid}: undoing {kind} {_brief(data)}")
                for problem in stack.unwind():
                    report.warn(f"guest {vmid}: cannot undo everything that run {record.id} left: {problem}")
        except (FileError, LockError) as exc:
            report.warn(f"guest {vmid}: left as run {record.id} left it: {exc}")
    if record.state == "running":
        record.abort()


def _wake_storages(host: Host, stack: UndoStack) -> None:
    """Mount what the undo needs; where that fails the undo says so."""
    from .stores import get_storage

    for kind, data in stack.pending:
        if kind == PARTIAL and data.get("point"):
            with contextlib.suppress(HoldfastError):
                get_storage(host, str(data["storage"])).activate(Need())


def _brief(data: dict[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in data.items() if isinstance(value, (str, int)))[:200]
