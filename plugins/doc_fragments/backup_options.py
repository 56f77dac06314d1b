# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a backup is made: vzdump's options with underscores."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of backups, shared by the modules that make, declare or preset them."""

    DOCUMENTATION = r"""
options:
  storage:
    description:
      - Storage that receives the archives. It must be declared with content V(backup).
      - When unset, what C(vzdump.conf) says, and V(local) as a last resort.
    type: str
  mode:
    description:
      - How the point in time is taken.
      - With V(snapshot) the guest keeps running. Where a container's volumes cannot be snapshot the backup falls back
        to V(suspend) and says so.
      - With V(suspend) the guest is paused for a short time.
      - With V(stop) the guest is shut down in an orderly way, captured and started again.
      - A guest that is not running is always read as it is.
      - When unset, what C(vzdump.conf) says, else V(snapshot).
    type: str
    choices: [snapshot, suspend, stop]
  compress:
    description:
      - Compression of the archive. V(0) means none.
      - When unset, what C(vzdump.conf) says, else V(0).
    type: str
    choices: ['0', gzip, lzo, zstd]
  zstd:
    description:
      - Threads for O(compress=zstd). V(0) means half of the processors. Default V(1).
    type: int
  pigz:
    description:
      - Threads for O(compress=gzip). V(0) means one, V(1) half of the processors.
    type: int
  bwlimit:
    description:
      - Limit for reading guest data, in KiB per second. V(0) means none.
    type: int
  ionice:
    description:
      - I/O priority of the backup, V(0) (high) to V(7) (low); V(8) means only when the disks are idle.
      - Only the I/O scheduler C(bfq) heeds it; when one is asked for and a disk has another, a warning names the disk.
    type: int
  lockwait:
    description:
      - Minutes to wait for another backup run of the node to end. Default V(180).
    type: int
  stopwait:
    description:
      - Minutes to wait for an orderly shutdown with O(mode=stop). Default V(10).
    type: int
  tmpdir:
    description:
      - Existing directory for temporary files of the backup. Default is beside the archive.
    type: path
  exclude_path:
    description:
      - Patterns of files to leave out of containers. Those that begin with C(/) are anchored at the container's root,
        others match at any depth. Adds to those of C(vzdump.conf).
    type: list
    elements: str
  stdexcludes:
    description:
      - Leave out temporary files and process id files of containers. Default V(true).
    type: bool
  fleecing:
    description:
      - Where blocks go that the guest overwrites while they wait for being read. Virtual machines only.
      - A stronger source replaces the whole option.
    type: dict
    suboptions:
      enabled:
        description: Use a fleecing image.
        type: bool
        default: true
      storage:
        description: Storage that holds the fleecing images. Needed when O(fleecing.enabled=true).
        type: str
  performance:
    description:
      - Tuning of the data path. Values that are not given come from C(vzdump.conf).
    type: dict
    suboptions:
      max_workers:
        description: Requests in flight for reading a virtual machine, 1 to 256. Default V(16).
        type: int
      pbs_entries_max:
        description: Entries of a directory kept in memory, for Proxmox Backup Server targets. Default V(1048576).
        type: int
  remove:
    description:
      - Apply the retention to each guest after its backup. Default V(true).
    type: bool
  protected:
    description:
      - Protect the new archives from removal.
    type: bool
  notes_template:
    description:
      - Text to note beside each archive. C({{guestname}}), C({{vmid}}), C({{node}}) and C({{cluster}}) are replaced,
        and so are the same words in single braces, which need no escaping in playbooks. Other words in braces are
        refused; with blanks inside the braces it is plain text.
      - C(\n) is a line feed, C(\\) a backslash.
    type: str
  script:
    description:
      - Hook script on the node, an absolute path. It is called as root before and after the run and each guest, with
        the phases, arguments and environment of vzdump.
      - It must be executable, and neither it nor a folder above it may be writable for others than root. That is
        checked before any guest is touched.
      - The phases, what a failure in each of them does, and an example are in C(docs/hooks.md) of the collection.
    type: path
  mailto:
    description:
      - Mail addresses, or users of the node, that get a mail about the run by the node's C(sendmail). They take the
        place of the targets that M(holdfast.virt.backup_notification) declares, see O(notification_mode).
      - An empty list takes back what C(vzdump.conf) says.
    type: list
    elements: str
  mailnotification:
    description:
      - When to send the mails of O(mailto). Default V(always).
    type: str
    choices: [always, failure]
  notification_mode:
    description:
      - With V(auto), which is the default, the mails of O(mailto) are sent if there are addresses, else the declared
        targets are told. V(legacy-sendmail) is always the former, V(notification-system) the latter.
    type: str
    choices: [auto, legacy-sendmail, notification-system]
"""
