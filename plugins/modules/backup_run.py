#!/usr/bin/python
# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_run
short_description: Back up guests now
version_added: 0.1.0
description:
  - Backs up the selected guests of the node, one after the other, and applies the retention to each.
  - Needs O(job) or a selection of guests, and either O(max_age) or O(force=true).
  - With O(max_age) the task is idempotent. Guests with a good backup younger than that are left alone.
  - A guest that fails does not keep the others from being backed up; the task fails at the end and returns every
    outcome.
  - In check mode nothing is touched, and the guests and disks that would be backed up are returned.
author:
  - holdfast.virt contributors (@holdfast-virt)
requirements:
  - python3-libnbd, qemu.qmp and the programs of qemu-utils for virtual machines
  - zstandard for O(compress=zstd)
  - lxc and rsync for containers
extends_documentation_fragment:
  - holdfast.virt.attributes
  - holdfast.virt.location
  - holdfast.virt.selection
  - holdfast.virt.backup_options
  - holdfast.virt.retention
attributes:
  idempotent:
    description: When run twice in a row outside C(check_mode) with the same arguments, the second run changes nothing.
    support: partial
    details: With O(max_age). With O(force=true) every run makes new archives.
options:
  job:
    description:
      - Take selection and options from this job of C(jobs.cfg). Options of the task come before those of the job.
    type: str
  max_age:
    description:
      - Leave guests alone whose newest good backup on the storage is younger than this, for example V(20h), V(90m) or
        V(7d).
    type: str
  force:
    description:
      - Back up the selected guests whatever backups there are.
    type: bool
    default: false
  ignore_guest_errors:
    description:
      - Do not fail the task when the backup of a guest fails; look at RV(run.guests[].status) instead.
    type: bool
    default: false
seealso:
  - module: holdfast.virt.backup_job
  - module: holdfast.virt.backup_restore
  - module: holdfast.virt.backup_prune
"""

EXAMPLES = r"""
- name: Make sure that every guest has a backup of the last 20 hours
  holdfast.virt.backup_run:
    all: true
    storage: nas
    max_age: 20h

- name: Back up two guests by name now, compressed
  holdfast.virt.backup_run:
    vmid: [web1, db1]
    storage: nas
    compress: zstd
    zstd: 2
    notes_template: "before the upgrade of {guestname}"
    protected: true
    force: true

- name: List the guests and disks that a job would back up
  holdfast.virt.backup_run:
    job: nightly
    max_age: 20h
  check_mode: true
  diff: true
  register: __planned

- name: Act on the guests that failed
  block:
    - name: Back up what the nightly job selects
      holdfast.virt.backup_run:
        job: nightly
        force: true
  rescue:
    - name: Name the guests without a backup
      ansible.builtin.debug:
        msg: "{{ ansible_failed_result.run.guests | rejectattr('status', 'equalto', 'ok') | map(attribute='vmid') }}"
"""

RETURN = r"""
run:
  description: The run. In check mode, and when no guest needs a backup, only the plan for it.
  returned: always
  type: dict
  contains:
    id:
      description: Id of the run. Not in a plan.
      type: str
    node:
      description: Name of the node.
      type: str
    storage:
      description: Storage of the archives.
      type: str
    job:
      description: Job that gave selection and options.
      type: str
    state:
      description: V(finished), V(failed), V(interrupted) or V(aborted). Not in a plan.
      type: str
    ok:
      description: Whether no guest failed. Not in a plan.
      type: bool
    changed:
      description: Whether any guest was backed up, or would be.
      type: bool
    started:
      description: Begin of the run in RFC 3339, UTC. Not in a plan.
      type: str
    started_epoch:
      description: Begin of the run in seconds since 1970. Not in a plan.
      type: int
    finished:
      description: End of the run in RFC 3339, UTC. Not in a plan.
      type: str
    finished_epoch:
      description: End of the run in seconds since 1970. Not in a plan.
      type: int
    duration:
      description: Seconds that the run took. Not in a plan.
      type: float
    size:
      description: Bytes of guest data backed up. Not in a plan.
      type: int
    archive_size:
      description: Bytes of the archives made. Not in a plan.
      type: int
    counts:
      description: Number of guests by status. Not in a plan.
      type: dict
      sample: {ok: 2, failed: 0, skipped: 0, fresh: 1}
    options:
      description: Options in effect.
      type: dict
    sources:
      description: Where each option comes from, for example V(job) or V(vzdump.conf). In a plan only.
      type: dict
    external:
      description: Ids of selected guests that are on other nodes.
      type: list
      elements: int
    log:
      description: File on the node with what the run said. Not in check mode; empty when no guest was backed up.
      type: str
    warnings:
      description: What deserves a look although the run went on.
      type: list
      elements: str
    error:
      description: Message, remedy and code, when the run failed as a whole. Not in a plan.
      type: dict
    guests:
      description: Outcome of every guest.
      type: list
      elements: dict
      contains:
        vmid:
          description: Id of the guest.
          type: int
        name:
          description: Name of the guest.
          type: str
        kind:
          description: V(qemu), V(adopted), V(libvirt) or V(lxc).
          type: str
        action:
          description: V(backup), V(fresh), or V(missing) when there is no such guest and the run would fail. In a plan
            only.
          type: str
        reason:
          description: Why a guest is left alone. In a plan only.
          type: str
        status:
          description: V(ok), V(failed), V(skipped) or V(fresh). Not in a plan.
          type: str
        mode:
          description: Mode in effect.
          type: str
        requested_mode:
          description: Mode asked for.
          type: str
        archive:
          description: Volume id of the archive made, or of the fresh one found.
          type: str
        path:
          description: File of the archive.
          type: str
        size:
          description: Bytes of the guest's volumes.
          type: int
        archive_size:
          description: Bytes of the archive.
          type: int
        started:
          description: Begin of the backup in RFC 3339, UTC. Not in a plan.
          type: str
        started_epoch:
          description: Begin of the backup in seconds since 1970. Not in a plan.
          type: int
        duration:
          description: Seconds that the backup took.
          type: float
        progress:
          description:
            - Bytes C(done) of C(total), how many of them were C(zero), and how many C(written) to the archive. Not in a
              plan.
          type: dict
          sample: {done: 369098752, total: 369098752, zero: 307965952, written: 40003987}
        speed:
          description: Bytes of guest data per second.
          type: int
        timings:
          description: Seconds that the guest was frozen, paused or down; V(null) for what did not happen.
          type: dict
          sample: {freeze_seconds: 0.04, pause_seconds: null, downtime_seconds: null, guest_frozen: true}
        disks:
          description: Volumes of the guest.
          type: list
          elements: dict
        digests:
          description: SHA-256 of the content of each disk by its key, or of a container's C(tar); noted beside the
            archive, too, where M(holdfast.virt.backup_verify) compares it.
          type: dict
        pruned:
          description: Volume ids that the retention removed.
          type: list
          elements: str
        warnings:
          description: What deserves a look.
          type: list
          elements: str
        error:
          description: Message, remedy and code of a failure.
          type: dict
        log:
          description: Path of the guest's log.
          type: str
code:
  description: Kind of the failure.
  returned: failure
  type: str
  sample: guest
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
    backup_spec,
    location_spec,
    retention_spec,
    selection_conflicts,
    selection_spec,
)


def backup(module: AnsibleModule, host: Host) -> dict[str, Any]:
    """Back up, or in check mode only plan to."""
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.backup import plan_backup, run_backup
    from ansible_collections.holdfast.virt.plugins.module_utils.support.diff import backup_difference
    from ansible_collections.holdfast.virt.plugins.module_utils.support.report import ModuleReporter
    from ansible_collections.holdfast.virt.plugins.module_utils.support.requests import backup_request

    request = backup_request(module.params)
    plan = plan_backup(host, request)
    diff = backup_difference(plan.to_dict())
    if module.check_mode or not plan.changed:
        for warning in [*plan.warnings, *(text for guest in plan.guests for text in guest.warnings)]:
            module.warn(warning)
        return {"changed": plan.changed, "run": plan.to_dict(), "diff": diff}
    result = run_backup(host, request, ModuleReporter(module))
    failed = [guest for guest in result.guests if guest.status not in ("ok", "fresh")]
    answer = {"changed": result.changed, "run": result.to_dict(), "diff": diff}
    if failed and not module.params["ignore_guest_errors"]:
        reasons = "; ".join(
            f"{guest.vmid} ({guest.name}): {(guest.error or {}).get('message', 'not tried')}" for guest in failed
        )
        module.fail_json(
            msg=f"the backup of {len(failed)} of {len(result.guests)} guests failed: {reasons}",
            code="guest",
            hint=(failed[0].error or {}).get("hint", ""),
            **answer,
        )
    return answer


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "job": {"type": "str"},
            "max_age": {"type": "str"},
            "force": {"type": "bool", "default": False},
            "ignore_guest_errors": {"type": "bool", "default": False},
            **selection_spec(),
            **backup_spec(),
            **retention_spec(),
            **location_spec(),
        },
        mutually_exclusive=selection_conflicts(),
        required_one_of=[("job", "vmid", "all", "exclude", "pool", "tags", "query")],
        supports_check_mode=True,
    )
    if not (module.params["force"] or module.params["max_age"]):
        module.fail_json(msg="say when to back up: set max_age (for example 20h), or force=true for a backup now")
    finish(module, lambda host: backup(module, host), partial="run", touches_guests=True)


if __name__ == "__main__":
    main()
