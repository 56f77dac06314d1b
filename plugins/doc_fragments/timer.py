# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Timers of jobs."""

from __future__ import annotations


class ModuleDocFragment:
    """Options about the systemd units of jobs."""

    DOCUMENTATION = r"""
options:
  command:
    description:
      - The node's command, which the systemd services of jobs run. The role P(holdfast.virt.backup_node#role) installs
        it.
    type: path
    default: /usr/local/bin/holdfast
"""
