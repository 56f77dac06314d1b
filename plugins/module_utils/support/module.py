# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The frame around every module: which node it works on, and how an error becomes a failed task."""

from __future__ import annotations

import platform
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.virt.plugins.module_utils.engine.errors import HoldfastError
from ansible_collections.holdfast.virt.plugins.module_utils.engine.system.host import Host, Paths
from ansible_collections.holdfast.virt.plugins.module_utils.engine.system.trouble import explained


def make_host(params: dict[str, Any]) -> Host:
    """The node and its state directories as the options ``root`` and ``node_name`` say."""
    root = params.get("root")
    return Host(
        node=params.get("node_name") or platform.node().split(".")[0],
        paths=Paths.under(root) if root else Paths(),
    )


def finish(
    module: AnsibleModule,
    body: Callable[[Host], dict[str, Any]],
    *,
    partial: str = "result",
    touches_guests: bool = False,
) -> None:
    """Run ``body`` and end the module with what it returns.

    With ``touches_guests`` the libraries that talk to guests and move their data are needed, and the module starts
    again under the node's own interpreter when this one lacks them.

    A failure of the engine fails the task with the message, the remedy as ``hint``, the stable ``code``, and what was
    achieved so far under the key ``partial``, for rescue blocks. So does an error of the system that nobody expected.
    """
    if touches_guests:
        from ansible_collections.holdfast.virt.plugins.module_utils.support.respawn import use_node_interpreter

        use_node_interpreter()
    try:
        result = body(make_host(module.params))
    except HoldfastError as exc:
        achieved = {} if exc.result is None else {partial: exc.result}
        module.fail_json(msg=str(exc), hint=exc.hint, code=exc.code, **achieved)
    except OSError as exc:
        error = explained(exc)
        module.fail_json(msg=str(error), hint=error.hint, code=error.code)
    else:
        module.exit_json(**result)
