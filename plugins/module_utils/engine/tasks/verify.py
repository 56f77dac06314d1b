# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verifications: which archives, one after the other, and the note beside each of what was found."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Iterable, Optional

from ..errors import HoldfastError, Interrupted, StorageError, UsageError
from ..rules.durations import parse_age
from ..settings.archive_record import LEVELS, STATES, Verified
from ..storages.base import Need, Storage
from ..storages.dump import Archive
from ..system.host import Host
from ..system.report import Reporter
from ..system.trouble import FileError, explained
from .archives import locate
from .heal import heal
from .record import RunRecord
from .requests import VerifyRequest
from .signals import interruptible
from .stores import get_storage, open_storages
from .verify_archive import REMEDY, begin, verify_archive
from .verify_results import Finding, VerifiedArchive, VerifyResult

Chosen = tuple[Optional[Storage], Archive]


def plan_verify(host: Host, request: VerifyRequest) -> VerifyResult:
    """Which archives would be verified; none is opened.

    :raises UsageError: the request makes no sense; :raises StorageError: a storage or archive is not there.
    """
    result = VerifyResult("", host.node, request.level, time.time())
    for _storage, archive in _choose(host, request):
        result.archives.append(_begin(archive, request, result.started))
    return result


def run_verify(host: Host, request: VerifyRequest, report: Reporter) -> VerifyResult:
    """Verify archives; a bad one does not stop the others. What was found is noted beside each archive.

    :returns: the state of every archive, also of bad ones: look at ``ok``.
    :raises UsageError: the request makes no sense; :raises StorageError: a storage or archive is not there.
    :raises Interrupted: a signal came; ``result`` tells what was verified before.
    """
    heal(host, report)
    chosen = _choose(host, request)
    record = RunRecord.start(host, "verify", {"level": request.level, "archives": len(chosen)})
    result = VerifyResult(record.id, host.node, request.level, time.time())
    result.archives = [_begin(archive, request, result.started) for _storage, archive in chosen]
    try:
        with interruptible():
            for (storage, archive), one in zip(chosen, result.archives):
                if one.state == "planned":
                    _verify(host, storage, archive, one, request, result, report)
                    with contextlib.suppress(FileError):
                        record.update(result.to_dict())
    except HoldfastError as exc:
        result.finished = time.time()
        record.close("interrupted" if isinstance(exc, Interrupted) else "failed", result.to_dict(), report)
        exc.result = result.to_dict()
        raise
    result.finished = time.time()
    record.close("finished", result.to_dict(), report)
    return result


def _verify(
    host: Host,
    storage: Storage | None,
    archive: Archive,
    one: VerifiedArchive,
    request: VerifyRequest,
    result: VerifyResult,
    report: Reporter,
) -> None:
    report.info(f"verifying {archive.volid}, level {request.level}")
    try:
        verify_archive(archive, one, request.bwlimit, report)
    except Interrupted:
        raise
    except (HoldfastError, OSError) as exc:
        if not os.path.exists(archive.path):
            one.state, one.reason = "gone", "it was removed meanwhile"
            report.info(f"{archive.volid} was removed meanwhile")
            return
        error = explained(exc)
        one.findings.append(Finding(error.message, error.hint or REMEDY))
        one.state = "failed"
    for warning in one.warnings:
        report.warn(f"{archive.volid}: {warning}")
    for finding in one.findings:
        report.error(f"{archive.volid}: {finding.cause}")
    report.info(f"{archive.volid}: {one.state}")
    if storage is not None and one.state in STATES:
        _note(host, storage, archive, one, result, report)


def _note(
    host: Host, storage: Storage, archive: Archive, one: VerifiedArchive, result: VerifyResult, report: Reporter
) -> None:
    """Write the result beside the archive; on a storage that cannot be written it is only in the run's record."""
    causes = tuple(finding.cause for finding in one.findings)
    verified = Verified(one.level, one.state, int(time.time()), host.node, causes)
    try:
        storage.archives.set_record(archive, archive.record.with_result(verified))
    except StorageError as exc:
        result.warnings.append(exc.message)
        report.warn(exc.message)


def _begin(archive: Archive, request: VerifyRequest, now: float) -> VerifiedArchive:
    one = begin(archive, request.level)
    last = archive.record.at_least(request.level)
    if request.max_age is not None and last is not None and 0 <= now - last.time <= parse_age(request.max_age):
        one.state = "fresh"
        one.reason = f"verified at the level {last.level} less than {request.max_age} ago: {last.state}"
    return one


def _choose(host: Host, request: VerifyRequest) -> list[Chosen]:
    if request.level not in LEVELS:
        raise UsageError(f"there is no level {request.level!r} of verification", hint=f"use {' or '.join(LEVELS)}")
    if request.max_age is not None:
        parse_age(request.max_age)
    if request.archives:
        if request.storage is not None or request.vmid or request.newest:
            raise UsageError("name archives, or select them by storage, guest or age", hint="not both")
        return [locate(host, text) for text in request.archives]
    chosen: list[Chosen] = []
    for storage in _storages(host, request.storage):
        found = storage.archives.list_archives()
        wanted = [archive for archive in found if not request.vmid or archive.vmid in request.vmid]
        chosen += [(storage, archive) for archive in (_newest(wanted) if request.newest else wanted)]
    return chosen


def _storages(host: Host, name: str | None) -> list[Storage]:
    if name is None:
        return open_storages(host, Need("backup"))
    storage = get_storage(host, name)
    storage.activate(Need("backup"))
    return [storage]


def _newest(archives: Iterable[Archive]) -> list[Archive]:
    """Of each guest the newest archive with a standard name."""
    newest: dict[tuple[str, int | None], Archive] = {}
    for archive in archives:
        key = (archive.kind, archive.vmid)
        if archive.name is not None and (key not in newest or archive.time > newest[key].time):
            newest[key] = archive
    return list(newest.values())
