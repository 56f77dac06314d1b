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
  - Only the definition is written, and for a share its password; the storage is made usable when it is first used.
    Storages of type V(nfs) and V(cifs) are mounted then.
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
      - With V(present) the storage is declared, with V(absent) its declaration is removed. Files on it are never
        touched. What holdfast mounted is unmounted; the task fails when it is in use.
    type: str
    choices: [present, absent]
    default: present
  type:
    description:
      - Kind of the storage. Cannot be changed later. V(nfs) is an export of an NFS server and V(cifs) a share of an SMB
        server. V(lvmthin) is a thin pool of LVM and V(zfspool) a ZFS pool or dataset. A thin pool holds volumes of
        containers and disks of machines, ZFS volumes of containers only.
      - When unset, V(dir) for a new storage and with O(purge_options=true), else what the storage is.
    type: str
    choices: [dir, nfs, cifs, lvmthin, zfspool]
  path:
    description:
      - Absolute directory of the storage. A storage of type V(dir) needs it when it is declared for the first time.
        Storages of type V(nfs) and V(cifs) are mounted there, if nothing is said on C(/mnt/pve/NAME). Cannot be changed
        later.
    type: path
  server:
    description:
      - Name or address of the server of a storage of type V(nfs) or V(cifs).
    type: str
  export:
    description:
      - What the server of a storage of type V(nfs) exports, for example V(/srv/backup).
    type: str
  share:
    description:
      - Name of the share of a storage of type V(cifs).
    type: str
  subdir:
    description:
      - Folder in the share to use instead of the whole, beginning with a slash.
    type: str
  options:
    description:
      - Options to mount a storage of type V(nfs) or V(cifs) with, as in fstab(5), for example V(vers=4.2).
      - Unless it holds guests, NFS is mounted with V(soft), V(timeo=100) and V(retrans=2), so that an access ends with
        an error after half a minute without an answer. CIFS is mounted with V(soft) and V(echo_interval=10). What is
        given here comes later and wins.
    type: list
    elements: str
  username:
    description:
      - User of the share. Without it the share is mounted as guest.
    type: str
  password:
    description:
      - Password of O(username). It is kept in a file of root's below C(priv/storage) in the configuration directory,
        and given to C(mount) by that file. Without this option the password that is there stays.
    type: str
  domain:
    description:
      - Domain of O(username).
    type: str
  smbversion:
    description:
      - Version of the SMB protocol. V(default) takes the highest that both sides know.
    type: str
    choices: [default, "2.0", "2.1", "3", "3.0", "3.11"]
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

- name: Declare an NFS export that receives backups
  holdfast.virt.backup_storage:
    name: nas
    type: nfs
    server: nas1.example.com
    export: /srv/backup
    options: [vers=4.2]
    content: [backup]

- name: Declare a share with a password from the vault
  holdfast.virt.backup_storage:
    name: filer
    type: cifs
    server: filer.example.com
    share: backup
    username: holdfast
    password: "{{ vault_filer_password }}"
    domain: EXAMPLE
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
    "type": {"type": "str", "choices": ["dir", "nfs", "cifs", "lvmthin", "zfspool"]},
    "path": {"type": "path"},
    "server": {"type": "str"},
    "export": {"type": "str"},
    "share": {"type": "str"},
    "subdir": {"type": "str"},
    "options": {"type": "list", "elements": "str"},
    "username": {"type": "str"},
    "domain": {"type": "str"},
    "smbversion": {"type": "str", "choices": ["default", "2.0", "2.1", "3", "3.0", "3.11"]},
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
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.store_mounts import (
        apply_storage,
        with_password,
    )
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.stores import plan_storage
    from ansible_collections.holdfast.virt.plugins.module_utils.support.diff import definition_difference
    from ansible_collections.holdfast.virt.plugins.module_utils.support.params import retention
    from ansible_collections.holdfast.virt.plugins.module_utils.support.report import ModuleReporter

    params = module.params
    wanted = None
    if params["state"] == "present":
        wanted = {**{name: params[name] for name in OPTIONS}, "prune_backups": retention(params)}
    change = plan_storage(host, params["name"], wanted, purge=params["purge_options"])
    change = with_password(host, params["name"], change, params["password"] if wanted is not None else None)
    if change.changed and not module.check_mode:
        apply_storage(host, params["name"], change, ModuleReporter(module))
    return {"changed": change.changed, "storage": change.after or {}, "diff": definition_difference(change)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "purge_options": {"type": "bool", "default": False},
            "password": {"type": "str", "no_log": True},
            **OPTIONS,
            **retention_spec(),
            **location_spec(),
        },
        supports_check_mode=True,
    )
    finish(module, lambda host: declare(module, host))


if __name__ == "__main__":
    main()
