# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module parameters to the engine's requests."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.requests import BackupRequest, Selection
from ansible_collections.holdfast.virt.plugins.module_utils.support.params import backup_options


def backup_request(params: Mapping[str, Any]) -> BackupRequest:
    """The options of ``backup_run`` as a request."""
    return BackupRequest(
        selection=Selection(
            vmid=tuple(params["vmid"] or ()),
            all=params["all"],
            exclude=tuple(params["exclude"] or ()),
            pool=params["pool"],
            node=params["node"],
            tags=tuple(params["tags"] or ()),
            query=params["query"],
        ),
        options=backup_options(params),
        job=params["job"],
        max_age=params["max_age"],
        force=params["force"],
    )
