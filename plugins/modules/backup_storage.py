#!/usr/bin/python
# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_storage
short_description: Declare a storage for guests and archives
version_added: 0.1.0
description:
  - Declares a storage in the node's C(storage.cfg), in the format of Proxmox VE.
  - Sections of other types and options that the module does not know stay as they are.
  - Only the definition is written; the storage is made usable when it is first used.
author:
  - holdfast.virt contributors (@holdfast-virt)
extends_documentation_fragment:
  - holdfast.virt.attributes
  - holdfast.virt.attributes.idempotent
  - holdfast.virt.location
  - holdfast.virt.retention
options:
  name:
    description:
      - Name of the storage. It begins with a letter, ends with a letter or digit, and holds letters, digits, C(-), C(_)
        and C(.).
    type: str
    required: true
  state:
    description:
      - With V(present) the storage is declared, with V(absent) its declaration is removed. Files are never touched.
    type: str
    choices: [present, absent]
    default: present
  type:
    description:
      - Kind of the storage. Cannot be changed later. V(lvmthin) is a thin pool of LVM and V(zfspool) a ZFS pool or
        dataset. A thin pool holds volumes of containers and disks of machines, ZFS volumes of containers only.
    type: str
    choices: [dir, lvmthin, zfspool]
    default: dir
  path:
    description:
      - Absolute directory of the storage. Needed when the storage is declared for the first time; cannot be changed
        later.
    type: path
  vgname:
    description:
      - Volume group of a storage of type V(lvmthin).
    type: str
  thinpool:
    description:
      - Thin pool of a storage of type V(lvmthin).
    type: str
  pool:
    description:
      - Pool or dataset of a storage of type V(zfspool).
    type: str
  mountpoint:
    description:
      - Where the dataset of a storage of type V(zfspool) is mounted, if that is not its name below the root directory.
    type: path
  content:
    description:
      - What the storage may hold. A storage of type V(dir) without this option holds V(images) and V(rootdir), so a
        target for archives must say V(backup).
    type: list
    elements: str
    choices: [backup, images, rootdir, iso, vztmpl, snippets, import, none]
  nodes:
    description:
      - Names of the nodes that have the storage. An empty list means all.
    type: list
    elements: str
  disable:
    description:
      - Keep the definition, but let nothing use the storage.
    type: bool
  shared:
    description:
      - All nodes see the same content.
    type: bool
  is_mountpoint:
    description:
      - With V(true) the storage is usable only while something is mounted on O(path). A path means that something must
        be mounted there. This keeps a backup from filling the root file system when a disk is missing.
    type: str
  create_base_path:
    description:
      - Create O(path) when it does not exist. Default V(true).
    type: bool
  create_subdirs:
    description:
      - Create the content directories when they do not exist. Default V(true).
    type: bool
  max_protected_backups:
    description:
      - How many archives of one guest may be protected. V(-1) means no limit.
    type: int
  purge_options:
    description:
      - Remove options from the definition that the task does not set. Otherwise they stay as they are.
    type: bool
    default: false
seealso:
  - module: holdfast.virt.backup_job
  - module: holdfast.virt.backup_info
"""

EXAMPLES = r"""
- name: Declare a directory that receives backups
  holdfast.virt.backup_storage:
    name: nas
    path: /mnt/nas
    content: [backup]

- name: Declare a thin pool for containers
  holdfast.virt.backup_storage:
    name: thin
    type: lvmthin
    vgname: vg0
    thinpool: data
    content: [rootdir]

- name: Declare a disk that may be missing, with retention
  holdfast.virt.backup_storage:
    name: usb
    path: /mnt/usb
    content: [backup]
    is_mountpoint: true
    prune_backups:
      keep_last: 3
      keep_daily: 7
      keep_weekly: 4

- name: Show what would change
  holdfast.virt.backup_storage:
    name: nas
    max_protected_backups: 5
  check_mode: true
  diff: true

- name: Tell the operator when a declaration is refused
  block:
    - name: Declare the storage of the inventory
      holdfast.virt.backup_storage:
        name: "{{ storage_name }}"
        path: "{{ storage_path }}"
        content: [backup]
  rescue:
    - name: Show the remedy
      ansible.builtin.debug:
        msg: "{{ ansible_failed_result.msg }}"
"""

RETURN = r"""
storage:
  description: The definition after the task, with the keys of C(storage.cfg). Empty when the storage is absent.
  returned: success
  type: dict
  sample: {name: nas, type: dir, path: /mnt/nas, content: [backup], prune_backups: {keep-last: 3}}
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
    CONTENTS,
    location_spec,
    retention_spec,
)

OPTIONS: dict[str, Any] = {
    "type": {"type": "str", "choices": ["dir", "lvmthin", "zfspool"], "default": "dir"},
    "path": {"type": "path"},
    "vgname": {"type": "str"},
    "thinpool": {"type": "str"},
    "pool": {"type": "str"},
    "mountpoint": {"type": "path"},
    "content": {"type": "list", "elements": "str", "choices": CONTENTS},
    "nodes": {"type": "list", "elements": "str"},
    "disable": {"type": "bool"},
    "shared": {"type": "bool"},
    "is_mountpoint": {"type": "str"},
    "create_base_path": {"type": "bool"},
    "create_subdirs": {"type": "bool"},
    "max_protected_backups": {"type": "int"},
}


def declare(module: AnsibleModule, host: Host) -> dict[str, Any]:
    """Bring the definition to the asked state, or in check mode only plan to."""
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.changes import apply_change
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.stores import plan_storage
    from ansible_collections.holdfast.virt.plugins.module_utils.support.diff import definition_difference
    from ansible_collections.holdfast.virt.plugins.module_utils.support.params import retention

    params = module.params
    wanted = None
    if params["state"] == "present":
        wanted = {**{name: params[name] for name in OPTIONS}, "prune_backups": retention(params)}
    change = plan_storage(host, params["name"], wanted, purge=params["purge_options"])
    if change.changed and not module.check_mode:
        apply_change(host, change)
    return {"changed": change.changed, "storage": change.after or {}, "diff": definition_difference(change)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "purge_options": {"type": "bool", "default": False},
            **OPTIONS,
            **retention_spec(),
            **location_spec(),
        },
        supports_check_mode=True,
    )
    finish(module, lambda host: declare(module, host))


if __name__ == "__main__":
    main()
