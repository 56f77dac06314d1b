# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command that verifies archives."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .cli_output import human, put_json, put_table, reporter, say
from .errors import UsageError

if TYPE_CHECKING:
    from .system.host import Host


def register(verbs: Any) -> None:
    """Add the command."""
    command = verbs.add_parser("verify", help="look whether archives are what was written")
    command.add_argument(
        "archives", nargs="*", metavar="ARCHIVE", help="STORAGE:backup/FILE, STORAGE:latest/GUEST or a path"
    )
    command.add_argument("--storage", help="the archives of this storage")
    command.add_argument("--all", action="store_true", help="the archives of all storages")
    command.add_argument("--vmid", type=int, action="append", default=[], help="only archives of this guest")
    command.add_argument("--newest", action="store_true", help="of each guest only the newest archive of each storage")
    command.add_argument(
        "--level", choices=["index", "data"], default="data", help="the structure, or every byte (the default)"
    )
    command.add_argument("--max-age", metavar="AGE", help="leave archives verified more recently alone (7d)")
    command.add_argument("--bwlimit", type=int, default=0, metavar="KIB/S")
    command.add_argument("--check", "--dry-run", action="store_true", help="only tell what would be verified")
    command.add_argument("--json", action="store_true")
    command.set_defaults(handler=verify)


def verify(args: argparse.Namespace, host: Host) -> int:
    """``holdfast verify``"""
    from .tasks.requests import VerifyRequest
    from .tasks.verify import plan_verify, run_verify

    if not (args.archives or args.storage or args.all or args.vmid):
        raise UsageError("nothing to verify is named", hint="name archives, or give --storage, --vmid or --all")
    request = VerifyRequest(args.archives, args.storage, args.vmid, args.newest, args.level, args.max_age, args.bwlimit)
    result = plan_verify(host, request) if args.check else run_verify(host, request, reporter(args.json))
    if args.json:
        put_json(result.to_dict())
    else:
        put_table(
            ["ARCHIVE", "SIZE", "STATE", "TIME", "REASON"],
            [[one.archive, human(one.size), one.state, _seconds(one.duration), one.reason] for one in result.archives],
        )
        for finding in result.findings:
            say(sys.stderr, f"error: {finding['archive']}: {finding['cause']}")
            say(sys.stderr, f"hint: {finding['remedy']}")
    return 0 if result.ok else 3


def _seconds(duration: float | None) -> str | None:
    return None if duration is None else f"{duration:.1f} s"
