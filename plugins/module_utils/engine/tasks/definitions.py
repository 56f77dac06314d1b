# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The definition files of this node: jobs here, storages by way of :mod:`.stores`.

A change is planned first, so that a diff can show it, and written by :func:`apply_change`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Mapping, Sequence

from ..errors import ConfigError, UsageError
from ..rules.calendar import parse_event
from ..rules.options import OPTIONS, SELECTION, parse_option
from ..rules.schedule import next_runs, why_never
from ..rules.selection import change_selection, check_selection
from ..rules.values import parse_flag, split_words
from ..settings.jobs import (
    NOT_IN_JOBS,
    TYPE,
    JobDef,
    JobsFile,
    check_comment,
    check_job_id,
    parse_jobs_cfg,
    section_from_job,
)
from ..settings.section import Section, about, check_writable, edit_sections, write_sections
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
    "plan_jobs",
    "plan_storage",
    "storage_dict",
]

PLAIN = ("schedule", "enabled", "comment", "repeat_missed")
"""Keys of a job that are neither selection nor backup options."""


def read_jobs(host: Host) -> JobsFile:
    """The whole file, also what in it cannot be used."""
    return parse_jobs_cfg(read_text(host.paths.jobs_cfg) or "", host.paths.jobs_cfg)


def load_jobs(host: Host) -> dict[str, JobDef]:
    """Every backup job by id whose definition can be used."""
    return dict(read_jobs(host).jobs)


def load_conf(host: Host) -> tuple[dict[str, Any], list[str]]:
    """Options of ``vzdump.conf``, and warnings about lines in it that have no effect."""
    return parse_vzdump_conf(read_text(host.paths.vzdump_conf) or "")


def get_job(host: Host, job_id: str) -> JobDef:
    """A job by id.

    :raises UsageError: no job of that id is defined; :raises ConfigError: its definition cannot be used.
    """
    file = read_jobs(host)
    if job_id in file.broken:
        raise ConfigError(
            f"job {job_id!r} cannot be used: {file.broken[job_id]}", hint=f"correct it in {host.paths.jobs_cfg}"
        )
    if job_id not in file.jobs:
        raise UsageError(
            f"job {job_id!r} does not exist: {host.paths.jobs_cfg} does not have it, or does not have it any more",
            hint="nothing is wrong if it was removed a moment ago, while its timer started it;"
            f" defined are: {', '.join(file.jobs) or 'none'}",
        )
    return file.jobs[job_id]


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
        **{key.replace("-", "_"): value for key, value in job.extra.items()},
    }
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def plan_job(host: Host, job_id: str, wanted: JobDef | Mapping[str, Any] | None, *, purge: bool = False) -> Change:
    """The change that makes a job look as wanted; nothing is written.

    :param wanted: the whole job, or single keys of it (``None`` values are not given), or ``None`` to remove it.
    :param purge: keys that a mapping does not give are removed; otherwise they stay as they are.
    :raises UsageError: an option, the selection or the id is not possible.
    :raises ConfigError: the schedule is missing or can never come, or the file holds lines that writing it would lose.
    """
    text = read_text(host.paths.jobs_cfg)
    file = parse_jobs_cfg(text or "", host.paths.jobs_cfg)
    change = _jobs_change(host, text, file, [_plan_section(file, job_id, wanted, purge)])
    return replace(change, before=(change.before or {}).get(job_id), after=(change.after or {}).get(job_id))


def plan_jobs(
    host: Host, wanted: Mapping[str, Mapping[str, Any] | None], *, purge: bool = False, exclusive: bool = False
) -> Change:
    """The change that makes several jobs look as wanted, all of them in one write; see :func:`plan_job`.

    Keys and texts of the change are those of the jobs that change, by id.

    :param exclusive: jobs that are not in ``wanted`` are removed.
    """
    text = read_text(host.paths.jobs_cfg)
    file = parse_jobs_cfg(text or "", host.paths.jobs_cfg)
    others = [section.id for section in file.sections if section.type == TYPE and section.id not in wanted]
    everything = {**dict.fromkeys(others if exclusive else ()), **wanted}
    steps = [_plan_section(file, job_id, keys, purge) for job_id, keys in everything.items()]
    return _jobs_change(host, text, file, steps)


@dataclass(frozen=True)
class _Step:
    """One job's part in a change of the file."""

    id: str
    before: JobDef | None
    after: JobDef | None
    old: Section | None
    new: Section | None


def _plan_section(file: JobsFile, job_id: str, wanted: JobDef | Mapping[str, Any] | None, purge: bool) -> _Step:
    before = file.jobs.get(job_id)
    old = next((section for section in file.sections if section.id == job_id), None)
    if old is not None and old.type != TYPE:
        raise UsageError(f"{job_id!r} is the id of a section of the type {old.type}", hint="choose another id")
    if wanted is None:
        return _Step(job_id, before, None, old, None)
    if old is None:
        check_job_id(job_id)
    try:
        after = wanted if isinstance(wanted, JobDef) else _merged(job_id, before, wanted, purge)
        _check(after)
    except (ConfigError, UsageError) as exc:
        raise type(exc)(f"cannot declare job {job_id!r}: {exc.message}", hint=exc.hint) from exc
    # Written by hand in another order, but the same: it stays as it is.
    same = after == before and not about(file.findings, job_id)
    return _Step(job_id, before, after, old, old if same else section_from_job(after))


def _jobs_change(host: Host, text: str | None, file: JobsFile, steps: Sequence[_Step]) -> Change:
    changed = [step for step in steps if step.new != step.old]
    if changed:
        check_writable(file.findings, host.paths.jobs_cfg)
    return make_change(
        path=host.paths.jobs_cfg,
        base=text,
        before={step.id: job_dict(step.before) for step in steps if step.before is not None},
        after={step.id: job_dict(step.after) for step in steps if step.after is not None},
        before_text=write_sections([step.old for step in changed if step.old is not None]),
        after_text=write_sections([step.new for step in changed if step.new is not None]),
        text=edit_sections(text or "", {step.id: step.new for step in changed}),
    )


def explain_config(kind: str, text: str) -> tuple[dict[str, Any], list[str]]:
    """What the engine understands of a definition file, and what in it has no effect.

    :param kind: ``storage``, ``jobs`` or ``vzdump``.
    """
    if kind == "storage":
        storages = parse_storage_cfg(text)
        known = {name: storage_dict(storage) for name, storage in storages.storages.items()}
        return known, [finding.message for finding in storages.findings]
    if kind == "jobs":
        jobs = parse_jobs_cfg(text)
        known = {job_id: job_dict(job) for job_id, job in jobs.jobs.items()}
        return known, [finding.message for finding in jobs.findings]
    options, warnings = parse_vzdump_conf(text)
    return {"options": options, "warnings": warnings}, warnings


def _merged(job_id: str, before: JobDef | None, wanted: Mapping[str, Any], purge: bool) -> JobDef:
    given = {key.replace("-", "_"): value for key, value in wanted.items() if value is not None and key != "id"}
    unknown = sorted(key for key in given if key not in (*PLAIN, *SELECTION, *OPTIONS) or key in NOT_IN_JOBS)
    if unknown:
        raise UsageError(f"there is no key {', '.join(unknown)}")
    base = JobDef(job_id, "" if before is None else before.schedule) if before is None or purge else before
    return replace(
        base,
        **{key: _plain(key, given[key]) for key in PLAIN if key in given},
        selection=change_selection(
            base.selection, {key: _selected(key, given[key]) for key in SELECTION if key in given}
        ),
        options={**base.options, **{key: parse_option(key, given[key]) for key in OPTIONS if key in given}},
    )


def _check(job: JobDef) -> None:
    """Refuse a job that could never make a backup."""
    if not job.schedule:
        raise ConfigError("it has no schedule", hint="for example: mon..fri 21:00")
    never = why_never(parse_event(job.schedule))
    if never:
        raise ConfigError(f"the schedule {job.schedule!r} never comes: {never}", hint="correct it")
    check_selection(job.selection)
    check_comment(job.comment)
    if job.selection.get("query"):
        from .queries import compile_query

        compile_query(job.selection["query"])


def _plain(key: str, value: Any) -> Any:
    return _flag(key, value) if key in ("enabled", "repeat_missed") else str(value).strip()


def _selected(key: str, value: Any) -> Any:
    if key in ("vmid", "exclude", "tags"):
        return split_words(value) if isinstance(value, str) else tuple(str(item) for item in value)
    # A query may be long, and the file has one line for it.
    return _flag(key, value) if key == "all" else " ".join(str(value).split("\n")).strip()


def _flag(key: str, value: Any) -> bool:
    try:
        return parse_flag(value)
    except ValueError as exc:
        raise UsageError(f"{key}: {value!r} {exc}") from exc
