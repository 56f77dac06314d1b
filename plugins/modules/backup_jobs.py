#!/usr/bin/python
# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_jobs
short_description: Declare all backup jobs of a node
version_added: 0.1.0
description:
  - Declares a list of backup jobs in the node's C(jobs.cfg) in one task. Either all of them are written or, when one
    makes no sense, none.
  - Makes the systemd timers of the node agree with C(jobs.cfg), also those of jobs that are not in the list, for
    example after somebody has edited that file. See M(holdfast.virt.backup_job) about timers.
author:
  - holdfast.virt contributors (@holdfast-virt)
extends_documentation_fragment:
  - holdfast.virt.attributes
  - holdfast.virt.attributes.idempotent
  - holdfast.virt.location
  - holdfast.virt.timer
options:
  jobs:
    description:
      - The jobs. Each entry takes C(id), C(state) and what else M(holdfast.virt.backup_job) says about a job, and is
        checked in the same way.
    type: list
    elements: dict
    required: true
  exclusive:
    description:
      - Remove the backup jobs that are not in O(jobs). Sections of other types stay.
    type: bool
    default: false
  purge_options:
    description:
      - Remove options from jobs that their entries do not set, so that the list is the whole truth about them.
    type: bool
    default: true
seealso:
  - module: holdfast.virt.backup_job
  - module: holdfast.virt.backup_run
"""

EXAMPLES = r"""
- name: Declare all jobs of the node, and no others
  holdfast.virt.backup_jobs:
    jobs:
      - id: nightly
        schedule: "mon..fri 21:00"
        exclude: [scratch]
        storage: nas
        prune_backups: {keep_daily: 7, keep_weekly: 4}
        repeat_missed: true
      - id: gold
        schedule: "*/2:00"
        tags: [gold]
        storage: nas
    exclusive: true

- name: Show what the inventory would change
  holdfast.virt.backup_jobs:
    jobs: "{{ backup_jobs }}"
    exclusive: true
  check_mode: true
  diff: true
  register: __jobs

- name: Install the timers of jobs in a file that was edited by hand
  holdfast.virt.backup_jobs:
    jobs: []

- name: Keep the jobs as they are when the list makes no sense
  block:
    - name: Declare the jobs of the inventory
      holdfast.virt.backup_jobs:
        jobs: "{{ backup_jobs }}"
  rescue:
    - name: Show what is wrong with the list
      ansible.builtin.debug:
        msg: "{{ ansible_failed_result.msg }}"
"""

RETURN = r"""
added:
  description: Ids of jobs that are new.
  returned: success
  type: list
  elements: str
altered:
  description: Ids of jobs whose definition changes.
  returned: success
  type: list
  elements: str
removed:
  description: Ids of jobs that are removed.
  returned: success
  type: list
  elements: str
jobs:
  description: The jobs of the list that are declared.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Name of the job.
      type: str
    next_runs:
      description: The next runs of the job on the node; empty when it is disabled or will never run.
      type: list
      elements: dict
      contains:
        time:
          description: Instant in RFC 3339, UTC.
          type: str
        epoch:
          description: The same in seconds since 1970.
          type: int
    timer:
      description: Its timer, with the name of the C(unit), or V(null) and the C(reason).
      type: dict
      sample: {unit: holdfast-job-nightly.timer, reason: ""}
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
from ansible_collections.holdfast.virt.plugins.module_utils.support.specs import location_spec, timer_spec


def declare(module: AnsibleModule, host: Host) -> dict[str, Any]:
    """Bring the definitions to the asked state, or in check mode only plan to."""
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.definitions import plan_jobs
    from ansible_collections.holdfast.virt.plugins.module_utils.support.diff import jobs_difference
    from ansible_collections.holdfast.virt.plugins.module_utils.support.jobs import job_rows, make_so, wanted_jobs

    params = module.params
    wanted = wanted_jobs(params["jobs"])
    change = plan_jobs(host, wanted, purge=params["purge_options"], exclusive=params["exclusive"])
    timers = make_so(module, host, change, None)
    before, after = change.before or {}, change.after or {}
    return {
        "changed": change.changed or timers.changed,
        "added": [job for job in after if job not in before],
        "altered": [job for job in after if job in before and after[job] != before[job]],
        "removed": [job for job in before if job not in after],
        "jobs": job_rows(change, timers, wanted),
        "diff": jobs_difference(change, timers),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "jobs": {"type": "list", "elements": "dict", "required": True},
            "exclusive": {"type": "bool", "default": False},
            "purge_options": {"type": "bool", "default": True},
            **timer_spec(),
            **location_spec(),
        },
        supports_check_mode=True,
    )
    finish(module, lambda host: declare(module, host))


if __name__ == "__main__":
    main()
