# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which guests are meant."""

from __future__ import annotations


class ModuleDocFragment:
    """Options that select guests, with the rules of vzdump."""

    DOCUMENTATION = r"""
options:
  vmid:
    description:
      - Guests to back up, by numeric id or by name.
      - The others are backed up when one of them does not exist, and the task fails in the end.
    type: list
    elements: str
  all:
    description:
      - Back up all guests of the node, less those in O(exclude).
    type: bool
  exclude:
    description:
      - Guests to leave out, by numeric id or by name. Implies O(all=true) unless O(pool), O(tags) or O(query) is given.
      - Excluding a guest that does not exist is harmless.
    type: list
    elements: str
  pool:
    description:
      - Back up the members of this resource pool, all of them. O(all) and O(exclude) have no effect beside it.
    type: str
  tags:
    description:
      - Back up the guests that have one of these tags, less those in O(exclude).
    type: list
    elements: str
  query:
    description:
      - Back up the guests that this JMESPath query over the list of guests yields, less those in O(exclude). With
        O(tags) a guest must also have one of these.
      - Every guest has C(vmid), C(name), C(kind), C(tags), C(pool), C(node) and C(template). The query yields such
        guests, or ids or names. Other results fail.
      - Needs the Python library jmespath on the node (package C(python3-jmespath)).
    type: str
  node:
    description:
      - Back up only when the node has this name; on any other node nothing is done.
    type: str
"""
