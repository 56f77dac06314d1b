# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The backup of one guest: capture, write, commit, then retention."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping

from ..capture.model import Captured, CaptureOptions
from ..capture.registry import open_capture
from ..errors import GuestError, HoldfastError, Interrupted, StorageError
from ..guests.model import GuestInfo
from ..rules.names import ArchiveName, make_archive_name
from ..rules.notes import render_notes
from ..storages.base import Need, Storage
from ..storages.dump import Archive
from ..storages.mounts import NETWORK_FILESYSTEMS, filesystem_type
from ..storages.scratch import ScratchSpace
from ..stream.distant import distant_file
from ..stream.progress import Progress
from ..stream.sink import open_sink
from ..system.host import Host
from ..system.report import Reporter
from ..system.trouble import explained
from ..system.undo import UndoStack
from .backup_setup import BackupSettings
from .guests import open_by_info
from .hooks import GuestHooks, RunHooks
from .locking import guest_lock
from .log import GuestLog, clock, human
from .progress_lines import summary
from .prune import mark_archives, remove_marked
from .record import RunRecord
from .restore_config import get_key
from .restore_plan import existing_text
from .results import GuestOutcome
from .stores import get_storage
from .undoing import FOLDER, handlers, make_folder, unwind

LEAST_SPACE = 1 << 20
"""Bytes that must be free before a backup begins; how much it will take cannot be known."""

COPY_FILESYSTEMS = ("ext3", "ext4", "reiserfs", "xfs")
"""File systems beside whose archives a container's working copy is put; on others it goes to ``/var/tmp``.

vzdump's list has NFS, too; but a frozen container must not wait for a server, which keeps no ACLs moreover.
"""


@dataclass(frozen=True)
class BackupContext:
    """What all guests of a run share; ``save`` brings the run's record up to date."""

    host: Host
    storage: Storage
    settings: BackupSettings
    record: RunRecord
    hooks: RunHooks
    report: Reporter
    save: Callable[[], None]


def backup_guest(context: BackupContext, info: GuestInfo, outcome: GuestOutcome) -> None:
    """Back up one guest and note in ``outcome`` what became of it.

    :raises Interrupted: a signal arrived; everything was undone.
    """
    outcome.status, outcome.requested_mode = "failed", context.settings.mode
    name = _free_name(context, info)
    outcome.started = time.time()
    began = time.monotonic()
    outcome.log = os.path.join(context.host.paths.log, f"{info.archive_kind}-{info.vmid}.log")
    with GuestLog(outcome.log, context.report, f"{info.vmid}: ") as log:
        outcome.warnings = log.warnings
        hooks = context.hooks.of_guest(info, name, context.storage, context.settings.mode, log)
        log.info(f"starting backup of {info.label}")
        try:
            with guest_lock(context.host, info.vmid, f"backup of {info.label}"):
                _backup_locked(context, info, name, outcome, hooks, log)
                hooks.end()
            outcome.status = "ok"
        except (HoldfastError, OSError) as exc:
            outcome.error = error_dict(exc)
            log.error(f"backup of {info.label} failed: {explained(exc)}")
            hooks.abort()
            if isinstance(exc, Interrupted):
                raise
        else:
            log.info(f"finished backup of {info.label} ({clock(time.monotonic() - began)})")
        finally:
            outcome.duration = time.monotonic() - began
            _keep_log(context, name, outcome, log)
            hooks.log_end()


def _free_name(context: BackupContext, info: GuestInfo) -> ArchiveName:
    """The name for an archive begun now; names tell seconds, so a guest's second backup in one waits for the next."""
    while True:
        name = make_archive_name(info.archive_kind, info.vmid, int(time.time()), context.settings.compression)
        if not os.path.lexists(context.storage.archives.final_path(name)):
            return name
        time.sleep(0.1)


def _backup_locked(
    context: BackupContext,
    info: GuestInfo,
    name: ArchiveName,
    outcome: GuestOutcome,
    hooks: GuestHooks,
    log: GuestLog,
) -> None:
    settings, storage = context.settings, context.storage
    lock = get_key(existing_text(context.host, info), "lock")
    if lock:
        raise GuestError(
            f"cannot back up {info.vmid} ({info.name}): it is locked ({lock})",
            hint="if nothing works on it any more, remove 'lock' from its config",
        )
    # Anew for each guest: what was mounted at the beginning of the run need not be there any more.
    storage.activate(Need("backup", write=True))
    _check_limits(storage, settings, info)
    storage.check_space(LEAST_SPACE, "a backup")
    undo = UndoStack(context.record.journal(info.vmid), handlers())
    try:
        with _captured(context, info, name, hooks, undo, log) as captured:
            outcome.mode, outcome.disks = captured.mode, captured.disks
            archive = _write(context, info, name, captured, undo, outcome, log)
        outcome.timings = captured.timings.to_dict()
        outcome.archive, outcome.path, outcome.archive_size = archive.volid, archive.path, archive.size
    finally:
        unwind(undo, log)
    if settings.keep is not None:
        _prune(storage, settings, info, outcome, log)


@contextlib.contextmanager
def _captured(
    context: BackupContext, info: GuestInfo, name: ArchiveName, hooks: GuestHooks, undo: UndoStack, log: GuestLog
) -> Iterator[Captured]:
    settings = context.settings
    workdir = _work_folder(context, info, name, log)
    token = undo.push(FOLDER, path=workdir)
    make_folder(workdir)
    options = CaptureOptions(
        workdir=workdir,
        phases=hooks,
        fleecing=_fleecing_space(context, info),
        workers=settings.max_workers,
        stopwait=settings.stopwait * 60,
        exclude_path=settings.exclude_path,
        stdexcludes=settings.stdexcludes,
    )
    guest = open_by_info(context.host, info)
    with open_capture(guest, settings.mode, options, undo, log) as captured:
        yield captured
    undo.undo(token)


def _write(
    context: BackupContext,
    info: GuestInfo,
    name: ArchiveName,
    captured: Captured,
    undo: UndoStack,
    outcome: GuestOutcome,
    log: GuestLog,
) -> Archive:
    """Write the archive and let it appear under its name."""
    settings, folder = context.settings, context.storage.archives
    outcome.size = captured.size
    partial, token = folder.begin(name, undo)
    log.info(f"creating archive {folder.final_path(name)!r}")
    if settings.bwlimit:
        log.info(f"bandwidth limit: {settings.bwlimit} KiB/s")
    log.info(f"ionice priority: {settings.ionice}")
    progress = Progress(captured.size, _Recorded(log, outcome, context.save))
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        target: str | int = partial
        told: Callable[[int], None] | None = progress.set_written
        if filesystem_type(folder.path) in NETWORK_FILESYSTEMS:
            target, told = stack.enter_context(distant_file(partial, told)), None
        sink = stack.enter_context(
            open_sink(
                target,
                settings.compression,
                threads=settings.threads,
                bwlimit_kib=settings.bwlimit,
                on_written=told,
            )
        )
        written = captured.write_to(sink, progress)
    outcome.disks = _merge_stats(captured.disks, written.volumes)
    outcome.digests = dict(written.digests)
    progress.finish()
    took = max(time.monotonic() - began, 0.001)
    outcome.size = outcome.size or progress.done
    outcome.speed = int(outcome.size / took)
    for line in summary(progress.done, progress.zero, took):
        log.info(line)
    notes = _notes(context, info)
    if notes:
        log.info("adding notes to the backup")
    if settings.protected:
        log.info("marking the backup as protected")
    archive = folder.commit(name, undo, token, notes=notes, protected=settings.protected, digests=written.digests)
    log.info(f"archive file size: {human(archive.size)}")
    return archive


class _Recorded:
    """Passes a guest's progress on and keeps the run's record up to date with it."""

    def __init__(self, log: GuestLog, outcome: GuestOutcome, save: Callable[[], None]) -> None:
        self._log = log
        self._outcome = outcome
        self._save = save

    def progress(self, done: int, total: int, zero: int, written: int) -> None:
        self._outcome.progress = {"done": done, "total": total, "zero": zero, "written": written}
        self._log.progress(done, total, zero, written)
        self._save()


def _merge_stats(disks: list[dict[str, Any]], stats: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was planned of each volume plus what its copy counted."""
    return [{**disk, **(stats.get(str(disk.get("key"))) or {})} for disk in disks]


def _notes(context: BackupContext, info: GuestInfo) -> str:
    template = context.settings.notes_template
    if not template:
        return ""
    values = {
        "cluster": "standalone node",
        "guestname": info.name,
        "node": context.host.node,
        "vmid": str(info.vmid),
    }
    return render_notes(template, values)


def _check_limits(storage: Storage, settings: BackupSettings, info: GuestInfo) -> None:
    """Refuse before the guest is touched what the storage would not keep."""
    if settings.protected:
        storage.archives.check_protected_limit(info.archive_kind, info.vmid)
    elif settings.limit > 0:
        present = [a for a in storage.archives.list_archives(info.vmid, info.archive_kind) if not a.protected]
        if len(present) >= settings.limit:
            raise StorageError(
                f"cannot back up {info.vmid} ({info.name}): storage {storage.name!r} keeps at most {settings.limit}"
                f" backups of a guest, there are {len(present)}, and pruning is switched off",
                hint="remove old backups, raise the retention, or allow pruning (remove)",
            )


def _work_folder(context: BackupContext, info: GuestInfo, name: ArchiveName, log: GuestLog) -> str:
    """Where scratch files of this guest go: beside the archive where that can hold any file."""
    unique = f"vzdumptmp{os.getpid()}_{info.vmid}"
    if context.settings.tmpdir:
        return os.path.join(context.settings.tmpdir, unique)
    if info.archive_kind == "qemu":
        # A running guest puts there what it overwrites, and must not wait for a target that is slow or gone. libvirt
        # runs QEMU as a user of its own, who does not get into the folder of the run.
        return os.path.join("/var/tmp" if info.kind == "libvirt" else context.record.folder, unique)
    dump = context.storage.archives.path
    kind = filesystem_type(dump)
    if kind not in COPY_FILESYSTEMS:
        # The users of an unprivileged container get through to it.
        folder = os.path.join("/var/tmp", unique)
        log.info(f"the archives are on {kind}; temporary files of the container go to {folder}")
        return folder
    return os.path.join(dump, name.stem + ".tmp")


def _fleecing_space(context: BackupContext, info: GuestInfo) -> ScratchSpace | None:
    """Where the run wants fleecing images, ``None`` if it does not say; they lie beside the guest's volumes there."""
    name = context.settings.fleecing_storage
    if name is None or info.archive_kind != "qemu":
        return None
    storage = get_storage(context.host, name)
    storage.activate(Need("images", write=True))
    return storage.scratch(info.vmid)


def _prune(storage: Storage, settings: BackupSettings, info: GuestInfo, outcome: GuestOutcome, log: GuestLog) -> None:
    """Apply retention to the guest that was just backed up."""
    if settings.keep is None:
        return
    marked = mark_archives(storage.archives.list_archives(info.vmid, info.archive_kind), settings.keep)
    for _archive, mark in marked:
        if mark.archive == outcome.archive and mark.mark == "remove":
            mark.mark, mark.rule = "keep", "just made"
            log.warn(
                f"{mark.archive} is kept although the retention would remove it: other archives of this guest are dated"
                " later; was the clock wrong then, or is it now?"
            )
    problems = remove_marked(storage, marked, log)
    outcome.pruned = [mark.archive for _archive, mark in marked if mark.removed]
    log.info(f"pruned {len(outcome.pruned)} backup(s) not covered by the retention {settings.keep_text}")
    if problems:
        raise StorageError(
            f"the backup of {info.vmid} ({info.name}) is complete, but old ones could not be removed:"
            f" {'; '.join(problems)}",
            hint="solve the cause; the next run prunes again",
        )


def _keep_log(context: BackupContext, name: ArchiveName, outcome: GuestOutcome, log: GuestLog) -> None:
    """Put the log beside the archive, also when there is none because the backup failed."""
    try:
        outcome.log = context.storage.archives.put_log(name, log.path)
    except (OSError, StorageError) as exc:
        reason = exc.message if isinstance(exc, StorageError) else exc.strerror
        log.warn(f"cannot put the log beside the archive: {reason}")


def error_dict(exc: HoldfastError | OSError) -> dict[str, Any]:
    """A failure as results carry it."""
    error = explained(exc)
    return {"message": error.message, "hint": error.hint, "code": error.code}
