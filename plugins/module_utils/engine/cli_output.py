# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the node command prints: tables, JSON, log lines and progress."""

from __future__ import annotations

import json
import shutil
import sys
import time
from datetime import datetime
from typing import Any, Iterable, Mapping, Sequence, TextIO

from .system.report import printable

BAR_SECONDS = 0.2
BAR_WIDTH = 30


def say(stream: TextIO, text: str = "") -> None:
    """Write one line; control characters, and bytes of odd file names that are not text, are shown escaped."""
    stream.write(printable(text) + "\n")


def put_json(value: Any) -> None:
    """One JSON document."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def put_json_line(value: Mapping[str, Any]) -> None:
    """One JSON document on one line, for filters; flushed, so that the other side can answer."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def put_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns for people; ``None`` is shown as ``-``."""
    texts = [["-" if cell is None or cell == "" else _cell(cell) for cell in row] for row in rows]
    widths = [max(len(title), *(len(row[n]) for row in texts), 0) for n, title in enumerate(head)]
    for row in [list(head), *texts]:
        say(sys.stdout, "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _cell(value: Any) -> str:
    return printable(str(value)).replace("\n", "\\n")


def local_time(epoch: float | None) -> str:
    """A time for people, in the node's zone."""
    return "-" if epoch is None else datetime.fromtimestamp(epoch).strftime("%Y-%m-%d %H:%M:%S")


def age(seconds: float | None) -> str:
    """A rough age for people: ``3d 4h``, ``12m``."""
    if seconds is None:
        return "-"
    minutes = int(max(seconds, 0)) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes % 60}m" if hours else f"{minutes}m"


def human(size: float | None) -> str:
    """A size for people."""
    from .tasks.log import human as text

    return "-" if size is None else text(size)


class ConsoleReporter:
    """Log lines, and progress as a bar on a terminal or as vzdump's lines in a pipe.

    :param stream: where all of it goes; standard error when standard output carries JSON.
    :param quiet: only warnings and errors.
    """

    def __init__(self, stream: TextIO, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._tty = stream.isatty()
        self._bar = False
        self._last = 0.0
        self._began = time.monotonic()
        self._before = 0
        self._lines: Any = None

    def info(self, message: str) -> None:
        if not self._quiet:
            self._line("", message)

    def warn(self, message: str) -> None:
        self._line("warning: ", message)

    def error(self, message: str) -> None:
        self._line("error: ", message)

    def progress(self, done: int, total: int, zero: int, written: int) -> None:
        if self._quiet:
            return
        now = time.monotonic()
        if done < self._before or self._lines is None:
            from .tasks.progress_lines import ProgressLines

            self._began, self._lines = now, ProgressLines()
        self._before = done
        if not self._tty:
            line = self._lines.line(done, total, zero)
            if line is not None:
                self._line("", line)
            return
        if now - self._last < BAR_SECONDS and not 0 < total <= done:
            return
        self._last = now
        speed = human(done / max(now - self._began, 0.001))
        share = f"{done * 100 // total:3d}%" if total > 0 else "    "
        text = f"{share} {human(done)}{f' of {human(total)}' if total else ''}, {human(written)} written, {speed}/s"
        filled = BAR_WIDTH * done // total if total > 0 else 0
        line = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {text}"
        self._stream.write("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()
        self._bar = True

    def _line(self, prefix: str, message: str) -> None:
        if self._bar:
            self._stream.write("\r\x1b[K")
            self._bar = False
        for line in message.splitlines() or [""]:
            say(self._stream, prefix + line)
        self._stream.flush()


def reporter(json_wanted: bool, quiet: bool = False) -> ConsoleReporter:
    """The reporter that fits the output asked for."""
    return ConsoleReporter(sys.stderr if json_wanted else sys.stdout, quiet)
