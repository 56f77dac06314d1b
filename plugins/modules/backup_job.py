#!/usr/bin/python
# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_job
short_description: Declare a backup job
version_added: 0.1.0
description:
  - Declares a backup job in the node's C(jobs.cfg), in the format of Proxmox VE.
  - An enabled job that concerns the node gets a systemd timer C(holdfast-job-<id>.timer) and a service of that name,
    which runs it. A disabled or removed job loses them.
  - A new or changed schedule begins at its next event. Two jobs at the same time run one after the other, and no job
    overlaps itself.
  - Where systemd does not run, or when O(root) is set, the job is declared without a timer, and RV(timer) says why. It
    can be run with M(holdfast.virt.backup_run) and its option O(holdfast.virt.backup_run#module:job), or with
    C(holdfast run --job).
  - To declare all jobs of a node in one task use M(holdfast.virt.backup_jobs).
  - Sections of other types stay as they are.
author:
  - holdfast.virt contributors (@holdfast-virt)
extends_documentation_fragment:
  - holdfast.virt.attributes
  - holdfast.virt.attributes.idempotent
  - holdfast.virt.location
  - holdfast.virt.selection
  - holdfast.virt.backup_options
  - holdfast.virt.retention
  - holdfast.virt.timer
options:
  id:
    description:
      - Name of the job, at most 50 characters without blanks.
    type: str
    required: true
  state:
    description:
      - With V(present) the job is declared, with V(absent) it is removed.
    type: str
    choices: [present, absent]
    default: present
  schedule:
    description:
      - When the job runs, as a calendar event of Proxmox VE, for example V(mon..fri 21:00), V(daily) or V(*/2:00).
      - A number alone means minutes. V(mon..fri 22) is every hour at 22 minutes past.
      - Needed when the job is declared for the first time.
    type: str
  enabled:
    description:
      - Whether the job runs. Default V(true).
    type: bool
  comment:
    description:
      - Text for people, at most 512 characters.
    type: str
  repeat_missed:
    description:
      - Make up for a run that was missed while the node was down. Default V(false).
    type: bool
  purge_options:
    description:
      - Remove options from the job that the task does not set. Otherwise they stay as they are.
    type: bool
    default: false
seealso:
  - module: holdfast.virt.backup_jobs
  - module: holdfast.virt.backup_run
  - module: holdfast.virt.backup_storage
"""

EXAMPLES = r"""
- name: Back up all guests every night
  holdfast.virt.backup_job:
    id: nightly
    schedule: "21:00"
    all: true
    storage: nas

- name: Back up all but one on weekdays, with retention and notes
  holdfast.virt.backup_job:
    id: weekdays
    schedule: "mon..fri 21:00"
    exclude: [scratch]
    storage: nas
    mode: snapshot
    compress: zstd
    notes_template: "{guestname} on {node}"
    prune_backups:
      keep_daily: 7
      keep_weekly: 4
    repeat_missed: true

- name: Back up the guests with a tag every two hours, but not the one that is only a copy
  holdfast.virt.backup_job:
    id: gold
    schedule: "*/2:00"
    query: "[?contains(tags, 'gold') && kind == 'qemu']"
    exclude: [mirror]
    storage: nas

- name: Show when a changed schedule would run
  holdfast.virt.backup_job:
    id: nightly
    schedule: "sat 18:15"
  check_mode: true
  diff: true
  register: __job

- name: Refuse a schedule with a message for the operator
  block:
    - name: Declare the job of the inventory
      holdfast.virt.backup_job:
        id: weekly
        schedule: "{{ weekly_schedule }}"
        all: true
  rescue:
    - name: Show what is wrong with the schedule
      ansible.builtin.debug:
        msg: "{{ ansible_failed_result.msg }}"
"""

RETURN = r"""
job:
  description: The definition after the task, with the keys of C(jobs.cfg). Empty when the job is absent.
  returned: success
  type: dict
  sample: {id: nightly, schedule: "21:00", enabled: true, all: true, storage: nas}
next_runs:
  description: The next runs of the job on the node; empty when it is disabled, absent or will never run.
  returned: success
  type: list
  elements: dict
  contains:
    time:
      description: Instant in RFC 3339, UTC.
      type: str
      sample: "2026-03-09T20:00:00Z"
    epoch:
      description: The same in seconds since 1970.
      type: int
timer:
  description: The timer of the job.
  returned: success
  type: dict
  contains:
    unit:
      description: Name of the systemd unit; V(null) when there is none.
      type: str
      sample: holdfast-job-nightly.timer
    reason:
      description: Why there is none; empty when there is one.
      type: str
      sample: systemd does not run on this node
code:
  description: Kind of the failure.
  returned: failure
  type: str
  sample: config
hint:
  description: What can be done about the failure; may be empty.
  returned: failure
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.virt.plugins.module_utils.engine.system.host import Host
from ansible_collections.holdfast.virt.plugins.module_utils.support.module import finish
from ansible_collections.holdfast.virt.plugins.module_utils.support.specs import (
    job_spec,
    location_spec,
    selection_conflicts,
    timer_spec,
)


def declare(module: AnsibleModule, host: Host) -> dict[str, Any]:
    """Bring the definition to the asked state, or in check mode only plan to."""
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.definitions import plan_job
    from ansible_collections.holdfast.virt.plugins.module_utils.support.diff import jobs_difference
    from ansible_collections.holdfast.virt.plugins.module_utils.support.jobs import job_keys, job_rows, make_so

    params = module.params
    name = params["id"]
    change = plan_job(
        host, name, job_keys(params) if params["state"] == "present" else None, purge=params["purge_options"]
    )
    timers = make_so(module, host, change, [name])
    return {
        "changed": change.changed or timers.changed,
        "job": change.after or {},
        "next_runs": [run for row in job_rows(change, timers, [name]) for run in row["next_runs"]],
        "timer": timers.timer(name),
        "diff": jobs_difference(change, timers),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "id": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "purge_options": {"type": "bool", "default": False},
            **job_spec(),
            **timer_spec(),
            **location_spec(),
        },
        mutually_exclusive=selection_conflicts(),
        supports_check_mode=True,
    )
    finish(module, lambda host: declare(module, host))


if __name__ == "__main__":
    main()
