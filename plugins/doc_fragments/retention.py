# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many archives are kept."""

from __future__ import annotations


class ModuleDocFragment:
    """The retention option, with the rules of Proxmox VE."""

    DOCUMENTATION = r"""
options:
  prune_backups:
    description:
      - Which archives of each guest to keep.
      - The rules are applied in the order O(prune_backups.keep_last), O(prune_backups.keep_hourly),
        O(prune_backups.keep_daily), O(prune_backups.keep_weekly), O(prune_backups.keep_monthly),
        O(prune_backups.keep_yearly). Each keeps the newest archive of so many periods that no earlier rule covers.
      - A stronger source replaces the whole option. The task or job comes before the storage, the storage before
        C(vzdump.conf).
      - Protected archives and archives with other than the standard names are never removed.
    type: dict
    suboptions:
      keep_all:
        description: Keep everything. Excludes the other rules.
        type: bool
      keep_last:
        description: Number of newest archives to keep.
        type: int
      keep_hourly:
        description: Number of hours of which to keep the newest archive.
        type: int
      keep_daily:
        description: Number of days of which to keep the newest archive.
        type: int
      keep_weekly:
        description: Number of ISO weeks of which to keep the newest archive.
        type: int
      keep_monthly:
        description: Number of months of which to keep the newest archive.
        type: int
      keep_yearly:
        description: Number of years of which to keep the newest archive.
        type: int
"""
