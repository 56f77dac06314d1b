# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Progress in the words of vzdump: `` 12% (1.2 GiB of 10.0 GiB) in 3s, read: 400.0 MiB/s, write: 210.5 MiB/s``."""

from __future__ import annotations

import time
from typing import Callable

LEAST_SECONDS = 2.0
"""A line comes only when the percentage changed and this time has passed since the last one."""


class ProgressLines:
    """Decides when a line is due, and with which rates: those since the line before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._last = clock()
        self._percent = -1
        self._done = self._zero = 0

    def line(self, done: int, total: int, zero: int) -> str | None:
        """The line for these counters (bytes), ``None`` when none is due; ``total`` 0 stands for unknown."""
        now = self._clock()
        percent = min(100, done * 100 // total) if total > 0 else self._percent
        if total <= 0 or percent == self._percent or (percent < 100 and now - self._last <= LEAST_SECONDS):
            return None
        seconds = max(now - self._last, 0.001)
        read, zeroes = done - self._done, zero - self._zero
        self._last, self._percent, self._done, self._zero = now, percent, done, zero
        return (
            f"{percent:3d}% ({amount(done)} of {amount(total)}) in {duration(now - self._began)},"
            f" read: {_rate(read, seconds)}, write: {_rate(read - zeroes, seconds)}"
        )


def summary(done: int, zero: int, seconds: float) -> list[str]:
    """The lines after the last percentage."""
    whole = int(seconds)
    lines = [f"transferred {amount(done)} in {whole or '<1'} seconds ({_rate(done, max(seconds, 0.001))})"]
    if zero and done:
        lines.insert(0, f"backup is sparse: {amount(zero)} ({zero * 100 // done}%) total zero data")
    return lines


def amount(size: float) -> str:
    """A size as vzdump writes it: ``512.0 MiB``."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """A duration as vzdump writes it: ``1h 2m 3s``."""
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    return " ".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def _rate(size: int, seconds: float) -> str:
    return f"{amount(size / seconds)}/s" if size > 0 else "0 B/s"
