# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command about options: what the node's defaults say, and which layer wins."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Mapping

from .cli_output import put_json, put_table, say
from .cli_work import add_backup_options, given_backup_options

if TYPE_CHECKING:
    from .system.host import Host


def register(verbs: Any) -> None:
    """Add this command."""
    command = verbs.add_parser("defaults", help="the node's defaults of backup options")
    command.add_argument(
        "--explain",
        action="store_true",
        help="every option in effect and where it comes from: call, job, storage, vzdump.conf, built-in default",
    )
    command.add_argument("--job", help="explain what this job would use")
    add_backup_options(command)
    command.add_argument("--json", action="store_true")
    command.set_defaults(handler=show_defaults)


def show_defaults(args: argparse.Namespace, host: Host) -> int:
    """``holdfast defaults``"""
    options = given_backup_options(args)
    # What a run would use is asked for by naming one.
    if args.explain or args.job or options:
        return _explain(args, host, options)
    from .tasks.definitions import load_conf

    set_here, warnings = load_conf(host)
    if args.json:
        put_json({"options": set_here, "warnings": warnings})
    else:
        put_table(["OPTION", "VALUE"], [[_dashed(name), _shown(name, value)] for name, value in set_here.items()])
    _warn(warnings)
    return 0


def _explain(args: argparse.Namespace, host: Host, options: Mapping[str, Any]) -> int:
    from .tasks.backup_setup import explain_options
    from .tasks.requests import BackupRequest

    effective, warnings = explain_options(host, BackupRequest(options=options, job=args.job))
    if args.json:
        put_json({"options": dict(effective.values), "sources": dict(effective.sources), "warnings": warnings})
    else:
        rows = [
            [_dashed(name), _shown(name, value), effective.sources[name]] for name, value in effective.values.items()
        ]
        put_table(["OPTION", "VALUE", "FROM"], rows)
    _warn(warnings)
    return 0


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _shown(name: str, value: Any) -> str | None:
    from .settings.vzdump_conf import option_text

    return None if value is None else option_text(name, value)


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        say(sys.stderr, f"warning: {warning}")
