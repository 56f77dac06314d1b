# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``jobs.cfg``: backup jobs. Sections of other types survive a rewrite untouched.

A wrong value is left out with a finding, as in the original, and the job goes on with the default. Two exceptions: a
job without a usable schedule is none, and a job whose retention cannot be read must not run with another one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Mapping

from ..errors import ConfigError, UsageError
from ..rules.calendar import parse_event
from ..rules.options import OPTIONS, SELECTION, parse_option
from ..rules.values import parse_flag, split_words
from .section import Finding, Section, decode_text, encode_text, parse_sections
from .vzdump_conf import option_text

TYPE = "vzdump"
MOST_COMMENT = 512
NOT_IN_JOBS = ("job_id", "metrics_file")
_ID = re.compile(r"\S{1,50}")
_NEW_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]+")


@dataclass(frozen=True)
class JobDef:
    """One job.

    :param selection: given ones of ``vmid``, ``all``, ``exclude``, ``pool``, ``tags``, ``query``, ``node``; ids and
        names as texts. Proxmox VE leaves ``tags`` and ``query`` out with a warning; a job that has nothing else then
        selects no guest, and fails there.
    :param options: typed backup options that are given (see ``rules.options``).
    :param extra: keys that this version does not act on, kept as they are.
    """

    id: str
    schedule: str
    enabled: bool = True
    comment: str = ""
    repeat_missed: bool = False
    selection: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class JobsFile:
    """A whole file.

    :param jobs: what can be used, by id; :param broken: why the others cannot, by id.
    :param sections: all sections, also those of other types; :param findings: what has no effect.
    """

    jobs: Mapping[str, JobDef]
    broken: Mapping[str, str]
    sections: tuple[Section, ...]
    findings: tuple[Finding, ...]


def parse_jobs_cfg(text: str, source: str = "jobs.cfg") -> JobsFile:
    """Understand the file as far as possible; nothing in it is an error for the jobs that are all right."""
    sections, findings = parse_sections(text, source)
    jobs: dict[str, JobDef] = {}
    broken: dict[str, str] = {}
    for section in sections:
        if section.type != TYPE:
            continue
        try:
            jobs[section.id], problems = _job(section)
        except (ConfigError, UsageError) as exc:
            broken[section.id] = exc.message
            problems = [f"the job cannot be used: {exc.message}"]
        findings += [Finding(section.id, f"{source}: {section.where}: {problem}") for problem in problems]
    return JobsFile(jobs, broken, tuple(sections), tuple(findings))


def check_job_id(text: str) -> None:
    """:raises UsageError: a new job cannot have this id."""
    if not _NEW_ID.fullmatch(text) or len(text) > 50:
        raise UsageError(
            f"{text!r} cannot be the id of a job", hint="a letter, then 1 to 49 letters, digits, '_' or '-'"
        )


def check_comment(text: str) -> None:
    """:raises UsageError: a comment cannot be that long."""
    if len(text) > MOST_COMMENT:
        raise UsageError(f"the comment is longer than {MOST_COMMENT} characters", hint="shorten it")


def section_from_job(job: JobDef) -> Section:
    """The section of a job, in the order in which Proxmox VE writes it."""
    properties: list[tuple[str, str | None]] = []
    if job.comment:
        properties.append(("comment", encode_text(job.comment)))
    properties.append(("schedule", job.schedule))
    values: dict[str, Any] = {**job.selection, **job.options, "enabled": job.enabled}
    if job.repeat_missed:
        values["repeat_missed"] = True
    rest: list[tuple[str, str | None]] = list(job.extra.items())
    for name, value in values.items():
        key = name.replace("_", "-")
        texts = value if name == "exclude_path" else [option_text(name, value)]
        rest.extend((key, text) for text in texts if text != "")
    # A stable sort: the globs of one key keep their order.
    properties.extend(sorted(rest, key=lambda item: item[0]))
    return Section(TYPE, job.id, properties)


def _job(section: Section) -> tuple[JobDef, list[str]]:
    """A job, and what of it has no effect."""
    values, repeated = section.single(arrays=["exclude-path"])
    problems = [f"{key!r} is given again, only its first line counts" for key in repeated]
    if not _ID.fullmatch(section.id):
        raise ConfigError("its id is longer than 50 characters")
    schedule = values.pop("schedule", None)
    if not schedule:
        raise ConfigError("'schedule' is missing")
    parse_event(schedule)
    selection: dict[str, Any] = {}
    options: dict[str, Any] = {}
    flags: dict[str, bool] = {}
    extra: dict[str, str | None] = {}
    comment = decode_text(values.pop("comment", None) or "")
    for key, value in values.items():
        name = key.replace("-", "_")
        try:
            if name in ("enabled", "repeat_missed"):
                flags[name] = _flag(key, value, problems)
            elif name in SELECTION:
                selection[name] = _selected(key, value, problems)
            elif name in OPTIONS and name not in NOT_IN_JOBS:
                options[name] = _option(key, value, problems)
            else:
                extra[key] = value
                problems.append(f"{key!r} has no effect, it is not an option of a backup job")
        except (ValueError, UsageError) as exc:
            reason = exc.message if isinstance(exc, UsageError) else f"{key}: {value!r} {exc}"
            if name == "prune_backups":
                raise ConfigError(reason) from exc
            problems.append(f"{reason}; the line has no effect")
    globs = section.many("exclude-path")
    if globs:
        options["exclude_path"] = tuple(globs)
    return JobDef(section.id, schedule, flags.get("enabled", True), comment, flags.get("repeat_missed", False),
                  selection, options, extra), problems  # fmt: skip


def _selected(key: str, value: str | None, problems: list[str]) -> Any:
    if key == "all":
        return _flag(key, value, problems)
    if value is None:
        raise ValueError("has no value")
    return value if key in ("node", "pool", "query") else split_words(value)


def _option(key: str, value: str | None, problems: list[str]) -> Any:
    name = key.replace("-", "_")
    if OPTIONS[name].check is parse_flag:
        return _flag(key, value, problems)
    if value is None:
        raise ValueError("has no value")
    return parse_option(name, value)


def _flag(key: str, value: str | None, problems: list[str]) -> bool:
    """A boolean; its words are understood here, but not by Proxmox VE, which would take the default instead."""
    if value not in (None, "0", "1"):
        flag = parse_flag(value)
        problems.append(f"{key!r} should be {int(flag)}: Proxmox VE does not understand {value!r} in this file")
        return flag
    return value != "0"
