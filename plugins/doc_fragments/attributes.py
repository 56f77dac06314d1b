# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every module of the collection can do."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes shared by all modules."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying the node.
    support: full
  diff_mode:
    description: Returns what has changed, or would change in C(check_mode), when in diff mode.
    support: full
  action_group:
    description: Use C(group/holdfast.virt.virt) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - holdfast.virt.virt
  platform:
    description: Target operating systems the module can be operated against.
    support: full
    platforms: posix
"""

    IDEMPOTENT = r"""
options: {}
attributes:
  idempotent:
    description: When run twice in a row outside C(check_mode) with the same arguments, the second run changes nothing.
    support: full
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    description: This module reads only.
    support: full
  diff_mode:
    description: Returns what has changed, or would change in C(check_mode), when in diff mode.
    support: N/A
    details: This module reads only.
  idempotent:
    description: When run twice in a row outside C(check_mode) with the same arguments, the second run changes nothing.
    support: full
  action_group:
    description: Use C(group/holdfast.virt.virt) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - holdfast.virt.virt
  platform:
    description: Target operating systems the module can be operated against.
    support: full
    platforms: posix
"""
