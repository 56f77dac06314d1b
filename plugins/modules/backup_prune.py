#!/usr/bin/python
# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_prune
short_description: Apply retention to the archives of a storage now
version_added: 0.1.0
description:
  - Removes the archives that the retention does not keep, with their logs and notes.
  - Every archive is returned with its mark and the rule that keeps it.
  - In check mode nothing is removed.
author:
  - holdfast.virt contributors (@holdfast-virt)
extends_documentation_fragment:
  - holdfast.virt.attributes
  - holdfast.virt.attributes.idempotent
  - holdfast.virt.location
  - holdfast.virt.retention
options:
  storage:
    description:
      - Storage whose archives are pruned. Without O(prune_backups) its own retention is applied, and it is an
        error when it has none.
    type: str
    required: true
  vmid:
    description:
      - Consider the archives of this guest only, by numeric id.
    type: int
  kind:
    description:
      - Consider archives of this kind of guest only.
    type: str
    choices: [qemu, lxc]
  allow_empty:
    description:
      - Allow that a guest loses its last good archive. Retention always keeps the newest archive of a guest, but that
        one may be known to be damaged; then the task fails and removes nothing, unless this is V(true).
    type: bool
    default: false
seealso:
  - module: holdfast.virt.backup_archive
  - module: holdfast.virt.backup_storage
"""

EXAMPLES = r"""
- name: Apply the retention of the storage
  holdfast.virt.backup_prune:
    storage: nas

- name: Show which archives of one guest another retention would remove
  holdfast.virt.backup_prune:
    storage: nas
    vmid: 100
    prune_backups:
      keep_last: 2
      keep_weekly: 4
  check_mode: true
  diff: true

- name: Go on when an archive could not be removed
  block:
    - name: Apply the retention of the storage
      holdfast.virt.backup_prune:
        storage: nas
  rescue:
    - name: Show why
      ansible.builtin.debug:
        msg: "{{ ansible_failed_result.msg }}"
"""

RETURN = r"""
archives:
  description: Every archive considered.
  returned: success
  type: list
  elements: dict
  contains:
    archive:
      description: Volume id of the archive.
      type: str
      sample: nas:backup/vzdump-qemu-100-2026_03_10-02_00_00.vma.zst
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
    mark:
      description: V(keep), V(remove), V(protected) or V(renamed).
      type: str
    rule:
      description: Why, for people.
      type: str
      sample: keep-daily
    removed:
      description: Whether it was removed.
      type: bool
    error:
      description: Why it could not be removed.
      type: str
keep:
  description: The retention in effect.
  returned: success
  type: str
  sample: keep-daily=7,keep-last=3
freed:
  description: Bytes of the archives removed, or to be removed in check mode.
  returned: success
  type: int
removed:
  description: Volume ids of the archives that were removed, or would be in check mode.
  returned: success
  type: list
  elements: str
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

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.virt.plugins.module_utils.engine.system.host import Host
from ansible_collections.holdfast.virt.plugins.module_utils.support.module import finish
from ansible_collections.holdfast.virt.plugins.module_utils.support.specs import location_spec, retention_spec


def prune(module: AnsibleModule, host: Host) -> dict[str, Any]:
    """Apply the retention, or in check mode only mark."""
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.prune import apply_prune, plan_prune
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.requests import PruneRequest
    from ansible_collections.holdfast.virt.plugins.module_utils.support.diff import prune_difference
    from ansible_collections.holdfast.virt.plugins.module_utils.support.params import retention
    from ansible_collections.holdfast.virt.plugins.module_utils.support.report import ModuleReporter

    params = module.params
    request = PruneRequest(
        storage=params["storage"],
        keep=retention(params),
        vmid=[] if params["vmid"] is None else [params["vmid"]],
        kind=params["kind"],
        allow_empty=params["allow_empty"],
    )
    result = plan_prune(host, request)
    if result.changed and not module.check_mode:
        result = apply_prune(host, request, ModuleReporter(module))
    answer = result.to_dict()
    return {
        "changed": result.changed,
        "archives": answer["archives"],
        "removed": [archive.archive for archive in result.archives if archive.mark == "remove"],
        "keep": answer["keep"],
        "freed": answer["freed"],
        "diff": prune_difference(answer),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "storage": {"type": "str", "required": True},
            "vmid": {"type": "int"},
            "kind": {"type": "str", "choices": ["qemu", "lxc"]},
            "allow_empty": {"type": "bool", "default": False},
            **retention_spec(),
            **location_spec(),
        },
        supports_check_mode=True,
    )
    finish(module, lambda host: prune(module, host), partial="prune")


if __name__ == "__main__":
    main()
