#!/usr/bin/python
# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_archive
short_description: Set notes and protection of an archive, or remove it
version_added: 0.1.0
description:
  - Changes what belongs to one archive of a storage.
author:
  - holdfast.virt contributors (@holdfast-virt)
extends_documentation_fragment:
  - holdfast.virt.attributes
  - holdfast.virt.attributes.idempotent
  - holdfast.virt.location
options:
  archive:
    description:
      - Volume id of the archive, for example V(nas:backup/vzdump-lxc-105-2026_03_10-02_00_00.tar.zst).
    type: str
    required: true
  state:
    description:
      - With V(present) the archive must exist. With V(absent) it is removed with its log and notes; a protected archive
        is refused.
    type: str
    choices: [present, absent]
    default: present
  notes:
    description:
      - Text noted beside the archive. An empty text removes the notes.
    type: str
  protected:
    description:
      - Protect the archive from removal.
    type: bool
seealso:
  - module: holdfast.virt.backup_prune
  - module: holdfast.virt.backup_info
"""

EXAMPLES = r"""
- name: Keep an archive and say why
  holdfast.virt.backup_archive:
    archive: nas:backup/vzdump-qemu-100-2026_03_10-02_00_00.vma.zst
    protected: true
    notes: Last state before the migration

- name: Remove an archive that is no longer needed
  holdfast.virt.backup_archive:
    archive: nas:backup/vzdump-lxc-105-2026_03_10-02_00_00.tar.zst
    state: absent

- name: Show what unprotecting would change
  holdfast.virt.backup_archive:
    archive: nas:backup/vzdump-qemu-100-2026_03_10-02_00_00.vma.zst
    protected: false
  check_mode: true
  diff: true

- name: Leave protected archives alone without failing
  block:
    - name: Remove the archive
      holdfast.virt.backup_archive:
        archive: "{{ old_archive }}"
        state: absent
  rescue:
    - name: Show why it stays
      ansible.builtin.debug:
        msg: "{{ ansible_failed_result.msg }}"
"""

RETURN = r"""
archive:
  description: The archive after the task; empty when it is absent.
  returned: success
  type: dict
  sample:
    volid: nas:backup/vzdump-qemu-100-2026_03_10-02_00_00.vma.zst
    notes: Last state before the migration
    protected: true
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
from ansible_collections.holdfast.virt.plugins.module_utils.support.specs import location_spec


def change(module: AnsibleModule, host: Host) -> dict[str, Any]:
    """Change or remove the archive, or in check mode only plan to."""
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.archives import apply_archive, plan_archive
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.requests import ArchiveRequest
    from ansible_collections.holdfast.virt.plugins.module_utils.support.diff import archive_difference
    from ansible_collections.holdfast.virt.plugins.module_utils.support.report import ModuleReporter

    params = module.params
    request = ArchiveRequest(
        archive=params["archive"],
        notes=params["notes"],
        protected=params["protected"],
        absent=params["state"] == "absent",
    )
    before, after = plan_archive(host, request)
    if before != after and not module.check_mode:
        before, after = apply_archive(host, request, ModuleReporter(module))
    return {"changed": before != after, "archive": after or {}, "diff": archive_difference(before, after)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "notes": {"type": "str"},
            "protected": {"type": "bool"},
            **location_spec(),
        },
        supports_check_mode=True,
    )
    finish(module, lambda host: change(module, host))


if __name__ == "__main__":
    main()
