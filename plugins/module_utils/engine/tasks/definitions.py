# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The definition files of this node: jobs here, storages by way of :mod:`.stores`.

A change is planned first, so that a diff can show it, and written by :func:`apply_change`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Mapping

from ..errors import ConfigError, UsageError
from ..rules.calendar import parse_event
from ..rules.options import OPTIONS, SELECTION, parse_option
from ..rules.schedule import next_runs
from ..settings.jobs import JobDef, JobsFile, check_job_id, parse_jobs_cfg, write_jobs_cfg
from ..settings.storages import parse_storage_cfg
from ..settings.vzdump_conf import parse_vzdump_conf
from ..system.files import read_text
from ..system.host import Host
from .changes import apply_change, make_change
from .results import Change, instant
from .stores import get_storage, load_storages, plan_storage, storage_dict

__all__ = [
    "apply_change",
    "explain_config",
    "get_job",
    "get_storage",
    "job_dict",
    "load_conf",
    "load_jobs",
    "load_storages",
    "next_job_runs",
    "plan_job",
    "plan_storage",
    "storage_dict",
]

PLAIN = ("schedule", "enabled", "comment", "repeat_missed")
"""Keys of a job that are neither selection nor backup options."""


def load_jobs(host: Host) -> dict[str, JobDef]:
    """Every backup job by id.

    :raises ConfigError: the file cannot be understood.
    """
    return dict(_load(host).jobs)


def load_conf(host: Host) -> tuple[dict[str, Any], list[str]]:
    """Options of ``vzdump.conf``, and warnings about lines in it that have no effect."""
    return parse_vzdump_conf(read_text(host.paths.vzdump_conf) or "")


def get_job(host: Host, job_id: str) -> JobDef:
    """A job by id.

    :raises UsageError: no job of that id is defined.
    """
    jobs = load_jobs(host)
    if job_id not in jobs:
        raise UsageError(
            f"job {job_id!r} does not exist",
            hint=f"defined in {host.paths.jobs_cfg} are: {', '.join(jobs) or 'none'}",
        )
    return jobs[job_id]


def next_job_runs(job: JobDef, start: int, count: int) -> list[dict[str, Any]]:
    """The next runs of a job in the node's time zone, as ``time`` and ``epoch``; none when it is disabled."""
    if not job.enabled:
        return []
    runs = next_runs(parse_event(job.schedule), start, None, count)
    return [{"time": instant("time", run)["time"], "epoch": run} for run in runs]


def job_dict(job: JobDef) -> dict[str, Any]:
    """A job for callers outside the engine, by the file's keys with underscores."""
    values = {
        "id": job.id,
        "schedule": job.schedule,
        "enabled": job.enabled,
        **({"comment": job.comment} if job.comment else {}),
        **({"repeat_missed": True} if job.repeat_missed else {}),
        **job.selection,
        **job.options,
    }
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def plan_job(host: Host, job_id: str, wanted: JobDef | Mapping[str, Any] | None, *, purge: bool = False) -> Change:
    """The change that makes a job look as wanted; nothing is written.

    :param wanted: the whole job, or single keys of it (``None`` values are not given), or ``None`` to remove it.
    :param purge: keys that a mapping does not give are removed; otherwise they stay as they are.
    :raises UsageError: an option or the id is not possible; :raises ConfigError: the schedule is missing or wrong.
    """
    content = _load(host)
    before = content.jobs.get(job_id)
    if before is None and wanted is not None:
        check_job_id(job_id)
    after = wanted if wanted is None or isinstance(wanted, JobDef) else _merged(job_id, before, wanted, purge)
    if after is not None:
        parse_event(after.schedule)
    left = {key: job for key, job in content.jobs.items() if key != job_id or after is not None}
    if after is not None:
        left[job_id] = after
    return make_change(
        path=host.paths.jobs_cfg,
        before=None if before is None else job_dict(before),
        after=None if after is None else job_dict(after),
        before_text="" if before is None else write_jobs_cfg(JobsFile({job_id: before})),
        after_text="" if after is None else write_jobs_cfg(JobsFile({job_id: after})),
        text=write_jobs_cfg(JobsFile(left, content.others)),
    )


def explain_config(kind: str, text: str) -> dict[str, Any]:
    """What the engine understands of a definition file.

    :param kind: ``storage``, ``jobs`` or ``vzdump``.
    """
    if kind == "storage":
        return {name: storage_dict(storage) for name, storage in parse_storage_cfg(text).items()}
    if kind == "jobs":
        return {job_id: job_dict(job) for job_id, job in parse_jobs_cfg(text).jobs.items()}
    options, warnings = parse_vzdump_conf(text)
    return {"options": options, "warnings": warnings}


def _load(host: Host) -> JobsFile:
    return parse_jobs_cfg(read_text(host.paths.jobs_cfg) or "", host.paths.jobs_cfg)


def _merged(job_id: str, before: JobDef | None, wanted: Mapping[str, Any], purge: bool) -> JobDef:
    given = {key.replace("-", "_"): value for key, value in wanted.items() if value is not None and key != "id"}
    base = JobDef(job_id, before.schedule if before is not None else "")
    if before is not None and not purge:
        base = before
    selection = {key: _selected(key, given[key]) for key in SELECTION if key in given}
    options = {key: parse_option(key, value) for key, value in given.items() if key in OPTIONS}
    unknown = set(given) - set(PLAIN) - set(SELECTION) - set(OPTIONS)
    if unknown:
        raise UsageError(f"job {job_id!r}: there is no key {', '.join(sorted(unknown))}")
    # One way of selecting guests replaces another; they exclude each other.
    kept = base.selection if not set(selection) - {"node"} else {"node": base.selection.get("node")}
    merged = replace(
        base,
        **{key: given[key] for key in PLAIN if key in given},
        selection={key: value for key, value in {**kept, **selection}.items() if value not in (None, "", (), False)},
        options={**base.options, **options},
    )
    if not merged.schedule:
        raise ConfigError(f"job {job_id!r} has no schedule", hint="for example: mon..fri 21:00")
    return merged


def _selected(key: str, value: Any) -> Any:
    if key in ("vmid", "exclude"):
        items = value.replace(",", " ").split() if isinstance(value, str) else value
        return tuple(str(item) for item in items)
    return bool(value) if key == "all" else str(value)
