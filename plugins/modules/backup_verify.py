#!/usr/bin/python
# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_verify
short_description: Look whether archives are what was written
version_added: 0.1.0
description:
  - Reads archives without restoring them, and compares them with what was noted when they were written.
  - Archives are never changed. What is found is noted beside each, where M(holdfast.virt.backup_info) lists it; an
    archive that is known to be damaged is no fresh backup any more, and retention does not take it for a good one.
  - When an archive is damaged or cannot be read, the others are verified all the same, and the task fails then.
  - In check mode nothing is read; the archives that would be verified are returned.
author:
  - holdfast.virt contributors (@holdfast-virt)
requirements:
  - zstandard for archives compressed by zstd
extends_documentation_fragment:
  - holdfast.virt.attributes
  - holdfast.virt.location
attributes:
  idempotent:
    description: When run twice in a row outside C(check_mode) with the same arguments, the second run changes nothing.
    support: partial
    details: Without O(max_age) every run verifies again.
options:
  archive:
    description:
      - Archives to verify, each as a volume id like V(nas:backup/vzdump-lxc-105-2026_03_10-02_00_00.tar.zst), as an
        absolute path, or as V(nas:latest/105) for the newest archive of a guest, by id or name.
    type: list
    elements: str
  storage:
    description:
      - Verify the archives of this storage. Otherwise those of all storages of the node.
    type: str
  vmid:
    description:
      - Verify the archives of these guests only, by numeric id.
    type: list
    elements: int
  newest:
    description:
      - Verify only the newest archive that each storage has of each guest.
    type: bool
  level:
    description:
      - With V(index) the structure is checked, that is the archive's header, configuration, indexes and size. Archives
        that are not seekable, because they were made elsewhere or compressed with gzip or lzo, are unpacked for that.
      - With V(data) all of the content is read, too, and compared with the digests noted by the backup.
    type: str
    choices: [index, data]
    default: data
  max_age:
    description:
      - Leave archives alone that passed this level, or a deeper one, more recently, for example V(7d) or V(20h).
    type: str
  bwlimit:
    description:
      - Limit for reading archives, in KiB of content per second. V(0) means none.
    type: int
    default: 0
seealso:
  - module: holdfast.virt.backup_info
  - module: holdfast.virt.backup_restore
"""

EXAMPLES = r"""
- name: Verify the newest archive of every guest, each once a week
  holdfast.virt.backup_verify:
    storage: nas
    newest: true
    max_age: 7d

- name: Check the structure of all archives of a storage
  holdfast.virt.backup_verify:
    storage: nas
    level: index

- name: Verify one archive before it is restored
  holdfast.virt.backup_verify:
    archive: nas:latest/100

- name: Back up again what is damaged
  block:
    - name: Verify the newest archives
      holdfast.virt.backup_verify:
        storage: nas
        newest: true
  rescue:
    - name: Back up the guests of the damaged archives
      holdfast.virt.backup_run:
        vmid: "{{ ansible_failed_result.verify.findings | map(attribute='vmid') | unique | map('string') }}"
        storage: nas
        force: true
      when: ansible_failed_result.code == 'integrity'
"""

RETURN = r"""
verify:
  description: What was verified, or would be in check mode. Returned also when the task fails because of archives.
  returned: success
  type: dict
  contains:
    id:
      description: Id of the run.
      type: str
    node:
      description: Name of the node.
      type: str
    level:
      description: V(index) or V(data).
      type: str
    changed:
      description: Whether anything was verified, or would be.
      type: bool
    started:
      description: Begin of the run in RFC 3339, UTC.
      type: str
    started_epoch:
      description: Begin of the run in seconds since 1970.
      type: int
    finished:
      description: End of the run in RFC 3339, UTC; V(null) in check mode.
      type: str
    finished_epoch:
      description: End of the run in seconds since 1970; V(null) in check mode.
      type: int
    ok:
      description: Whether no archive is damaged or could not be verified.
      type: bool
    counts:
      description: Number of archives by state.
      type: dict
      sample: {ok: 7, unknown: 1, damaged: 0, failed: 0, fresh: 12, gone: 0, planned: 0}
    archives:
      description: Every archive.
      type: list
      elements: dict
      contains:
        archive:
          description: Volume id or path.
          type: str
        path:
          description: File.
          type: str
        kind:
          description: Kind of the guest.
          type: str
        vmid:
          description: Id of the guest.
          type: int
        name:
          description: Name of the guest, as the archive says.
          type: str
        time:
          description: Time of the backup in RFC 3339, UTC.
          type: str
        time_epoch:
          description: Time of the backup in seconds since 1970.
          type: int
        level:
          description: V(index) or V(data).
          type: str
        size:
          description: Size of the file in bytes.
          type: int
        before:
          description: What the verification before this one said; V(null) when there was none.
          type: dict
        state:
          description:
            - V(ok), or V(unknown) when all can be read, but nobody noted what was written, as for archives of
              Proxmox VE.
            - V(damaged), or V(failed) when it could not be verified.
            - V(fresh) when it was left alone because of O(max_age), V(gone) when it was removed meanwhile,
              V(planned) in check mode.
          type: str
        findings:
          description: What is wrong with it, each with C(cause), C(remedy), C(volume) and C(offset) as below.
          type: list
          elements: dict
        reason:
          description: Why it was left alone.
          type: str
        volumes:
          description: Disks of a machine, or the C(tar) of a container; with level V(data) only.
          type: list
          elements: dict
          contains:
            key:
              description: Key in the guest's configuration.
              type: str
            state:
              description: V(ok), V(unknown) or V(damaged).
              type: str
            sha256:
              description: Digest of what was read.
              type: str
            recorded:
              description: Digest of what was written; V(null) when nobody noted it.
              type: str
        warnings:
          description: What is wrong beside the archive and harms no restore, for example notes that cannot be read.
          type: list
          elements: str
        read:
          description: Bytes of content that were read.
          type: int
        duration:
          description: Seconds that it took.
          type: float
    findings:
      description: What is wrong.
      type: list
      elements: dict
      contains:
        archive:
          description: Volume id or path of the archive.
          type: str
        path:
          description: File of the archive.
          type: str
        kind:
          description: Kind of the guest.
          type: str
        vmid:
          description: Id of the guest.
          type: int
        name:
          description: Name of the guest, as far as the archive says.
          type: str
        volume:
          description: Key of the volume that it is about; V(null) when it is about the archive.
          type: str
        offset:
          description: Bytes of uncompressed content that were read when it showed; V(null) when it showed elsewhere.
          type: int
        cause:
          description: What is wrong.
          type: str
          sample: the content of scsi0 is not what was written
        remedy:
          description: What can be done.
          type: str
    warnings:
      description: What deserves a look.
      type: list
      elements: str
code:
  description: Kind of the failure; V(integrity) when archives are damaged or could not be verified.
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


def verify(module: AnsibleModule, host: Host) -> dict[str, Any]:
    """Verify, or in check mode only say what."""
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.requests import VerifyRequest
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.verify import plan_verify, run_verify
    from ansible_collections.holdfast.virt.plugins.module_utils.support.diff import verify_difference
    from ansible_collections.holdfast.virt.plugins.module_utils.support.report import ModuleReporter

    params = module.params
    request = VerifyRequest(
        archives=params["archive"] or [],
        storage=params["storage"],
        vmid=params["vmid"] or [],
        newest=bool(params["newest"]),
        level=params["level"],
        max_age=params["max_age"],
        bwlimit=params["bwlimit"],
    )
    result = plan_verify(host, request)
    if result.changed and not module.check_mode:
        result = run_verify(host, request, ModuleReporter(module))
    shown = result.to_dict()
    answer = {"changed": result.changed, "verify": shown, "diff": verify_difference(shown)}
    if not result.ok:
        causes = "; ".join(f"{finding['archive']}: {finding['cause']}" for finding in result.findings)
        module.fail_json(
            msg=f"{len(result.bad)} of {len(result.archives)} archives are damaged or cannot be read: {causes}",
            code="integrity",
            hint=result.findings[0]["remedy"],
            **answer,
        )
    return answer


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "list", "elements": "str"},
            "storage": {"type": "str"},
            "vmid": {"type": "list", "elements": "int"},
            "newest": {"type": "bool"},
            "level": {"type": "str", "choices": ["index", "data"], "default": "data"},
            "max_age": {"type": "str"},
            "bwlimit": {"type": "int", "default": 0},
            **location_spec(),
        },
        mutually_exclusive=[("archive", "storage"), ("archive", "vmid"), ("archive", "newest")],
        required_one_of=[("archive", "storage", "vmid", "newest")],
        supports_check_mode=True,
    )
    finish(module, lambda host: verify(module, host), partial="verify", touches_guests=True)


if __name__ == "__main__":
    main()
