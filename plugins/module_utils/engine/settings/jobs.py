# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``jobs.cfg``: backup jobs. Sections of other types survive a rewrite untouched."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Mapping
from urllib.parse import quote, unquote

from ..errors import ConfigError, UsageError
from ..rules.calendar import parse_event
from ..rules.options import OPTIONS, SELECTION, parse_option
from .propstring import parse_flag
from .section import Section, parse_sections, write_sections
from .vzdump_conf import option_text

TYPE = "vzdump"
_ID = re.compile(r"\S{1,50}")
_NEW_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]+")
_WORDS = re.compile(r"[,;\s]+")
_NOT_IN_JOBS = ("job_id",)


@dataclass(frozen=True)
class JobDef:
    """One job.

    :param selection: given ones of ``vmid``, ``all``, ``exclude``, ``pool``, ``node``; ids and names as texts.
    :param options: typed backup options that are given (see ``rules.options``).
    """

    id: str
    schedule: str
    enabled: bool = True
    comment: str = ""
    repeat_missed: bool = False
    selection: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JobsFile:
    """The jobs by id, and the sections that are not ours."""

    jobs: Mapping[str, JobDef]
    others: tuple[Section, ...] = ()


def parse_jobs_cfg(text: str, source: str = "jobs.cfg") -> JobsFile:
    """Parse the file.

    :raises ConfigError: a job makes no sense; the message names file, job and key.
    """
    jobs: dict[str, JobDef] = {}
    others: list[Section] = []
    for section in parse_sections(text, source):
        if section.type != TYPE:
            others.append(section)
            continue
        try:
            jobs[section.id] = _job(section)
        except (ConfigError, UsageError) as exc:
            raise ConfigError(f"{source}: {section.where}: {exc.message}", hint=exc.hint) from exc
    return JobsFile(jobs, tuple(others))


def write_jobs_cfg(content: JobsFile) -> str:
    """The file's text: jobs in their order, then foreign sections."""
    return write_sections([*map(_section, content.jobs.values()), *content.others])


def check_job_id(text: str) -> None:
    """:raises UsageError: a new job cannot have this id."""
    if not _NEW_ID.fullmatch(text) or len(text) > 50:
        raise UsageError(
            f"{text!r} cannot be the id of a job", hint="a letter, then 1 to 49 letters, digits, '_' or '-'"
        )


def _job(section: Section) -> JobDef:
    values = section.single(arrays=["exclude-path"])
    if not _ID.fullmatch(section.id):
        raise ConfigError("the id is longer than 50 characters")
    schedule = values.pop("schedule", None)
    if not schedule:
        raise ConfigError("'schedule' is missing", hint="for example: schedule mon..fri 21:00")
    parse_event(schedule)
    flags = {
        key: parse_flag(values.pop(key, default) or "1", key)
        for key, default in (("enabled", "1"), ("repeat-missed", "0"))
    }
    comment = unquote(values.pop("comment", None) or "")
    selection: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        text = "1" if value is None else value
        if name in ("vmid", "exclude"):
            selection[name] = tuple(word for word in _WORDS.split(text) if word)
        elif name == "all":
            selection[name] = parse_flag(text, name)
        elif name in SELECTION:
            selection[name] = text
        elif name in OPTIONS and name not in _NOT_IN_JOBS:
            options[name] = parse_option(name, text)
        else:
            raise ConfigError(f"{key!r} is not an option of a backup job")
    globs = section.many("exclude-path")
    if globs:
        options["exclude_path"] = tuple(globs)
    return JobDef(section.id, schedule, flags["enabled"], comment, flags["repeat-missed"], selection, options)


def _section(job: JobDef) -> Section:
    properties: list[tuple[str, str | None]] = []
    if job.comment:
        properties.append(("comment", quote(job.comment, safe=" !\"#$&'()*+,-./;<=>?@[\\]^_`{|}~")))
    properties.append(("schedule", job.schedule))
    values: dict[str, Any] = {**job.selection, **job.options, "enabled": job.enabled}
    if job.repeat_missed:
        values["repeat_missed"] = True
    for name in sorted(values):
        key, value = name.replace("_", "-"), values[name]
        if name == "exclude_path":
            properties.extend((key, glob) for glob in value if glob)
        elif option_text(name, value) != "":
            properties.append((key, option_text(name, value)))
    return Section(TYPE, job.id, properties)
