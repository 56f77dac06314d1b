# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of guests: what a run would do, and doing it."""

from __future__ import annotations

import contextlib
import time

from ..errors import HoldfastError, Interrupted
from ..guests.model import GuestInfo
from ..storages.base import Need
from ..system.host import Host
from ..system.report import Reporter
from ..system.trouble import FileError
from .backup_guest import BackupContext, backup_guest
from .backup_setup import Prepared, fresh_archive, prepare
from .follow_up import followed_up
from .heal import heal
from .hooks import RunHooks
from .locking import run_lock
from .log import RunLog
from .priority import lower_priority
from .record import RunRecord
from .requests import BackupRequest
from .results import BackupPlan, GuestOutcome, PlannedGuest, RunResult
from .signals import interruptible


def plan_backup(host: Host, request: BackupRequest) -> BackupPlan:
    """Which guests and volumes a run would back up, and which have a fresh archive; nothing is changed.

    :raises UsageError: the selection or an option makes no sense; :raises StorageError: the target cannot be used.
    """
    prepared = prepare(host, request)
    return BackupPlan(
        node=host.node,
        storage=prepared.storage.name,
        job=request.job,
        options=prepared.effective_options(),
        sources=prepared.option_sources(),
        guests=[
            *(_plan_guest(host, prepared, info) for info in prepared.guests),
            *(_plan_missing(text) for text in prepared.missing),
        ],
        skipped=prepared.external,
        warnings=prepared.warnings,
    )


def run_backup(host: Host, request: BackupRequest, report: Reporter) -> RunResult:
    """Back up the selected guests, one after the other; a guest that fails does not stop the others.

    :returns: the outcome of every guest, also of those that failed: look at ``ok``.
    :raises UsageError: the selection or an option makes no sense.
    :raises StorageError: the target cannot be used; :raises LockError: another run did not end in time.
    :raises HookError: the hook script refused the run as a whole, ``result`` tells what was done before.
    :raises Interrupted: a signal stopped the run; everything was undone, ``result`` tells what was done before.
    """
    log = RunLog(report)
    with followed_up(host, request, log) as result:
        heal(host, log)
        with RunHooks(log) as hooks:
            prepared = prepare(host, request, hooks.init)
            for warning in prepared.warnings:
                log.warn(warning)
            result.storage = prepared.storage.name
            result.options = prepared.effective_options()
            result.warnings = list(prepared.warnings)
            prepared.storage.activate(Need("backup", write=True))
            # What lay on a target that was away could not be removed before.
            heal(host, log)
            with run_lock(host, prepared.settings.lockwait, log):
                _run_locked(host, prepared, result, hooks, log)
    return result


def _run_locked(host: Host, prepared: Prepared, result: RunResult, hooks: RunHooks, log: RunLog) -> None:
    result.started = time.time()
    result.skipped = prepared.external
    result.guests = [
        *(GuestOutcome(info.vmid, info.name, info.kind) for info in prepared.guests),
        *(_missing(host, text) for text in prepared.missing),
    ]
    if not result.guests:
        log.info("no guest of this node is selected")
    todo = _mark_fresh(prepared, result, log)
    if todo:
        _run(host, prepared, result, todo, hooks, log)
    else:
        with interruptible():
            hooks.start(prepared.storage)
            hooks.end()
        result.finished, result.state = time.time(), "finished"


def _run(
    host: Host,
    prepared: Prepared,
    result: RunResult,
    todo: list[tuple[GuestInfo, GuestOutcome]],
    hooks: RunHooks,
    log: RunLog,
) -> None:
    record = RunRecord.start(host, "backup", {"job": result.job, "guests": [info.vmid for info, _outcome in todo]})
    result.id, result.log = record.id, record.log
    log.open(record.log)

    def save() -> None:
        # It tells people how far the run came; what counts is in the journals.
        with contextlib.suppress(FileError):
            record.update(result.to_dict())

    context = BackupContext(host, prepared.storage, prepared.settings, record, hooks, log, save)
    try:
        with interruptible():
            lower_priority(host, prepared, [info for info, _outcome in todo], log)
            hooks.start(prepared.storage)
            for info, outcome in todo:
                save()
                backup_guest(context, info, outcome)
            hooks.end()
    except HoldfastError as exc:
        result.state = "interrupted" if isinstance(exc, Interrupted) else "failed"
        log.error(f"the run {result.state}: {exc}" if result.state == "failed" else f"the run was {exc.message}")
        hooks.abort()
        result.finished = time.time()
        record.close(result.state, result.to_dict(), log)
        exc.result = result.to_dict()
        raise
    result.finished, result.state = time.time(), "finished"
    record.close("finished", result.to_dict(), log)


def _missing(host: Host, text: str) -> GuestOutcome:
    """The outcome of a guest that was asked for and does not exist, so that nobody takes it for backed up."""
    error = {
        "message": f"there is no guest {text!r} on node {host.node!r}",
        "hint": "correct the selection; `holdfast guests` lists the guests",
        "code": "usage",
    }
    return GuestOutcome(int(text) if text.isdecimal() else 0, text, "unknown", "failed", error=error)


def _mark_fresh(prepared: Prepared, result: RunResult, report: Reporter) -> list[tuple[GuestInfo, GuestOutcome]]:
    """Guests still to be backed up; the others get the status ``fresh``."""
    todo = []
    for info, outcome in zip(prepared.guests, result.guests):
        archive = fresh_archive(prepared, info)
        if archive is None:
            todo.append((info, outcome))
            continue
        outcome.status, outcome.archive, outcome.path = "fresh", archive.volid, archive.path
        outcome.archive_size = archive.size
        report.info(f"{info.vmid}: {archive.volid} is fresh enough, nothing to do")
    return todo


def _plan_missing(text: str) -> PlannedGuest:
    number = int(text) if text.isdecimal() else 0
    return PlannedGuest(number, text, "unknown", "missing", "", "", reason="there is no such guest, the run will fail")


def _plan_guest(host: Host, prepared: Prepared, info: GuestInfo) -> PlannedGuest:
    from .guests import open_by_info
    from .volumes import describe_volumes

    mode = prepared.settings.mode
    planned = PlannedGuest(info.vmid, info.name, info.kind, "backup", mode, mode)
    archive = fresh_archive(prepared, info)
    if archive is not None:
        planned.action, planned.archive = "fresh", archive.volid
        planned.reason = f"{archive.volid} is younger than {prepared.max_age_text}"
    try:
        planned.disks = describe_volumes(host, info)
        if open_by_info(host, info).status() == "stopped":
            planned.mode = "stop"
    except HoldfastError as exc:
        planned.warnings.append(str(exc))
    return planned
