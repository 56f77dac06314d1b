# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands that change archives and mounts of storages: prune, archive, storage."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .cli_output import human, local_time, put_json, put_table, reporter, say
from .cli_rules import add_keeps, given_keep

if TYPE_CHECKING:
    from .system.host import Host


def register(verbs: Any) -> None:
    """Add these commands."""
    _register_prune(verbs)
    command = verbs.add_parser("archive", help="notes, protection and removal of one archive")
    command.add_argument("archive", help="STORAGE:backup/FILE, STORAGE:latest/GUEST or a path")
    command.add_argument("--notes", help="replace the notes; an empty text removes them")
    command.add_argument("--protected", choices=["0", "1"], help="protect it from removal, or no longer")
    command.add_argument("--remove", action="store_true", help="remove it with notes and log")
    command.add_argument("--json", action="store_true")
    command.set_defaults(handler=change_archive)
    command = verbs.add_parser("storage", help="mount a network storage, or unmount it")
    command.add_argument("storage")
    action = command.add_mutually_exclusive_group(required=True)
    action.add_argument("--mount", action="store_true", help="mount it unless it is mounted")
    action.add_argument("--unmount", action="store_true", help="unmount it if holdfast mounted it")
    command.set_defaults(handler=change_mount)


def _register_prune(verbs: Any) -> None:
    command = verbs.add_parser("prune", help="apply retention to a storage now")
    command.add_argument("--storage", required=True)
    command.add_argument("--vmid", type=int, action="append", default=[], help="only archives of this guest")
    command.add_argument("--kind", choices=["qemu", "lxc"])
    add_keeps(command)
    command.add_argument("--allow-empty", action="store_true", help="also remove a guest's last good archive")
    command.add_argument("--check", "--dry-run", action="store_true", help="only tell what would be removed")
    command.add_argument("--json", action="store_true")
    command.set_defaults(handler=prune_storage)


def prune_storage(args: argparse.Namespace, host: Host) -> int:
    """``holdfast prune``"""
    from .tasks.prune import apply_prune, plan_prune
    from .tasks.requests import PruneRequest

    request = PruneRequest(args.storage, given_keep(args), args.vmid, args.kind, args.allow_empty)
    result = plan_prune(host, request) if args.check else apply_prune(host, request, reporter(args.json))
    if args.json:
        put_json(result.to_dict())
        return 0
    put_table(
        ["ARCHIVE", "TIME", "SIZE", "MARK", "RULE"],
        [[a.archive, local_time(a.time), human(a.size), a.mark, a.rule] for a in result.archives],
    )
    return 0


def change_archive(args: argparse.Namespace, host: Host) -> int:
    """``holdfast archive``"""
    from .tasks.archives import apply_archive
    from .tasks.requests import ArchiveRequest

    protected = None if args.protected is None else args.protected == "1"
    request = ArchiveRequest(args.archive, args.notes, protected, args.remove)
    _before, after = apply_archive(host, request, reporter(args.json))
    if args.json:
        put_json(after)
    elif after is not None:
        for key, value in after.items():
            say(sys.stdout, f"{key}: {value}")
    return 0


def change_mount(args: argparse.Namespace, host: Host) -> int:
    """``holdfast storage``"""
    from .tasks.store_mounts import mount_storage, unmount_storage

    if args.mount:
        mount_storage(host, args.storage)
        say(sys.stdout, f"storage {args.storage!r} is mounted")
    elif unmount_storage(host, args.storage):
        say(sys.stdout, f"storage {args.storage!r} was unmounted")
    else:
        say(sys.stdout, f"storage {args.storage!r} is left alone: holdfast did not mount it")
    return 0
