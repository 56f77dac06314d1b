# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands about what runs tell: notify, metrics."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .cli_output import put_json, put_table, say
from .errors import UsageError

if TYPE_CHECKING:
    from .system.host import Host


def register(verbs: Any) -> None:
    """Add these commands."""
    command = verbs.add_parser("notify", help="whom backup runs tell, or with TARGET a message to try it")
    command.add_argument("target", nargs="?", metavar="TARGET")
    command.add_argument("--json", action="store_true")
    command.set_defaults(handler=show_targets)
    command = verbs.add_parser("metrics", help="bring the file of metrics up to date")
    command.set_defaults(handler=refresh_metrics)


def show_targets(args: argparse.Namespace, host: Host) -> int:
    """``holdfast notify``"""
    from .tasks.targets import read_targets, target_dict

    if args.target is not None:
        from .tasks.notify import send_test

        send_test(host, args.target)
        say(sys.stdout, f"told {args.target!r}")
        return 0
    file = read_targets(host)
    if args.json:
        put_json([target_dict(target) for target in file.targets.values()])
    else:
        rows = [
            [one.name, one.type, "never" if one.disable else one.rule, ",".join(one.mailto) or one.url]
            for one in file.targets.values()
        ]
        put_table(["NAME", "TYPE", "TOLD", "WHO"], rows)
    for finding in file.findings:
        say(sys.stderr, f"warning: {finding.message}")
    return 0


def refresh_metrics(args: argparse.Namespace, host: Host) -> int:
    """``holdfast metrics``"""
    from .tasks.metrics import write_metrics

    path = write_metrics(host)
    if path is None:
        raise UsageError(
            f"this node wants no metrics: {host.paths.textfiles} does not exist",
            hint="name a file as metrics-file in vzdump.conf, for example by the module backup_defaults",
        )
    say(sys.stdout, f"written: {path}")
    return 0
