# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The log of one guest, which becomes the archive's ``.log`` companion, and the log of a whole run."""

from __future__ import annotations

import contextlib
import os
import time
from types import TracebackType
from typing import Iterator

from ..stream.files import write_all
from ..system.files import create_anew, make_folders
from ..system.report import Reporter, printable
from ..system.trouble import FileError, tried
from .progress_lines import ProgressLines


def human(size: float) -> str:
    """A size for people in binary units: ``512 B``, ``1.5 MiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def clock(seconds: float) -> str:
    """A duration as ``01:02:03``."""
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def log_lines(level: str, message: str) -> list[str]:
    """A message as logs hold it."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    return [f"{stamp} {level}: {printable(line)}\n" for line in message.splitlines() if line.strip()]


class RunLog:
    """A reporter that passes everything on and, as soon as the run has a record, keeps it in the run's own log."""

    def __init__(self, parent: Reporter) -> None:
        self._parent = parent
        self._early: list[str] = []
        self._path = ""

    def open(self, path: str) -> None:
        """Write to this file from now on, beginning with what was said before."""
        self._path = path
        self._append(self._early)

    def info(self, message: str) -> None:
        self._write("INFO", message)
        self._parent.info(message)

    def warn(self, message: str) -> None:
        self._write("WARN", message)
        self._parent.warn(message)

    def error(self, message: str) -> None:
        self._write("ERROR", message)
        self._parent.error(message)

    def progress(self, done: int, total: int, zero: int, written: int) -> None:
        self._parent.progress(done, total, zero, written)

    def _write(self, level: str, message: str) -> None:
        lines = log_lines(level, message)
        if self._path:
            self._append(lines)
        else:
            self._early += lines

    def _append(self, lines: list[str]) -> None:
        # It tells people what happened; that is no reason to fail.
        with contextlib.suppress(OSError), open(self._path, "a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.writelines(lines)


class GuestLog:
    """A reporter that writes a guest's log file, passes everything on, and remembers the warnings.

    :param path: the file; a log of an earlier run is replaced. One that cannot be written is warned about once.
    :param parent: who else is told.
    :param prefix: put before every line that is passed on (``VM 100: ``).
    """

    def __init__(self, path: str, parent: Reporter, prefix: str = "") -> None:
        self.path = path
        self.warnings: list[str] = []
        self._parent = parent
        self._prefix = prefix
        self._fd = -1
        self._lines: ProgressLines | None = None
        with self._tolerated():
            make_folders(os.path.dirname(path))
            self._fd = create_anew(path, 0o640)

    def __enter__(self) -> GuestLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._close()

    def info(self, message: str) -> None:
        self._write("INFO", message)
        self._parent.info(self._prefix + message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        self._write("WARN", message)
        self._parent.warn(self._prefix + message)

    def error(self, message: str) -> None:
        self._write("ERROR", message)
        self._parent.error(self._prefix + message)

    def progress(self, done: int, total: int, zero: int, written: int) -> None:
        self._parent.progress(done, total, zero, written)
        if self._lines is None:
            self._lines = ProgressLines()
        line = self._lines.line(done, total, zero)
        if line is not None:
            self._write("INFO", line)

    def _write(self, level: str, message: str) -> None:
        if self._fd >= 0:
            with self._tolerated(), tried("write the log", self.path):
                write_all(self._fd, "".join(log_lines(level, message)).encode("utf-8", "backslashreplace"))

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        """It tells people what happened; that is no reason to fail."""
        try:
            yield
        except FileError as exc:
            self._close()
            self.warn(f"this guest's log is not kept: {exc}")

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
