#!/usr/bin/python
# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_info
short_description: Read storages, jobs, guests, archives and runs
version_added: 0.1.0
description:
  - Returns what is declared on the node and what backups there are. Reads only.
author:
  - holdfast.virt contributors (@holdfast-virt)
extends_documentation_fragment:
  - holdfast.virt.attributes.info
  - holdfast.virt.location
options:
  gather:
    description:
      - What to return.
    type: list
    elements: str
    choices: [storages, jobs, guests, archives, runs, coverage]
    default: [storages, jobs, guests, archives, runs, coverage]
  storage:
    description:
      - Return archives of this storage only.
    type: str
  vmid:
    description:
      - Return archives of this guest only, by numeric id.
    type: int
  max_age:
    description:
      - How old the newest good archive of a guest may be, for example V(26h) or V(7d). Guests with an older one are in
        RV(coverage.stale). When unset, only those without any.
    type: str
seealso:
  - module: holdfast.virt.backup_run
"""

EXAMPLES = r"""
- name: Read everything
  holdfast.virt.backup_info:
  register: backups

- name: Read the archives of one guest
  holdfast.virt.backup_info:
    gather: [archives]
    storage: nas
    vmid: 100
  register: backups

- name: Ask who is not taken care of
  holdfast.virt.backup_info:
    gather: [coverage]
    max_age: 26h
  register: backups

- name: Complain about guests without a job or without a fresh backup
  ansible.builtin.assert:
    that:
      - backups.coverage.uncovered == []
      - backups.coverage.stale == []

- name: Go on without the list when a storage is not mounted
  block:
    - name: Read the archives of a removable disk
      holdfast.virt.backup_info:
        gather: [archives]
        storage: usb
  rescue:
    - name: Show what is missing
      ansible.builtin.debug:
        msg: "{{ ansible_failed_result.msg }}"
"""

RETURN = r"""
storages:
  description: Declared storages.
  returned: when asked for
  type: list
  elements: dict
  contains:
    name:
      description: Name.
      type: str
    type:
      description: Kind.
      type: str
    path:
      description: Directory.
      type: str
    definition:
      description: The definition with the keys of C(storage.cfg).
      type: dict
    usable:
      description: Whether it can be used on this node now.
      type: bool
    error:
      description: Why not.
      type: str
    total:
      description: Bytes that it can hold.
      type: int
    free:
      description: Bytes that are free.
      type: int
    archives:
      description: Number of archives; V(null) when it does not hold any by definition.
      type: int
    warnings:
      description: What of the definition has no effect.
      type: list
      elements: str
jobs:
  description: Declared jobs.
  returned: when asked for
  type: list
  elements: dict
  contains:
    id:
      description: Name of the job.
      type: str
    enabled:
      description: Whether it runs.
      type: bool
    schedule:
      description: Calendar event.
      type: str
    definition:
      description: The definition with the keys of C(jobs.cfg).
      type: dict
    next_runs:
      description: The next runs, each with RV(jobs[].next_runs[].time) and RV(jobs[].next_runs[].epoch).
      type: list
      elements: dict
      contains:
        time:
          description: Instant in RFC 3339, UTC.
          type: str
        epoch:
          description: The same in seconds since 1970.
          type: int
    error:
      description: Why the definition cannot be used.
      type: str
    warnings:
      description: What of the definition has no effect.
      type: list
      elements: str
guests:
  description: Guests of the node.
  returned: when asked for
  type: list
  elements: dict
  contains:
    vmid:
      description: Id.
      type: int
    name:
      description: Name.
      type: str
    kind:
      description: V(qemu), V(adopted), V(libvirt) or V(lxc).
      type: str
    status:
      description: State, for example V(running) or V(stopped).
      type: str
    error:
      description: Why the state cannot be told.
      type: str
    tags:
      description: Tags.
      type: list
      elements: str
    pool:
      description: Resource pool.
      type: str
    template:
      description: Whether it is a template.
      type: bool
    config_path:
      description: File that defines it.
      type: str
    archives:
      description: Number of archives on all storages.
      type: int
    newest:
      description: The newest good archive; V(null) when there is none.
      type: dict
    newest_age:
      description: Age of that archive in seconds.
      type: int
    jobs:
      description: Enabled jobs that back it up.
      type: list
      elements: str
coverage:
  description: Who is not taken care of, and what runs next. Templates are left out.
  returned: when asked for
  type: dict
  contains:
    max_age:
      description: The option O(max_age) in seconds.
      type: int
    uncovered:
      description: Guests that no enabled job backs up, each with C(vmid), C(name), C(kind) and C(newest_age).
      type: list
      elements: dict
    stale:
      description: Guests whose newest good archive is older than O(max_age), or that have none, with the same keys.
      type: list
      elements: dict
    next_runs:
      description: The next run of every enabled job, the earliest first, each with C(job), C(time) and C(epoch).
      type: list
      elements: dict
      sample: [{job: nightly, time: "2026-03-09T20:00:00Z", epoch: 1773086400}]
archives:
  description: Archives.
  returned: when asked for
  type: list
  elements: dict
  contains:
    volid:
      description: Volume id.
      type: str
      sample: nas:backup/vzdump-lxc-105-2026_03_10-02_00_00.tar.zst
    path:
      description: File.
      type: str
    storage:
      description: Storage.
      type: str
    kind:
      description: Kind of the guest.
      type: str
    vmid:
      description: Id of the guest.
      type: int
    time:
      description: Time of the backup in RFC 3339, UTC.
      type: str
    time_epoch:
      description: The same in seconds since 1970.
      type: int
    size:
      description: Size in bytes.
      type: int
    format:
      description: Format and compression.
      type: str
    notes:
      description: Notes.
      type: str
    protected:
      description: Whether it is protected.
      type: bool
    log:
      description: File of the backup's log.
      type: str
    verified:
      description: What M(holdfast.virt.backup_verify) last found, with damage before everything else; V(null) when it
        never looked.
      type: dict
      contains:
        state:
          description: V(ok), V(unknown) or V(damaged).
          type: str
        level:
          description: V(index) or V(data).
          type: str
        time:
          description: When, in RFC 3339, UTC.
          type: str
        time_epoch:
          description: The same in seconds since 1970.
          type: int
        causes:
          description: What is wrong.
          type: list
          elements: str
runs:
  description: The last runs, newest first.
  returned: when asked for
  type: list
  elements: dict
  contains:
    id:
      description: Id.
      type: str
    kind:
      description: V(backup), V(restore) or V(verify).
      type: str
    state:
      description: V(running), V(finished), V(failed), V(interrupted) or V(aborted).
      type: str
    started:
      description: Begin in RFC 3339, UTC.
      type: str
    started_epoch:
      description: The same in seconds since 1970.
      type: int
    finished:
      description: End in RFC 3339, UTC.
      type: str
    finished_epoch:
      description: The same in seconds since 1970.
      type: int
    guests:
      description: Number of guests.
      type: int
    summary:
      description: Outcome for people.
      type: str
    result:
      description: The whole result.
      type: dict
code:
  description: Kind of the failure.
  returned: failure
  type: str
  sample: storage
hint:
  description: What can be done about the failure; may be empty.
  returned: failure
  type: str
"""

from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.virt.plugins.module_utils.engine.system.host import Host
from ansible_collections.holdfast.virt.plugins.module_utils.support.module import finish
from ansible_collections.holdfast.virt.plugins.module_utils.support.specs import location_spec

SUBJECTS = ["storages", "jobs", "guests", "archives", "runs", "coverage"]


def gather(module: AnsibleModule, host: Host) -> dict[str, Any]:
    """Read what is asked for."""
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks import info
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.archives import list_archives
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.requests import ArchiveFilter

    wanted = ArchiveFilter(module.params["storage"], module.params["vmid"])
    readers: dict[str, Callable[[], Any]] = {
        "storages": lambda: info.storages_info(host, module.warn),
        "jobs": lambda: info.jobs_info(host, module.warn),
        "guests": lambda: info.guests_info(host, module.warn),
        "archives": lambda: [entry.to_dict() for entry in list_archives(host, wanted)],
        "runs": lambda: info.runs_info(host, module.warn),
        "coverage": lambda: info.coverage_info(host, module.warn, module.params["max_age"]),
    }
    return {"changed": False, **{name: readers[name]() for name in module.params["gather"]}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "gather": {"type": "list", "elements": "str", "choices": SUBJECTS, "default": SUBJECTS},
            "storage": {"type": "str"},
            "vmid": {"type": "int"},
            "max_age": {"type": "str"},
            **location_spec(),
        },
        supports_check_mode=True,
    )
    finish(module, lambda host: gather(module, host), touches_guests=True)


if __name__ == "__main__":
    main()
