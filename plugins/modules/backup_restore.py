#!/usr/bin/python
# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_restore
short_description: Restore a guest from an archive
version_added: 0.1.0
description:
  - Creates a guest from an archive made by this collection or by Proxmox VE.
  - A guest that exists is left alone unless O(force=true), so that the task can be repeated.
  - With O(force=true) the old guest stays until the new one is complete.
author:
  - holdfast.virt contributors (@holdfast-virt)
requirements:
  - python3-libnbd and the programs of qemu-utils for virtual machines
  - zstandard for archives compressed by zstd
  - lxc for containers
extends_documentation_fragment:
  - holdfast.virt.attributes
  - holdfast.virt.location
attributes:
  idempotent:
    description: When run twice in a row outside C(check_mode) with the same arguments, the second run changes nothing.
    support: partial
    details: With O(force=true) every run restores.
options:
  archive:
    description:
      - Archive to restore, as a volume id like V(nas:backup/vzdump-lxc-105-2026_03_10-02_00_00.tar.zst), as an absolute
        path, or as V(nas:latest/105) for the newest archive of a guest, by id or name.
    type: str
    required: true
  vmid:
    description:
      - Numeric id of the guest to create.
    type: int
    required: true
  storage:
    description:
      - Storage for the volumes of the guest. Otherwise each goes to the storage that it came from if the node has it,
        and to V(local) if not.
      - For libvirt domains also the path of a directory; otherwise their disks go to libvirt's own directories.
    type: str
  kind:
    description:
      - What a virtual machine becomes, V(qemu) for one that this collection manages, or V(libvirt) for a domain.
        Otherwise what the replaced guest is, or, without one, what the archive was made from, as far as the node uses
        libvirt.
    type: str
    choices:
      - qemu
      - libvirt
  volumes:
    description:
      - Places single volumes differently, by their keys in the archived configuration (C(scsi0), C(rootfs), C(mp0)).
        Each value is a dictionary with any of V(storage), V(format) (V(raw) or V(qcow2) for disks of machines, V(raw)
        or V(subvol) for volumes of containers) and V(size) (for example V(8G), for containers only).
      - Raw images and volumes of LVM of containers need a size; it is taken from the archived configuration if that has
        one.
      - The storage of a machine's disk may be the path of a block device, which must be large enough and not in use. It
        is overwritten in place, so that a restore that fails leaves it in pieces.
      - The keys of a libvirt domain's disks are its targets (C(vda)), and their storage may be the path of a directory.
    type: dict
    default: {}
  force:
    description:
      - Replace the guest when it exists. It must be stopped.
    type: bool
    default: false
  unique:
    description:
      - Give the network cards new hardware addresses and the machine a new identity, so that it can live beside the
        original.
    type: bool
    default: false
  start:
    description:
      - Start the guest after the restore.
    type: bool
    default: false
  bwlimit:
    description:
      - Limit for reading the archive, in KiB per second. V(0) means none.
    type: int
  overrides:
    description:
      - Keys of the guest's configuration to set differently, for example C(name) or C(memory). V(null) removes a key.
        Volumes cannot be overridden.
    type: dict
    default: {}
  trust_config:
    description:
      - Keep settings of the archived configuration that reach the host, such as C(args), device nodes and bind mounts.
        Only for archives from a source that you trust.
    type: bool
    default: false
  unprivileged:
    description:
      - Whether a restored container is unprivileged. Otherwise as archived.
    type: bool
  ignore_unpack_errors:
    description:
      - Keep what can be unpacked of a container when files cannot be created, or when the archive is damaged. Members
        that could reach outside the container are refused all the same.
    type: bool
    default: false
seealso:
  - module: holdfast.virt.backup_run
  - module: holdfast.virt.backup_info
"""

EXAMPLES = r"""
- name: Restore the newest backup of guest 100 beside the original
  holdfast.virt.backup_restore:
    archive: nas:latest/100
    vmid: 900
    unique: true

- name: Bring a lost container back and start it
  holdfast.virt.backup_restore:
    archive: nas:backup/vzdump-lxc-105-2026_03_10-02_00_00.tar.zst
    vmid: 105
    start: true

- name: Restore a container with its root on LVM-thin and its data on btrfs, as an unprivileged one
  holdfast.virt.backup_restore:
    archive: nas:latest/105
    vmid: 905
    storage: thin
    volumes:
      rootfs: {size: 16G}
      mp0: {storage: tank, format: subvol}
    unprivileged: true

- name: Restore a machine with one disk on a block device and the others on LVM-thin
  holdfast.virt.backup_restore:
    archive: nas:latest/100
    vmid: 900
    storage: thin
    volumes:
      virtio1: {storage: /dev/disk/by-id/nvme-data}

- name: Show what a restore would create
  holdfast.virt.backup_restore:
    archive: nas:latest/100
    vmid: 900
    storage: local
    overrides:
      name: web1-test
  check_mode: true
  diff: true

- name: Try the archive before the newest when the newest is damaged
  block:
    - name: Restore the newest archive
      holdfast.virt.backup_restore:
        archive: nas:latest/100
        vmid: 100
        force: true
  rescue:
    - name: Restore the archive of the day before
      holdfast.virt.backup_restore:
        archive: "{{ older_archive }}"
        vmid: 100
        force: true
      when: ansible_failed_result.code == 'integrity'
"""

RETURN = r"""
restore:
  description: What was restored, or would be in check mode.
  returned: success
  type: dict
  contains:
    archive:
      description: Volume id or path of the archive.
      type: str
    vmid:
      description: Id of the guest.
      type: int
    kind:
      description: V(qemu), V(libvirt) or V(lxc).
      type: str
    name:
      description: Name of the guest.
      type: str
    state:
      description: V(planned), V(restored), or V(exists) when there was nothing to do.
      type: str
    volumes:
      description: Volumes of the guest.
      type: list
      elements: dict
      contains:
        key:
          description: Key in the guest's configuration.
          type: str
          sample: scsi0
        storage:
          description: Storage of the volume.
          type: str
        format:
          description: Format of the volume.
          type: str
        size:
          description: Size in bytes.
          type: int
        allocated:
          description: Bytes that it takes on its storage after the restore; V(null) when that cannot be told.
          type: int
        volid:
          description: Volume id, once it is allocated.
          type: str
        source:
          description: Name of the disk in the archive, or of a container's volume its mount point.
          type: str
          sample: drive-scsi0
    changed:
      description: Whether anything was restored, or would be.
      type: bool
    replaces:
      description: Whether a guest of this id is replaced.
      type: bool
    freed:
      description: Volume ids of the replaced guest that were removed.
      type: list
      elements: str
    config:
      description: Configuration of the guest.
      type: str
    config_path:
      description: File of that configuration; of a libvirt domain, the connection and the name.
      type: str
    started:
      description: Whether the guest was started.
      type: bool
    dropped:
      description: Archived settings that reach the host and were left out.
      type: list
      elements: str
    warnings:
      description: What deserves a look although the restore succeeded.
      type: list
      elements: str
    size:
      description: Size of the guest's volumes in bytes.
      type: int
    archive_size:
      description: Size of the archive in bytes.
      type: int
    duration:
      description: Seconds that the restore took.
      type: float
    speed:
      description: Bytes of guest data per second.
      type: int
code:
  description: Kind of the failure.
  returned: failure
  type: str
  sample: integrity
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

OPTIONS: dict[str, Any] = {
    "archive": {"type": "str", "required": True},
    "vmid": {"type": "int", "required": True},
    "storage": {"type": "str"},
    "kind": {"type": "str", "choices": ["qemu", "libvirt"]},
    "volumes": {"type": "dict", "default": {}},
    "force": {"type": "bool", "default": False},
    "unique": {"type": "bool", "default": False},
    "start": {"type": "bool", "default": False},
    "bwlimit": {"type": "int"},
    "overrides": {"type": "dict", "default": {}},
    "trust_config": {"type": "bool", "default": False},
    "unprivileged": {"type": "bool"},
    "ignore_unpack_errors": {"type": "bool", "default": False},
}


def restore(module: AnsibleModule, host: Host) -> dict[str, Any]:
    """Restore, or in check mode only plan to."""
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.requests import RestoreRequest
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.restore import plan_restore, run_restore
    from ansible_collections.holdfast.virt.plugins.module_utils.support.diff import restore_difference
    from ansible_collections.holdfast.virt.plugins.module_utils.support.report import ModuleReporter

    request = RestoreRequest(**{name: module.params[name] for name in OPTIONS})
    result = plan_restore(host, request)
    if result.changed and not module.check_mode:
        result = run_restore(host, request, ModuleReporter(module))
    else:
        for warning in result.warnings:
            module.warn(warning)
    answer = result.to_dict()
    return {"changed": result.changed, "restore": answer, "diff": restore_difference(answer)}


def main() -> None:
    module = AnsibleModule(argument_spec={**OPTIONS, **location_spec()}, supports_check_mode=True)
    finish(module, lambda host: restore(module, host), partial="restore", touches_guests=True)


if __name__ == "__main__":
    main()
