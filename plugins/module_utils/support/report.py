# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the engine says during a module: warnings reach the task's output, steps reach the system log."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


class ModuleReporter:
    """A reporter of the engine in a module."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module

    def info(self, message: str) -> None:
        self._module.debug(message)

    def warn(self, message: str) -> None:
        self._module.warn(message)

    def error(self, message: str) -> None:
        self._module.debug(message)

    def progress(self, done: int, total: int, zero: int, written: int) -> None:
        """A module's output is its result; progress is in the guest's log."""
