# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Retention applied to a whole storage, or to one guest after its backup."""

from __future__ import annotations

from ..errors import StorageError, UsageError
from ..rules.retention import Entry, Keep, Marked, emptied, format_keep, parse_keep, prune_plan
from ..storages.base import Need, Storage
from ..storages.dump import Archive
from ..system.host import Host
from ..system.report import Reporter
from .requests import PruneRequest
from .results import MarkedArchive, PruneResult
from .stores import get_storage


def plan_prune(host: Host, request: PruneRequest) -> PruneResult:
    """Every archive that retention looks at, with its mark and the rule behind it; nothing is removed.

    :raises UsageError: there is no retention to apply, or it makes no sense.
    :raises StorageError: it would remove the last good archive of a guest, and that is not allowed.
    """
    storage, keep = _prepare(host, request, write=False)
    return _result(storage, keep, _mark(storage, keep, request))


def apply_prune(host: Host, request: PruneRequest, report: Reporter) -> PruneResult:
    """Remove what retention does not keep.

    :raises StorageError: some archives could not be removed; the others were, and ``result`` tells which. Or nothing
        was removed, because a guest would lose its last good archive.
    """
    storage, keep = _prepare(host, request, write=True)
    marked = _mark(storage, keep, request)
    problems = remove_marked(storage, marked, report)
    result = _result(storage, keep, marked)
    if problems:
        raise StorageError(
            f"{len(problems)} archives on storage {storage.name!r} could not be removed: {'; '.join(problems)}",
            hint="the others were removed; solve the cause and prune again",
            result=result.to_dict(),
        )
    return result


def mark_archives(archives: list[Archive], keep: Keep) -> list[tuple[Archive, MarkedArchive]]:
    """Marks of all archives, in the order of the list."""
    return [
        (
            archive,
            MarkedArchive(
                archive=archive.volid,
                kind=archive.kind,
                vmid=archive.vmid,
                time=archive.time,
                size=archive.size,
                mark=marked.mark,
                rule=marked.rule,
            ),
        )
        for archive, marked in zip(archives, _plan(archives, keep))
    ]


def remove_marked(storage: Storage, marked: list[tuple[Archive, MarkedArchive]], report: Reporter) -> list[str]:
    """Remove the archives with mark ``remove``; one that cannot be removed does not stop the others.

    :returns: a message per archive that is still there.
    """
    problems = []
    for archive, mark in marked:
        if mark.mark != "remove":
            continue
        report.info(f"removing backup {archive.volid!r} ({mark.rule})")
        try:
            storage.archives.remove(archive)
            mark.removed = True
        except StorageError as exc:
            mark.error = exc.message
            report.warn(exc.message)
            problems.append(exc.message)
    return problems


def _prepare(host: Host, request: PruneRequest, *, write: bool) -> tuple[Storage, Keep]:
    storage = get_storage(host, request.storage)
    value = request.keep if request.keep else storage.definition.prune_backups
    if not value:
        raise UsageError(
            f"cannot prune storage {request.storage!r}: no retention is given and the storage defines none",
            hint="give one by prune_backups or --keep-last and the like, or set prune-backups of the storage",
        )
    storage.activate(Need("backup", write=write))
    return storage, parse_keep(value)


def _mark(storage: Storage, keep: Keep, request: PruneRequest) -> list[tuple[Archive, MarkedArchive]]:
    vmids = {int(vmid) for vmid in request.vmid}
    found = storage.archives.list_archives(kind=request.kind)
    archives = [archive for archive in found if not vmids or archive.vmid in vmids]
    marked = mark_archives(archives, keep)
    lost = [] if request.allow_empty else emptied(_plan(archives, keep))
    if lost:
        guests = "; ".join(f"{guest.group}: {', '.join(guest.removed)}" for guest in lost)
        raise StorageError(
            f"the retention {format_keep(keep)} would remove the last good archives on storage {storage.name!r} of"
            f" {guests}; what it keeps of them is damaged",
            hint="back these guests up first, keep more, or allow it (allow_empty)",
            result=_result(storage, keep, marked).to_dict(),
        )
    return marked


def _plan(archives: list[Archive], keep: Keep) -> list[Marked]:
    entries = [
        Entry(
            name=archive.filename,
            group=None if archive.name is None else f"{archive.kind}/{archive.vmid}",
            time=int(archive.time),
            protected=archive.protected,
            good=archive.good,
        )
        for archive in archives
    ]
    return prune_plan(entries, keep)


def _result(storage: Storage, keep: Keep, marked: list[tuple[Archive, MarkedArchive]]) -> PruneResult:
    return PruneResult(storage.name, format_keep(keep), [mark for _archive, mark in marked])
