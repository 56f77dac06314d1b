# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands that only look: guests, jobs, storages, archives, status."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .cli_output import age, human, local_time, put_json, put_table, say

if TYPE_CHECKING:
    from .system.host import Host


def register(verbs: Any) -> None:
    """Add these commands."""
    for name, help_text, handler in (
        ("guests", "guests of this node and their newest backups", show_guests),
        ("jobs", "backup jobs and their next runs", show_jobs),
        ("storages", "storages and their space", show_storages),
    ):
        command = verbs.add_parser(name, help=help_text)
        command.add_argument("--json", action="store_true")
        command.set_defaults(handler=handler)
    command = verbs.add_parser("archives", help="archives on storages")
    command.add_argument("--storage", help="only on this storage")
    command.add_argument("--vmid", type=int, help="only of this guest")
    command.add_argument("--kind", choices=["qemu", "lxc"])
    command.add_argument("--json", action="store_true")
    command.set_defaults(handler=show_archives)
    command = verbs.add_parser("status", help="the last runs, guests that nobody takes care of, and what runs next")
    command.add_argument("-n", type=int, default=10, dest="count", help="how many runs")
    command.add_argument("--max-age", metavar="AGE", help="tell guests whose newest backup is older than this (26h)")
    command.add_argument("--json", action="store_true")
    command.set_defaults(handler=show_status)


def show_guests(args: argparse.Namespace, host: Host) -> int:
    """``holdfast guests``"""
    from .tasks.info import guests_info

    guests = guests_info(host, _warn)
    if args.json:
        put_json(guests)
        return 0
    put_table(
        ["VMID", "NAME", "KIND", "STATUS", "TAGS", "POOL", "BACKUPS", "NEWEST", "AGE", "JOBS"],
        [
            [
                guest["vmid"],
                guest["name"],
                guest["kind"],
                guest["status"],
                ",".join(guest["tags"]),
                guest["pool"],
                guest["archives"],
                guest["newest"]["volid"] if guest["newest"] else None,
                age(guest["newest_age"]),
                ",".join(guest["jobs"]),
            ]
            for guest in guests
        ],
    )
    for guest in guests:
        if guest["error"]:
            say(sys.stdout, f"{guest['vmid']} ({guest['name']}): {guest['error']}")
    return 0


def show_jobs(args: argparse.Namespace, host: Host) -> int:
    """``holdfast jobs``"""
    from .tasks.info import jobs_info

    jobs = jobs_info(host, _warn)
    if args.json:
        put_json(jobs)
        return 0
    put_table(
        ["ID", "ENABLED", "SCHEDULE", "NEXT RUN", "STORAGE", "COMMENT"],
        [
            [
                job["id"],
                "yes" if job["enabled"] else "no",
                job["schedule"],
                local_time(job["next_runs"][0]["epoch"]) if job["next_runs"] else None,
                job["definition"].get("storage"),
                job["definition"].get("comment"),
            ]
            for job in jobs
        ],
    )
    _show_findings(jobs)
    return 0


def show_storages(args: argparse.Namespace, host: Host) -> int:
    """``holdfast storages``"""
    from .tasks.info import storages_info

    storages = storages_info(host, _warn)
    if args.json:
        put_json(storages)
        return 0
    put_table(
        ["NAME", "TYPE", "USABLE", "CONTENT", "TOTAL", "FREE", "ARCHIVES", "PROBLEM"],
        [
            [
                storage["name"],
                storage["type"],
                "yes" if storage["usable"] else "no",
                ",".join(storage["definition"].get("content", [])),
                human(storage["total"]),
                human(storage["free"]),
                storage["archives"],
                storage["error"],
            ]
            for storage in storages
        ],
    )
    _show_findings(storages)
    return 0


def _show_findings(rows: list[dict[str, Any]]) -> None:
    """What of the definitions has no effect."""
    for row in rows:
        for warning in row["warnings"]:
            _warn(warning)


def _warn(text: str) -> None:
    say(sys.stderr, f"warning: {text}")


def show_archives(args: argparse.Namespace, host: Host) -> int:
    """``holdfast archives``"""
    from .tasks.archives import list_archives
    from .tasks.requests import ArchiveFilter

    archives = [entry.to_dict() for entry in list_archives(host, ArchiveFilter(args.storage, args.vmid, args.kind))]
    if args.json:
        put_json(archives)
        return 0
    put_table(
        ["ARCHIVE", "TIME", "SIZE", "PROTECTED", "VERIFIED", "NOTES"],
        [
            [
                archive["volid"],
                local_time(archive["time_epoch"]),
                human(archive["size"]),
                "yes" if archive["protected"] else "no",
                archive["verified"] and "{state} ({level})".format(**archive["verified"]),
                archive["notes"].partition("\n")[0],
            ]
            for archive in archives
        ],
    )
    return 0


def show_status(args: argparse.Namespace, host: Host) -> int:
    """``holdfast status``"""
    from .tasks.info import coverage_info, runs_info

    runs = runs_info(host, _warn, args.count)
    coverage = coverage_info(host, _warn, args.max_age)
    if args.json:
        put_json({"runs": runs, "coverage": coverage})
        return 0
    put_table(
        ["RUN", "KIND", "STATE", "STARTED", "GUESTS", "RESULT"],
        [
            [run["id"], run["kind"], run["state"], local_time(run["started_epoch"]), run["guests"], run["summary"]]
            for run in runs
        ],
    )
    _show_coverage(coverage)
    return 0


def _show_coverage(coverage: dict[str, Any]) -> None:
    for guest in coverage["uncovered"]:
        say(sys.stdout, f"no job backs up {guest['kind']} {guest['vmid']} ({guest['name']})")
    for guest in coverage["stale"]:
        old = "has no good backup" if guest["newest_age"] is None else f"has a backup {age(guest['newest_age'])} old"
        say(sys.stdout, f"{guest['kind']} {guest['vmid']} ({guest['name']}) {old}")
    for run in coverage["next_runs"]:
        say(sys.stdout, f"next run of {run['job']}: {local_time(run['epoch'])}")
