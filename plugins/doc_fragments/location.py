# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which state the modules work on."""

from __future__ import annotations


class ModuleDocFragment:
    """Options that say where the state directories are and what the node is called."""

    DOCUMENTATION = r"""
options:
  root:
    description:
      - Directory below which the four state directories C(etc), C(lib), C(run) and C(log) live.
      - When unset, these are C(/etc/holdfast), C(/var/lib/holdfast), C(/run/holdfast) and C(/var/log/holdfast).
      - Meant for laboratories and tests; a production node leaves it unset.
    type: path
  node_name:
    description:
      - Name of the node the module runs on, as used in node restrictions of storages and jobs and in notes.
      - When unset, the host name up to the first dot.
    type: str
"""
