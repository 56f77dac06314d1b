# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands that work with guests: run, restore, guest, heal."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .cli_output import human, put_json, put_table, reporter, say
from .errors import UsageError

if TYPE_CHECKING:
    from .system.host import Host

Verbs = Any
"""What ``add_subparsers`` returns; argparse has no public name for it."""

VALUES = {
    "storage": "STORAGE",
    "mode": "snapshot|suspend|stop",
    "compress": "0|1|gzip|lzo|zstd",
    "zstd": "THREADS",
    "pigz": "THREADS",
    "bwlimit": "KIB/S",
    "ionice": "0-8",
    "lockwait": "MINUTES",
    "stopwait": "MINUTES",
    "tmpdir": "DIR",
    "dumpdir": "DIR",
    "fleecing": "enabled=1,storage=S",
    "performance": "max-workers=N,...",
    "prune-backups": "keep-last=N,...",
    "notes-template": "TEXT",
    "script": "FILE",
    "mailto": "ADDRESS,...",
    "mailnotification": "always|failure",
    "notification-mode": "auto|legacy-sendmail|notification-system",
}
"""vzdump's options with a value, and how it looks."""

SWITCHES = ("stdexcludes", "remove", "protected")
"""vzdump's options that are on when they are given without a value."""


def register(verbs: Verbs) -> None:
    """Add these commands."""
    _register_run(verbs)
    _register_restore(verbs)
    command = verbs.add_parser("guest", help="start or stop a guest")
    command.add_argument("action", choices=["start", "stop"])
    command.add_argument("guest", help="id or name")
    command.add_argument("--timeout", type=int, default=60, metavar="SECONDS", help="for an orderly shutdown")
    command.add_argument("--force", action="store_true", help="switch it off")
    command.set_defaults(handler=switch_guest)
    command = verbs.add_parser("heal", help="clean up after runs that were killed")
    command.set_defaults(handler=heal_now)


def _register_run(verbs: Verbs) -> None:
    command = verbs.add_parser("run", help="back up guests now")
    command.add_argument("guests", nargs="*", metavar="GUEST", help="ids or names")
    command.add_argument("--job", help="take selection and options from this job")
    command.add_argument("--all", action="store_true", default=None, help="every guest of this node")
    command.add_argument("--exclude", action="append", metavar="GUEST[,...]", help="leave these out; means --all")
    command.add_argument("--pool", help="the members of this pool")
    command.add_argument("--tags", action="append", metavar="TAG[,...]", help="guests with one of these tags")
    command.add_argument("--query", metavar="JMESPATH", help="guests that this query over the list of guests yields")
    command.add_argument("--on-node", metavar="NODE", help="do nothing on nodes of another name")
    command.add_argument("--max-age", metavar="AGE", help="leave guests with a backup younger than this alone (20h)")
    command.add_argument("--force", action="store_true", help="back up guests with a fresh backup, too")
    add_backup_options(command)
    command.add_argument("--check", "--dry-run", action="store_true", help="only tell what would be done")
    command.add_argument("--quiet", nargs="?", const="1", metavar="0|1", help="only warnings and errors")
    command.add_argument("--json", action="store_true")
    command.set_defaults(handler=run_backup)


def add_backup_options(command: argparse.ArgumentParser) -> None:
    """vzdump's options."""
    command.add_argument("--exclude-path", action="append", metavar="GLOB", help="files to leave out of containers")
    for name, value in VALUES.items():
        command.add_argument(f"--{name}", metavar=value)
    for name in SWITCHES:
        command.add_argument(f"--{name}", nargs="?", const="1", metavar="0|1")


def given_backup_options(args: argparse.Namespace) -> dict[str, Any]:
    """Those of vzdump's options that stand on the command line."""
    texts = {name: getattr(args, name.replace("-", "_")) for name in ["exclude-path", *VALUES, *SWITCHES]}
    return {name: text for name, text in texts.items() if text is not None}


def split_all(texts: list[str] | None) -> list[str]:
    """The words of lists with commas."""
    return [part for text in texts or [] for part in text.replace(",", " ").split()]


def run_backup(args: argparse.Namespace, host: Host) -> int:
    """``holdfast run``"""
    from .tasks import backup
    from .tasks.requests import BackupRequest, Selection

    exclude, guests, tags = map(split_all, (args.exclude, args.guests, args.tags))
    request = BackupRequest(
        selection=Selection(guests, args.all, exclude, args.pool, args.on_node, tags, args.query),
        options=given_backup_options(args),
        job=args.job,
        max_age=args.max_age,
        force=args.force,
    )
    if args.check:
        plan = backup.plan_backup(host, request).to_dict()
        if args.json:
            put_json(plan)
        else:
            _show_plan(plan)
        return 0
    quiet = str(args.quiet).lower() in ("1", "yes", "on", "true")
    result = backup.run_backup(host, request, reporter(args.json, quiet))
    if args.json:
        put_json(result.to_dict())
    elif not quiet:
        _show_run(result.to_dict())
    return 0 if result.ok else 3


def _show_plan(plan: dict[str, Any]) -> None:
    say(sys.stdout, f"storage {plan['storage']}, node {plan['node']}")
    rows = []
    for guest in plan["guests"]:
        disks = ", ".join(f"{disk['key']} ({human(disk['size'])})" for disk in guest["disks"] if disk["included"])
        rows.append([guest["vmid"] or None, guest["name"], guest["kind"], guest["action"], guest["mode"], disks])
    put_table(["VMID", "NAME", "KIND", "ACTION", "MODE", "VOLUMES"], rows)
    for guest in plan["guests"]:
        for text in [guest["reason"], *guest["warnings"]]:
            if text:
                say(sys.stdout, f"{guest['vmid'] or guest['name']}: {text}")


def _show_run(run: dict[str, Any]) -> None:
    rows = [
        [
            guest["vmid"],
            guest["name"],
            guest["status"],
            guest["mode"],
            human(guest["size"]),
            human(guest["archive_size"]),
            None if guest["duration"] is None else f"{guest['duration']:.1f} s",
            guest["archive"],
        ]
        for guest in run["guests"]
    ]
    put_table(["VMID", "NAME", "STATUS", "MODE", "SIZE", "ARCHIVE SIZE", "TIME", "ARCHIVE"], rows)
    for guest in run["guests"]:
        if guest["error"]:
            say(sys.stderr, f"error: {guest['vmid']} ({guest['name']}): {guest['error']['message']}")
            if guest["error"]["hint"]:
                say(sys.stderr, f"hint: {guest['error']['hint']}")


def _register_restore(verbs: Verbs) -> None:
    command = verbs.add_parser("restore", help="make a guest from an archive")
    command.add_argument("archive", help="STORAGE:backup/FILE, STORAGE:latest/GUEST or a path")
    command.add_argument("vmid", type=int, help="id of the guest to make")
    command.add_argument("--storage", help="where its volumes go")
    command.add_argument(
        "--volume",
        action="append",
        default=[],
        metavar="KEY=STORAGE[,format=F][,size=8G]",
        help="place one volume differently; a VM's disk also on KEY=/dev/DEVICE, a domain's in KEY=/FOLDER",
    )
    command.add_argument("--kind", choices=["qemu", "libvirt"], help="what a VM becomes; default: what it was")
    command.add_argument("--force", action="store_true", help="replace a stopped guest of that id")
    command.add_argument("--unique", action="store_true", help="new MAC addresses and system uuid")
    command.add_argument("--start", action="store_true", help="start it afterwards")
    command.add_argument("--trust-config", action="store_true", help="keep settings that reach into the host")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a config key")
    command.add_argument("--delete", action="append", default=[], metavar="KEY", help="remove a config key")
    command.add_argument("--bwlimit", type=int, metavar="KIB/S")
    command.add_argument("--unprivileged", choices=["0", "1"], help="containers: override the archived flag")
    command.add_argument("--ignore-unpack-errors", action="store_true", help="containers: keep what can be unpacked")
    command.add_argument("--check", "--dry-run", action="store_true", help="only tell what would be done")
    command.add_argument("--json", action="store_true")
    command.set_defaults(handler=restore_guest)


def _wished_volumes(texts: list[str]) -> dict[str, dict[str, str]]:
    from .settings.propstring import parse_property_string

    wishes = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"cannot understand --volume {text!r}", hint="write it as mp0=STORAGE,size=8G")
        wishes[key] = parse_property_string(value, "storage")
    return wishes


def restore_guest(args: argparse.Namespace, host: Host) -> int:
    """``holdfast restore``"""
    from .tasks.requests import RestoreRequest
    from .tasks.restore import plan_restore, run_restore

    overrides: dict[str, Any] = {}
    for text in args.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"cannot understand --set {text!r}", hint="write it as KEY=VALUE")
        overrides[key] = value
    overrides.update(dict.fromkeys(args.delete))
    request = RestoreRequest(
        archive=args.archive,
        vmid=args.vmid,
        storage=args.storage,
        volumes=_wished_volumes(args.volume),
        kind=args.kind,
        force=args.force,
        unique=args.unique,
        start=args.start,
        trust_config=args.trust_config,
        overrides=overrides,
        unprivileged=None if args.unprivileged is None else args.unprivileged == "1",
        ignore_unpack_errors=args.ignore_unpack_errors,
        bwlimit=args.bwlimit,
    )
    if args.check:
        result = plan_restore(host, request).to_dict()
        if result["state"] == "exists":
            raise UsageError(
                f"guest {args.vmid} ({result['name']}) exists already",
                hint="choose another id, or give --force to replace it",
            )
    else:
        result = run_restore(host, request, reporter(args.json)).to_dict()
    if args.json:
        put_json(result)
        return 0
    put_table(
        ["KEY", "VOLUME", "FORMAT", "SIZE", "TAKEN"],
        [[v["key"], v["volid"], v["format"], human(v["size"]), human(v["allocated"])] for v in result["volumes"]],
    )
    if args.check:
        for warning in result["warnings"]:
            say(sys.stdout, f"warning: {warning}")
        say(sys.stdout, f"would write {result['config_path']}:\n{result['config']}")
    return 0


def switch_guest(args: argparse.Namespace, host: Host) -> int:
    """``holdfast guest start|stop``"""
    from .tasks.guests import start_guest, stop_guest

    if args.action == "start":
        start_guest(host, args.guest, reporter(False))
    else:
        stop_guest(host, args.guest, reporter(False), timeout=args.timeout, force=args.force)
    return 0


def heal_now(args: argparse.Namespace, host: Host) -> int:
    """``holdfast heal``"""
    from .tasks.heal import heal

    healed = heal(host, reporter(False))
    say(sys.stdout, f"cleaned up after {len(healed)} killed run(s)")
    return 0
