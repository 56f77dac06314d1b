# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest made from an archive.

Nothing of an existing guest is touched until the new one is complete: new volumes are made beside the old ones,
filled, and named by a config that replaces the old config in one step. Only then are the old volumes freed. A restore
that fails or is killed before that step leaves the old guest as it was and none of the new volumes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from typing import Iterator

from ..errors import GuestError, HoldfastError, IntegrityError, Interrupted, UsageError
from ..guests.model import GuestInfo
from ..system.files import write_atomic
from ..system.host import Host
from ..system.report import Reporter
from ..system.trouble import explained
from ..system.undo import UndoStack
from .guests import find_by_id, open_by_info
from .heal import heal
from .locking import guest_lock
from .log import GuestLog, human
from .record import RunRecord
from .requests import RestoreRequest
from .restore_ct import fill_container, plan_container
from .restore_domain import becomes_domain, fill_domain, plan_domain
from .restore_domain_tpm import told_of_vm
from .restore_plan import RestorePlan, locate_source, read_contents
from .restore_vm import fill_vm, plan_vm
from .results import RestoreResult
from .signals import interruptible
from .undoing import BESIDE, UNNAMED, handlers, unwind

GUEST_IDS = range(100, 1_000_000_000)


def plan_restore(host: Host, request: RestoreRequest) -> RestoreResult:
    """What a restore would make; nothing is changed. State ``exists`` when the guest is there and is not replaced.

    :raises HoldfastError: the restore would fail before it began.
    """
    _check_id(request)
    existing = find_by_id(host, request.vmid)
    if existing is not None and not request.force:
        return RestoreResult(
            archive=request.archive,
            vmid=existing.vmid,
            kind=existing.kind,
            name=existing.name,
            state="exists",
            config_path=existing.config_path,
        )
    return _prepare(host, request, write=False).result


def run_restore(host: Host, request: RestoreRequest, report: Reporter) -> RestoreResult:
    """Restore a guest.

    :raises UsageError: the id is taken and ``force`` is not given; :raises GuestError: the guest to be replaced runs.
    :raises IntegrityError: the archive is damaged. In every case all that was made is removed again.
    """
    _check_id(request)
    heal(host, report)
    with guest_lock(host, request.vmid, f"restore of guest {request.vmid}"):
        existing = find_by_id(host, request.vmid)
        if existing is not None and not request.force:
            raise UsageError(
                f"cannot restore {request.archive} as guest {request.vmid}: that id belongs to"
                f" {_describe(existing)} already",
                hint="choose another id, or give force to replace a stopped guest",
            )
        plan = _prepare(host, request, write=True)
        record = RunRecord.start(host, "restore", {"archive": request.archive, "vmid": request.vmid})
        log_path = os.path.join(host.paths.log, f"restore-{request.vmid}.log")
        with GuestLog(log_path, report, f"{request.vmid}: ") as log, interruptible():
            _run(host, request, plan, record, log)
            record.close("finished", plan.result.to_dict(), log)
            plan.result.warnings.extend(warning for warning in log.warnings if warning not in plan.result.warnings)
    return plan.result


def _check_id(request: RestoreRequest) -> None:
    if request.vmid not in GUEST_IDS:
        raise UsageError(
            f"cannot restore {request.archive} as guest {request.vmid}: ids of guests are numbers from"
            f" {GUEST_IDS[0]} to {GUEST_IDS[-1]}",
            hint="choose another id",
        )


def _run(host: Host, request: RestoreRequest, plan: RestorePlan, record: RunRecord, log: GuestLog) -> None:
    undo = UndoStack(record.journal(request.vmid), handlers())
    began = time.monotonic()
    try:
        log.info(f"restoring {plan.archive.volid} ({human(plan.archive.size)}) as guest {request.vmid}")
        for warning in plan.result.warnings:
            log.warn(warning)
        fill = fill_domain if plan.result.kind == "libvirt" else _fill
        with _named(request):
            fill(host, plan, request, undo, log)
        result = plan.result
        for volume in plan.volumes:
            volume.note_allocated()
            if volume.planned.allocated is not None:
                taken, size = human(volume.planned.allocated), human(volume.planned.size or 0)
                log.info(f"{volume.planned.key}: takes {taken} of {size}")
        result.duration = time.monotonic() - began
        result.speed = int((result.size or 0) / max(result.duration, 0.001))
        result.state = "restored"
        log.info(f"guest {request.vmid} is in place after {result.duration:.1f} s")
        if request.start:
            _start(host, request.vmid, result, log)
    except (HoldfastError, OSError) as exc:
        log.error(f"the restore of guest {request.vmid} failed: {explained(exc)}")
        record.close("interrupted" if isinstance(exc, Interrupted) else "failed", plan.result.to_dict(), log)
        if isinstance(exc, HoldfastError):
            raise
        error = explained(exc)
        raise GuestError(
            f"cannot restore {plan.archive.volid} as guest {request.vmid}: {error.message}", hint=error.hint
        ) from exc
    finally:
        unwind(undo, log)


def _fill(host: Host, plan: RestorePlan, request: RestoreRequest, undo: UndoStack, log: GuestLog) -> None:
    """Make and fill the volumes, then let the config name them."""
    entries = [volume.journal_entry for volume in plan.volumes if volume.made]
    token = undo.push(UNNAMED, volumes=entries, config=plan.result.config_path)
    if plan.result.kind == "qemu":
        for volume in plan.volumes:
            log.info(f"{volume.planned.key}: creating {volume.planned.volid}")
            volume.storage.volumes.create_image(volume.volname, volume.planned.size or 0)
        plan.result.size = fill_vm(host, plan, request, undo, log)
    else:
        plan.result.size = fill_container(host, plan, request, undo, log)
    old = undo.push(UNNAMED, volumes=plan.old, config=plan.result.config_path)
    rules = _firewall(host, plan, undo)
    write_atomic(plan.result.config_path, plan.result.config, 0o640)
    undo.drop(token)
    if rules is not None:
        undo.undo(rules)
    for volid in plan.result.freed:
        log.info(f"freeing {volid} of the replaced guest")
    undo.undo(old)


def _firewall(host: Host, plan: RestorePlan, undo: UndoStack) -> int | None:
    """Have the rules of the guest's firewall written once its config is in place; others of that id go then."""
    if not plan.firewall:
        return None
    return undo.push(
        BESIDE,
        path=host.paths.firewall(plan.result.vmid),
        content=plan.firewall.decode("utf-8", "surrogateescape"),
        config=plan.result.config_path,
        digest=hashlib.sha256(plan.result.config.encode("utf-8", "surrogateescape")).hexdigest(),
    )


def _start(host: Host, vmid: int, result: RestoreResult, log: GuestLog) -> None:
    """A restored guest that does not start is still restored."""
    info = find_by_id(host, vmid)
    try:
        if info is not None:
            open_by_info(host, info).start()
            result.started = True
            log.info(f"started guest {vmid}")
    except HoldfastError as exc:
        log.warn(f"guest {vmid} is restored, but it could not be started: {exc}")


@contextlib.contextmanager
def _named(request: RestoreRequest) -> Iterator[None]:
    """Say of what is wrong with an archive which one it is, for which guest, and what to do."""
    try:
        yield
    except IntegrityError as exc:
        raise IntegrityError(
            f"cannot restore {request.archive} as guest {request.vmid}: {exc.message}",
            hint=exc.hint or "restore another archive, and look after the disk that holds this one",
            result=exc.result,
        ) from exc


def _prepare(host: Host, request: RestoreRequest, *, write: bool) -> RestorePlan:
    with _named(request):
        return _plan(host, request, write=write)


def _plan(host: Host, request: RestoreRequest, *, write: bool) -> RestorePlan:
    existing = find_by_id(host, request.vmid)
    archive, kind = locate_source(host, request.archive)
    contents = read_contents(archive, kind)
    if request.kind is not None and kind == "lxc":
        raise UsageError(f"cannot restore {request.archive} as kind {request.kind}: it holds a container")
    if kind == "qemu" and becomes_domain(host, request, existing, contents):
        kind = "libvirt"
    if existing is not None:
        _check_replaceable(host, existing, kind)
    if kind == "libvirt":
        plan = plan_domain(host, request, archive, contents, existing, write=write)
    elif kind == "qemu":
        plan = plan_vm(host, request, archive, contents.config, contents.devices, existing, write=write)
        plan.result.warnings += told_of_vm(contents)
    else:
        plan = plan_container(host, request, archive, contents.config, existing, write=write)
    plan.firewall = contents.firewall
    plan.result.warnings.extend(contents.warnings)
    return plan


def _check_replaceable(host: Host, existing: GuestInfo, kind: str) -> None:
    from .restore_config import get_key
    from .restore_plan import existing_text

    what = _describe(existing)
    if existing.kind != kind:
        raise UsageError(
            f"cannot restore over {what}: it is of the kind {existing.kind}, the restored guest would be of the kind"
            f" {kind}",
            hint="choose another id",
        )
    if existing.native:
        raise UsageError(
            f"cannot restore over {what}: LXC's own config {existing.config_path} defines it",
            hint="restore it under another id; native containers are not replaced",
        )
    text = existing_text(host, existing)
    if get_key(text, "protection") == "1":
        raise GuestError(f"cannot replace {what}: it is protected", hint="remove 'protection' from its config")
    lock = get_key(text, "lock")
    if lock:
        raise GuestError(f"cannot replace {what}: it is locked ({lock})", hint="remove 'lock' from its config")
    status = open_by_info(host, existing).status()
    if status != "stopped":
        raise GuestError(f"cannot replace {what}: it is {status}", hint="stop it first; a restore never stops a guest")


def _describe(info: GuestInfo) -> str:
    return f"{'container' if info.kind == 'lxc' else 'VM'} {info.vmid} ({info.name})"
