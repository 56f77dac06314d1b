# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module parameters in the engine's terms."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.holdfast.virt.plugins.module_utils.support.specs import KEEP_COUNTS, backup_spec


def dashed(params: Mapping[str, Any]) -> dict[str, Any]:
    """What is set, with vzdump's spelling of the keys, in nested options too."""
    return {
        name.replace("_", "-"): dashed(value) if isinstance(value, Mapping) else value
        for name, value in params.items()
        if value is not None
    }


def retention(params: Mapping[str, Any]) -> dict[str, int] | None:
    """The option ``prune_backups`` with vzdump's keys; ``None`` when the task does not set it."""
    option = params.get("prune_backups")
    if option is None:
        return None
    return {
        name.replace("_", "-"): int(option[name]) for name in ("keep_all", *KEEP_COUNTS) if option.get(name) is not None
    }


def backup_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """vzdump's options among the parameters, those that the task sets."""
    options = dashed({name: params[name] for name in backup_spec()})
    keep = retention(params)
    return options if keep is None else {**options, "prune-backups": keep}
