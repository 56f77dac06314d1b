# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands about rules: calendar events, retention, archive names. With ``-`` they are filters.

A filter reads one JSON object or one plain text per line and answers each with one JSON object on one line; a line that
makes no sense is answered with ``error``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Iterator

from .cli_output import local_time, put_json, put_json_line, put_table, say
from .errors import HoldfastError, UsageError

if TYPE_CHECKING:
    from datetime import tzinfo

    from .system.host import Host


KEEPS = ("keep-last", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly", "keep-all")


def register(verbs: Any) -> None:
    """Add these commands."""
    schedule = verbs.add_parser("schedule", help="calendar events")
    actions = schedule.add_subparsers(dest="action", metavar="ACTION", required=True)
    command = actions.add_parser("next", help="when an event happens next")
    command.add_argument("event", help="calendar event, or - for a filter")
    command.add_argument("--from", dest="start", help="seconds since 1970 or an ISO time; default now")
    command.add_argument("--tz", help="time zone, such as Europe/Vienna; default the node's")
    command.add_argument("-n", type=int, default=5, dest="count", help="how many runs")
    command.add_argument("--json", action="store_true")
    command.set_defaults(handler=next_events)
    command = verbs.add_parser("prune-simulate", help="what retention would do with archive names on standard input")
    command.add_argument("filter", nargs="?", choices=["-"], help="answer with one JSON object per line")
    command.add_argument("--tz", help="time zone of the names; default the node's")
    command.add_argument("--json", action="store_true")
    add_keeps(command)
    command.set_defaults(handler=simulate_prune)
    command = verbs.add_parser("archive-name", help="what archive names say")
    command.add_argument("names", nargs="+", metavar="NAME", help="file names, or - for a filter")
    command.add_argument("--json", action="store_true")
    command.set_defaults(handler=explain_names)


def add_keeps(command: argparse.ArgumentParser) -> None:
    """The retention options, together or one by one."""
    command.add_argument("--keep", metavar="keep-last=3,...", help="the whole retention")
    for name in KEEPS:
        command.add_argument(f"--{name}", metavar="N")


def given_keep(args: argparse.Namespace) -> str | None:
    """Retention on the command line as text; ``None`` when none is given."""
    single = [(name, getattr(args, name.replace("-", "_"))) for name in KEEPS]
    parts = [f"{name}={value}" for name, value in single if value is not None]
    if args.keep is not None and parts:
        raise UsageError("--keep and single --keep-… options exclude each other", hint="use one of the two forms")
    return args.keep if args.keep is not None else ",".join(parts) or None


def read_lines(key: str) -> Iterator[dict[str, Any]]:
    """Objects of standard input; a line of plain text is the value of ``key``, a broken one has ``error``."""
    for line in sys.stdin:
        text = line.strip()
        if not text:
            continue
        if not text.startswith("{"):
            yield {key: text}
            continue
        try:
            yield dict(json.loads(text))
        except ValueError as exc:
            yield {key: text, "error": f"this is not JSON: {exc}"}


def zone(name: str | None) -> tzinfo | None:
    """A time zone by name; ``None`` for the node's own.

    :raises UsageError: there is no such zone.
    """
    if not name:
        return None
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise UsageError(f"there is no time zone {name!r}", hint="give a name such as Europe/Vienna") from exc


def start_of(value: Any) -> int:
    """Seconds since 1970 from a number, an ISO time, or nothing (now)."""
    if value is None:
        return int(time.time())
    try:
        return int(float(value))
    except (TypeError, ValueError):
        pass
    try:
        return int(datetime.fromisoformat(str(value).replace("Z", "+00:00")).timestamp())
    except ValueError as exc:
        raise UsageError(f"{value!r} is no time", hint="give seconds since 1970 or 2026-03-09T21:00:00") from exc


def _runs(event: Any, start: Any, tz: str | None, count: int) -> list[int]:
    from .rules.calendar import parse_event
    from .rules.schedule import next_runs

    if not isinstance(event, str):
        raise UsageError("the object has no text 'event'")
    return next_runs(parse_event(event), start_of(start), zone(tz), count)


def next_events(args: argparse.Namespace, host: Host) -> int:
    """``holdfast schedule next``"""
    if args.event != "-":
        runs = _runs(args.event, args.start, args.tz, args.count)
        if args.json:
            put_json({"event": args.event, "next": runs})
        else:
            for run in runs:
                say(sys.stdout, datetime.fromtimestamp(run, zone(args.tz)).strftime("%a %Y-%m-%d %H:%M:%S"))
        return 0
    for item in read_lines("event"):
        answer: dict[str, Any] = {"event": item.get("event"), "next": [], "error": item.get("error")}
        if answer["error"] is None:
            try:
                answer["next"] = _runs(
                    item.get("event"), item.get("from", args.start), item.get("tz") or args.tz, args.count
                )
            except HoldfastError as exc:
                answer["error"] = exc.message
        put_json_line(answer)
    return 0


def simulate_prune(args: argparse.Namespace, host: Host) -> int:
    """``holdfast prune-simulate``"""
    from .rules.retention import Entry, parse_keep, prune_plan

    keep = parse_keep(given_keep(args) or "")
    entries: list[Entry] = []
    for item in read_lines("name"):
        name = str(item.get("name", ""))
        parsed = _parse(name, zone(args.tz))
        entries.append(
            Entry(
                name=name,
                group=None if parsed is None else f"{parsed['kind']}/{parsed['vmid']}",
                time=0 if parsed is None else int(parsed["time"]),
                protected=bool(item.get("protected")),
            )
        )
    marked = prune_plan(entries, keep, zone(args.tz))
    rows = [{"name": one.entry.name, "mark": one.mark, "rule": one.rule} for one in marked]
    if args.filter == "-":
        for row in rows:
            put_json_line(row)
    elif args.json:
        put_json(rows)
    else:
        put_table(["NAME", "MARK", "RULE"], [list(row.values()) for row in rows])
    return 0


def _parse(name: str, tz: tzinfo | None) -> dict[str, Any] | None:
    try:
        return explain(name, tz)
    except UsageError:
        return None


def explain(name: str, tz: tzinfo | None = None) -> dict[str, Any]:
    """The fields of a standard archive name.

    :param tz: zone of the time in it; ``None`` is the node's.

    :raises UsageError: it is not one.
    """
    from .rules.names import parse_archive_name

    parsed = parse_archive_name(name, tz)
    return {
        "name": parsed.filename,
        "kind": parsed.kind,
        "vmid": parsed.vmid,
        "time": parsed.time,
        "format": parsed.ext,
        "compression": parsed.compression,
    }


def explain_names(args: argparse.Namespace, host: Host) -> int:
    """``holdfast archive-name``"""
    if args.names == ["-"]:
        for item in read_lines("name"):
            answer = {"name": item.get("name"), "error": item.get("error")}
            if answer["error"] is None:
                try:
                    answer = explain(str(item.get("name", "")))
                except HoldfastError as exc:
                    answer["error"] = exc.message
            put_json_line(answer)
        return 0
    rows = [explain(name) for name in args.names]
    if args.json:
        put_json(rows)
    else:
        put_table(
            ["NAME", "KIND", "VMID", "TIME", "FORMAT", "COMPRESSION"],
            [
                [r["name"], r["kind"], r["vmid"], local_time(r["time"]), r["format"], r["compression"] or "none"]
                for r in rows
            ],
        )
    return 0
