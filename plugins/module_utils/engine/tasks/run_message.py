# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people are told about a backup run: subject, text and HTML, worded as vzdump words it."""

from __future__ import annotations

import html
from dataclasses import dataclass

from .log import human
from .results import GuestOutcome, RunResult

MOST_LOG = 1 << 20
"""Characters of the log in one message."""

STATUS = {"ok": "ok", "failed": "err", "skipped": "todo", "fresh": "fresh"}
HEAD = ("VMID", "Name", "Status", "Time", "Size", "Filename")

_CELL = "padding:2px 12px 2px 0;text-align:left"
_COLOUR = {"err": "#b00020", "todo": "#8a6d00"}


@dataclass(frozen=True)
class Message:
    """:param summary: the text without the log."""

    subject: str
    summary: str
    text: str
    html: str


def make_message(result: RunResult, log: str) -> Message:
    """What is told about a run.

    :param log: what the run said.
    """
    rows = [_row(guest) for guest in result.guests]
    problems = _problems(result)
    totals = [
        f"Total running time: {duration_text((result.finished or result.started) - result.started)}",
        f"Total size: {human(sum(guest.archive_size or 0 for guest in result.guests if guest.status == 'ok'))}",
    ]
    if len(log) > MOST_LOG:
        log = f"The log is too long to be sent; it is in {result.log}\n"
    paragraphs = [*problems, "Details\n=======", _table(rows), "\n".join(totals)]
    summary = "\n\n".join(paragraphs) + "\n"
    text = summary + (f"\nLogs\n====\n\n{log}" if log else "")
    return Message(_clean(_subject(result)), _clean(summary), _clean(text), _clean(_page(rows, problems, totals, log)))


def duration_text(seconds: float) -> str:
    """``1h 2m 3s``, without the parts that are zero; ``0s`` for nothing."""
    whole = max(0, int(seconds))
    parts = ((whole // 3600, "h"), (whole // 60 % 60, "m"), (whole % 60, "s"))
    return " ".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def _subject(result: RunResult) -> str:
    status = "backup successful" if result.ok else "backup failed"
    if result.error is not None:
        lines = str(result.error["message"]).splitlines()
        status += f": {lines[0]}" if len(lines) == 1 else ": multiple problems"
    return f"vzdump backup status ({result.node}): {status}"


def _row(guest: GuestOutcome) -> tuple[str, ...]:
    good = guest.status == "ok"
    return (
        str(guest.vmid or "-"),
        guest.name or f"VM {guest.vmid}",
        STATUS[guest.status],
        duration_text(guest.duration or 0),
        human(guest.archive_size or 0 if good else 0),
        (guest.archive or "") if good else "",
    )


def _problems(result: RunResult) -> list[str]:
    """What went wrong, with the remedies: of the run, then of its guests."""
    found = [] if result.error is None else [_sentence(result.error)]
    for guest in result.guests:
        if guest.error is not None:
            found.append(f"{guest.vmid or '-'} ({guest.name}): {_sentence(guest.error)}")
        found += [f"{guest.vmid} ({guest.name}): warning: {text}" for text in guest.warnings]
    return [*found, *(f"warning: {text}" for text in result.warnings)]


def _sentence(error: dict[str, str]) -> str:
    return f"{error['message']} ({error['hint']})" if error.get("hint") else error["message"]


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in [HEAD, *rows]) + 4 for column in range(len(HEAD))]
    lines = ["".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [HEAD, *rows]]
    return "\n".join(lines)


def _page(rows: list[tuple[str, ...]], problems: list[str], totals: list[str], log: str) -> str:
    def cells(tag: str, row: tuple[str, ...]) -> str:
        return "".join(f'<{tag} style="{_CELL}">{html.escape(cell)}</{tag}>' for cell in row)

    def line(row: tuple[str, ...]) -> str:
        colour = _COLOUR.get(row[2])
        style = f' style="color:{colour}"' if colour else ""
        return f"<tr{style}>{cells('td', row)}</tr>"

    parts = [f"<p>{html.escape(text)}</p>" for text in problems]
    parts += ['<table style="border-collapse:collapse">', f"<tr>{cells('th', HEAD)}</tr>", *map(line, rows), "</table>"]
    parts.append(f"<p>{'<br>'.join(map(html.escape, totals))}</p>")
    if log:
        parts.append(f"<h3>Logs</h3><pre>{html.escape(log)}</pre>")
    return "<!DOCTYPE html>\n<html><body>\n" + "\n".join(parts) + "\n</body></html>\n"


def _clean(text: str) -> str:
    """Text that every encoding has: bytes of odd names are shown."""
    return text.encode("utf-8", "backslashreplace").decode()
