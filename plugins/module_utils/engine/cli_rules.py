# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands about rules: calendar events, retention, archive names. With ``-`` they are filters."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .cli_filters import answer_lines, read_lines, start_of, text_of, zone
from .cli_output import local_time, put_json, put_json_line, put_table, say
from .errors import ConfigError, HoldfastError, UsageError

if TYPE_CHECKING:
    from datetime import tzinfo

    from .rules.retention import Entry
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
    command.add_argument("-n", type=_count, default=5, dest="count", help="how many runs")
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
    command.add_argument("--tz", help="time zone of the names; default the node's")
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


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def next_events(args: argparse.Namespace, host: Host) -> int:
    """``holdfast schedule next``"""
    if args.event == "-":
        given = {"from": args.start, "tz": args.tz}
        return answer_lines("event", lambda item: _next({**given, **item}, args.count), {"next": []})
    answer = _next({"event": args.event, "from": args.start, "tz": args.tz}, args.count)
    if "note" in answer:
        raise ConfigError(f"{args.event!r}: {answer['note']}", hint="correct month, day and weekday")
    if args.json:
        put_json(answer)
        return 0
    for run in answer["next"]:
        say(sys.stdout, datetime.fromtimestamp(run, zone(args.tz)).strftime("%a %Y-%m-%d %H:%M:%S"))
    if len(answer["next"]) < args.count:
        say(sys.stderr, "note: after that the event does not happen any more")
    return 0


def _next(item: dict[str, Any], count: int) -> dict[str, Any]:
    """The next runs of an event, and a note when no run can ever come."""
    from .rules.calendar import parse_event
    from .rules.schedule import next_runs, why_never

    event = parse_event(text_of(item, "event"))
    runs = next_runs(event, start_of(item.get("from")), zone(item.get("tz")), count)
    answer = {"event": item["event"], "next": runs, "error": None}
    reason = "" if runs else why_never(event)
    return {**answer, "note": f"the event never happens: {reason}"} if reason else answer


def simulate_prune(args: argparse.Namespace, host: Host) -> int:
    """``holdfast prune-simulate``"""
    from .rules.retention import parse_keep, prune_plan

    keep, tz = parse_keep(given_keep(args) or ""), zone(args.tz)
    rows: list[dict[str, Any]] = []
    entries: list[Entry] = []
    for item in read_lines("name"):
        row = {"name": item.get("name")}
        try:
            if "error" in item:
                raise UsageError(str(item["error"]))
            entries.append(_entry(item, tz))
        except HoldfastError as exc:
            row["error"] = exc.message
        rows.append(row)
    marks = iter(prune_plan(entries, keep, tz))
    for row in rows:
        if "error" not in row:
            marked = next(marks)
            row.update(mark=marked.mark, rule=marked.rule)
    if args.filter == "-":
        for row in rows:
            put_json_line(row)
    elif args.json:
        put_json(rows)
    else:
        put_table(["NAME", "MARK", "RULE"], [[row["name"], row.get("mark"), row.get("rule")] for row in rows])
    return 0


def _entry(item: dict[str, Any], tz: tzinfo | None) -> Entry:
    """An archive as retention sees it; one without a standard name is a renamed one."""
    from .rules.names import parse_archive_name
    from .rules.retention import Entry
    from .rules.values import parse_flag

    name = text_of(item, "name")
    try:
        protected = parse_flag(item.get("protected") or False)
    except ValueError as exc:
        raise UsageError(f"'protected' {exc}") from exc
    try:
        parsed = parse_archive_name(name, tz)
    except UsageError:
        return Entry(name, None, 0, protected)
    return Entry(name, f"{parsed.kind}/{parsed.vmid}", parsed.time, protected)


def explain_names(args: argparse.Namespace, host: Host) -> int:
    """``holdfast archive-name``"""
    tz = zone(args.tz)
    if args.names == ["-"]:
        return answer_lines("name", lambda item: _explain(text_of(item, "name"), tz), {})
    rows = [_explain(name, tz) for name in args.names]
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


def _explain(name: str, tz: tzinfo | None) -> dict[str, Any]:
    """The fields of an archive's name; what only a standard name tells is ``None`` for another one."""
    from .rules.names import ArchiveName, parse_name

    known = parse_name(name, tz)
    standard = known if isinstance(known, ArchiveName) else None
    return {
        "name": known.filename,
        "kind": known.kind,
        "vmid": None if standard is None else standard.vmid,
        "time": None if standard is None else standard.time,
        "format": known.ext,
        "compression": known.compression,
        "standard": standard is not None,
        "log": None if standard is None else standard.log,
        "notes": known.notes,
    }
