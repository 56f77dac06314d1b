# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The libraries that move guest data live in the node's own environment; modules that need them change into it."""

from __future__ import annotations

import importlib.util
import os

from ansible.module_utils.common.respawn import has_respawned, respawn_module

INTERPRETER = "/opt/holdfast/venv/bin/python3"
"""Made by the role backup_node: the distribution's Python, its packages, and the libraries that it does not package."""

LIBRARIES = ("nbd", "qemu.qmp", "zstandard")


def _present(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        # The parent package is missing.
        return False


def use_node_interpreter() -> None:
    """Start the module again under the node's interpreter when this one lacks a library.

    Without that interpreter nothing happens: the engine names the missing library at the step that needs it, and a
    backup that does not need it succeeds.
    """
    if has_respawned() or all(_present(name) for name in LIBRARIES):
        return
    if os.access(INTERPRETER, os.X_OK):
        respawn_module(INTERPRETER)
