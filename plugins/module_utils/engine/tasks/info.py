# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is: storages, jobs, guests and their coverage, runs; for modules, reports and the node command."""

from __future__ import annotations

import time
from typing import Any, Callable

from ..errors import HoldfastError
from ..guests.model import archive_kind
from ..rules.durations import parse_age
from ..settings.section import about
from ..storages.base import Need
from ..storages.dump import Archive
from ..storages.registry import open_storage
from ..system.host import Host
from .archives import ArchiveEntry, dated_ahead
from .coverage import coverage
from .definitions import job_dict, load_jobs, next_job_runs, read_jobs
from .record import RunRecord, load_records
from .results import instant
from .stores import open_storages, read_storages, storage_dict

Warn = Callable[[str], object]


def storages_info(host: Host, warn: Warn) -> list[dict[str, Any]]:
    """Every defined storage: whether it can be used here, why not, its space and number of archives.

    :param warn: is told of lines in the file that belong to no storage.
    """
    file = read_storages(host)
    _tell(about(file.findings, ""), warn)
    rows = []
    for section in file.sections:
        definition = file.storages.get(section.id)
        row: dict[str, Any] = {
            "name": section.id,
            "type": section.type if definition is None else definition.type,
            "path": "" if definition is None else definition.path,
            "definition": {} if definition is None else storage_dict(definition),
            "usable": False,
            "error": file.broken.get(section.id),
            "total": None,
            "free": None,
            "archives": None,
            "warnings": about(file.findings, section.id),
        }
        rows.append(row)
        if definition is None:
            continue
        try:
            storage = open_storage(definition, host)
            storage.activate(Need())
            row.update(usable=True, total=storage.total_space(), free=storage.free_space())
            if "backup" in definition.content:
                row["archives"] = len(storage.archives.list_archives())
        except (HoldfastError, OSError) as exc:
            row["error"] = str(exc)
    return rows


def jobs_info(host: Host, warn: Warn, runs: int = 3) -> list[dict[str, Any]]:
    """Every job with its next runs; one whose definition cannot be used has an ``error``.

    :param warn: is told of lines in the file that belong to no job.
    """
    now = int(time.time())
    file = read_jobs(host)
    _tell(about(file.findings, ""), warn)
    rows: list[dict[str, Any]] = [
        {
            "id": job.id,
            "enabled": job.enabled,
            "schedule": job.schedule,
            "definition": job_dict(job),
            "next_runs": next_job_runs(job, now, runs),
            "error": None,
            "warnings": about(file.findings, job.id),
        }
        for job in file.jobs.values()
    ]
    for job_id, reason in file.broken.items():
        broken = {"enabled": False, "schedule": "", "definition": {}, "next_runs": [], "error": reason}
        rows.append({"id": job_id, **broken, "warnings": about(file.findings, job_id)})
    return rows


def _tell(messages: list[str], warn: Warn) -> None:
    for message in messages:
        warn(message)


def guests_info(host: Host, warn: Warn) -> list[dict[str, Any]]:
    """Every guest with its state, its newest good archive on any storage with its age, and the jobs that cover it.

    :param warn: is told of storages that are away, whose archives are not known.
    """
    from .guests import guest_table

    newest: dict[tuple[str, int], Archive] = {}
    counts: dict[tuple[str, int], int] = {}
    for storage in open_storages(host, Need("backup"), warn):
        for archive in storage.archives.list_archives():
            if archive.name is None or archive.vmid is None:
                continue
            key = (archive.kind, archive.vmid)
            counts[key] = counts.get(key, 0) + 1
            # One that a wrong clock dated into the future would hide for years that others are missing.
            good = archive.good and not dated_ahead(archive)
            if good and (key not in newest or archive.time > newest[key].time):
                newest[key] = archive
    covering = _coverage(host)
    now = time.time()
    rows = []
    for row in guest_table(host):
        key = (archive_kind(str(row["kind"])), int(row["vmid"]))
        archive_or_none = newest.get(key)
        rows.append(
            {
                **row,
                "archives": counts.get(key, 0),
                "newest": None if archive_or_none is None else ArchiveEntry(archive_or_none).to_dict(),
                "newest_age": None if archive_or_none is None else int(now - archive_or_none.time),
                "jobs": covering.get(key[1], []),
            }
        )
    return rows


def coverage_info(host: Host, warn: Warn, max_age: str | None = None) -> dict[str, Any]:
    """Guests that nobody takes care of, and what runs next; see :func:`.coverage.coverage`.

    :param max_age: how old the newest good archive of a guest may be (``26h``, ``7d``).
    :raises UsageError: that is no age.
    """
    seconds = None if max_age is None else parse_age(max_age)
    return coverage(guests_info(host, warn), jobs_info(host, warn, 1), seconds)


def runs_info(host: Host, warn: Warn, limit: int = 20) -> list[dict[str, Any]]:
    """The last runs, newest first; one whose process died without a word has the state ``aborted``.

    :param warn: is told of records that cannot be understood; they are passed over.
    """
    rows: list[dict[str, Any]] = []
    for record in load_records(host):
        if len(rows) >= limit:
            break
        try:
            rows.append(_run_row(record))
        except (AttributeError, KeyError, OSError, OverflowError, TypeError, ValueError) as exc:
            warn(f"{record.path} is passed over: it is no record of a run ({exc!r}); remove {record.folder}")
    return rows


def _run_row(record: RunRecord) -> dict[str, Any]:
    data = record.data
    state = record.state if record.state != "running" or record.alive else "aborted"
    result = data.get("result") or {}
    if data.get("kind") == "restore":
        guests, summary = 1, f"{result.get('archive', '')} as {result.get('vmid', '')}"
    elif data.get("kind") == "verify":
        archives = result.get("archives") or []
        guests = len({(one["kind"], one["vmid"]) for one in archives})
        summary = ", ".join(f"{count} {state}" for state, count in (result.get("counts") or {}).items() if count)
    else:
        counts = result.get("counts") or {}
        guests = sum(counts.values())
        summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return {
        "id": record.id,
        "kind": data.get("kind", "unknown"),
        "state": state,
        **instant("started", data.get("started")),
        **instant("finished", data.get("finished")),
        "guests": guests,
        "summary": summary,
        "result": result or None,
    }


def _coverage(host: Host) -> dict[int, list[str]]:
    """Ids of the enabled jobs that back up each guest of this node."""
    from .backup_setup import selected_ids

    covering: dict[int, list[str]] = {}
    for job in load_jobs(host).values():
        if not job.enabled:
            continue
        try:
            ids = selected_ids(host, job)
        except HoldfastError:
            continue
        for vmid in ids:
            covering.setdefault(vmid, []).append(job.id)
    return covering
