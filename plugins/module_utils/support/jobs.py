# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declaring jobs: what the modules for one job and for a list of them share."""

from __future__ import annotations

import time
from typing import Any, Iterable, Mapping

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import UnsupportedError
from ansible_collections.holdfast.virt.plugins.module_utils.engine.errors import UsageError
from ansible_collections.holdfast.virt.plugins.module_utils.engine.settings.jobs import parse_jobs_cfg
from ansible_collections.holdfast.virt.plugins.module_utils.engine.system.host import Host
from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.definitions import apply_change, next_job_runs
from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.results import Change
from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.stores import read_storages
from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.timers import (
    TimerPlan,
    apply_timers,
    held_back,
    plan_timers,
)
from ansible_collections.holdfast.virt.plugins.module_utils.support.params import backup_options
from ansible_collections.holdfast.virt.plugins.module_utils.support.specs import (
    backup_spec,
    job_spec,
    retention_spec,
    selection_conflicts,
)

NEXT_RUNS = 5


def job_keys(params: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a job in the engine's terms, from the parameters of one."""
    plain = {name: params[name] for name in job_spec() if name not in {**backup_spec(), **retention_spec()}}
    return {**plain, **backup_options(params)}


def wanted_jobs(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """The jobs of a list by id, each checked as the module for one job would; ``None`` are those to be removed.

    :raises UsageError: an entry makes no sense, or an id stands twice.
    """
    states = {"type": "str", "choices": ["present", "absent"], "default": "present"}
    spec = {"id": {"type": "str", "required": True}, "state": states, **job_spec()}
    validator = ArgumentSpecValidator(spec, mutually_exclusive=selection_conflicts())
    wanted: dict[str, dict[str, Any] | None] = {}
    for number, entry in enumerate(entries, 1):
        checked = validator.validate(dict(entry))
        name = f"job {entry['id']!r}" if "id" in entry else f"the job at place {number} of the list"
        if checked.error_messages:
            # Of options that do not exist the validator gives only the names.
            reasons = (
                f"it has unknown options: {error.msg}" if isinstance(error, UnsupportedError) else error.msg
                for error in checked.errors
            )
            raise UsageError(f"cannot declare {name}: {'; '.join(reasons)}")
        params = checked.validated_parameters
        if params["id"] in wanted:
            raise UsageError(f"{name} is declared twice", hint="merge the two entries, or rename one")
        wanted[params["id"]] = job_keys(params) if params["state"] == "present" else None
    return wanted


def make_so(module: AnsibleModule, host: Host, change: Change, only: Iterable[str] | None) -> TimerPlan:
    """Write the jobs and install their timers, or in check mode only plan to.

    :param only: ids of the jobs whose timers matter; ``None`` means all.
    """
    timers = plan_timers(host, change.text, only, command=module.params["command"])
    for text in timers.refused:
        module.warn(text)
    if not module.check_mode:
        with held_back(timers):
            apply_change(host, change)
        apply_timers(timers)
        for text in missing_storages(host, change.text, only):
            module.warn(text)
    return timers


def missing_storages(host: Host, text: str, only: Iterable[str] | None) -> list[str]:
    """What to say about jobs of this node whose storage is not declared here; it may still come.

    :param text: of ``jobs.cfg``; :param only: ids of the jobs to look at; ``None`` means all.
    """
    file = read_storages(host)
    jobs = parse_jobs_cfg(text).jobs
    return [
        f"job {name!r} will fail: its storage {job.options['storage']!r} is not declared on this node"
        for name, job in jobs.items()
        if (only is None or name in only)
        and job.selection.get("node") in (None, "", host.node)
        and job.options.get("storage") not in (None, "", *file.storages, *file.broken)
    ]


def job_rows(change: Change, timers: TimerPlan, ids: Iterable[str]) -> list[dict[str, Any]]:
    """Jobs as they are after the change: definition, next runs and timer."""
    jobs = parse_jobs_cfg(change.text).jobs
    now = int(time.time())
    return [
        {"id": one, "next_runs": next_job_runs(jobs[one], now, NEXT_RUNS), "timer": timers.timer(one)}
        for one in ids
        if one in jobs
    ]
