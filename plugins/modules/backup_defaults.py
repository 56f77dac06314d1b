#!/usr/bin/python
# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_defaults
short_description: Set the defaults of a node for all backups
version_added: 0.1.0
description:
  - Sets options in the node's C(vzdump.conf), which hold wherever a call, a job or, for O(prune_backups), the storage
    says nothing else. Options that the task does not set stay as they are.
  - Comments, the order of the lines and lines that mean nothing stay as well.
  - Returns every option in effect and where it comes from.
author:
  - holdfast.virt contributors (@holdfast-virt)
extends_documentation_fragment:
  - holdfast.virt.attributes
  - holdfast.virt.attributes.idempotent
  - holdfast.virt.location
  - holdfast.virt.backup_options
  - holdfast.virt.retention
options:
  metrics_file:
    description:
      - File with metrics of all backups, for the textfile collector of Prometheus' node exporter. Its name ends in
        C(.prom). It is written after each run.
      - When unset, C(holdfast.prom) in C(/var/lib/prometheus/node-exporter) if that directory exists. V(none) means no
        metrics.
    type: str
  purge_options:
    description:
      - Remove options from the file that the task does not set.
    type: bool
    default: false
seealso:
  - module: holdfast.virt.backup_job
  - module: holdfast.virt.backup_run
"""

EXAMPLES = r"""
- name: Compress with two threads and spare the disks
  holdfast.virt.backup_defaults:
    storage: nas
    compress: zstd
    zstd: 2
    bwlimit: 200000
    ionice: 8

- name: Make these the only defaults, and look at it first
  holdfast.virt.backup_defaults:
    mode: suspend
    purge_options: true
  check_mode: true
  diff: true

- name: Read what is in effect without changing anything
  holdfast.virt.backup_defaults:
  register: defaults

- name: Show where the retention comes from
  ansible.builtin.debug:
    msg: "{{ defaults.effective.prune_backups }} from {{ defaults.sources.prune_backups }}"
"""

RETURN = r"""
defaults:
  description: What the file says after the task.
  returned: success
  type: dict
  sample: {compress: zstd, zstd: 2}
effective:
  description: Every option that a backup without options of its own uses.
  returned: success
  type: dict
  sample: {compress: zstd, mode: snapshot, storage: nas}
sources:
  description: Where each option comes from. C(storage), C(vzdump.conf) or C(built-in), or several of them.
  returned: success
  type: dict
  sample: {compress: vzdump.conf, mode: built-in, storage: vzdump.conf}
code:
  description: Kind of the failure.
  returned: failure
  type: str
  sample: usage
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
)


def declare(module: AnsibleModule, host: Host) -> dict[str, Any]:
    """Bring the defaults to the asked state, or in check mode only plan to."""
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.changes import apply_change
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.defaults import (
        explain_layers,
        plan_defaults,
    )
    from ansible_collections.holdfast.virt.plugins.module_utils.support.diff import definition_difference
    from ansible_collections.holdfast.virt.plugins.module_utils.support.params import backup_options

    wanted = {**backup_options(module.params), "metrics-file": module.params["metrics_file"]}
    change = plan_defaults(host, wanted, purge=module.params["purge_options"])
    defaults = change.after or {}
    effective, problems = explain_layers(host, {}, defaults)
    for text in change.warnings:
        module.warn(text)
    for text in problems:
        module.debug(text)
    if not module.check_mode:
        apply_change(host, change)
    return {
        "changed": change.changed,
        "defaults": defaults,
        "effective": dict(effective.values),
        "sources": dict(effective.sources),
        "diff": definition_difference(change),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "metrics_file": {"type": "str"},
            "purge_options": {"type": "bool", "default": False},
            **backup_spec(),
            **retention_spec(),
            **location_spec(),
        },
        supports_check_mode=True,
    )
    finish(module, lambda host: declare(module, host))


if __name__ == "__main__":
    main()
