# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counting bytes from any thread, and telling a reporter now and then."""

from __future__ import annotations

import threading
import time
from typing import Callable, Protocol


class Listener(Protocol):
    """Is told the counters; a reporter of the engine is one."""

    def progress(self, done: int, total: int, zero: int, written: int) -> None: ...


class Progress:
    """Counters of one guest's transfer; all in bytes.

    :param total: bytes of guest data expected, 0 if unknown.
    :param interval: seconds between two calls of the reporter.
    """

    def __init__(
        self, total: int, reporter: Listener, *, interval: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._reporter = reporter
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()
        # The reporter is called by one thread at a time; the others go on counting meanwhile.
        self._reporting = threading.Lock()
        self._next = clock() + interval
        self.total = total
        self.done = 0
        self.zero = 0
        self.written = 0
        # Who tells a speed counts the seconds from here.
        reporter.progress(0, total, 0, 0)

    def add(self, done: int, zero: int = 0) -> None:
        """``done`` more bytes of the guest are handled, ``zero`` of them were zero or unallocated."""
        with self._lock:
            self.done += done
            self.zero += zero
        self._report()

    def set_written(self, written: int) -> None:
        """The archive now has ``written`` bytes; fits a sink's ``on_written``."""
        with self._lock:
            self.written = max(self.written, written)
        self._report()

    def finish(self) -> None:
        """Report the final numbers, whatever the interval."""
        with self._reporting:
            self._reporter.progress(self.done, self.total, self.zero, self.written)

    def _report(self) -> None:
        if self._clock() < self._next or not self._reporting.acquire(blocking=False):
            return
        try:
            if self._clock() >= self._next:
                self._next = self._clock() + self._interval
                self._reporter.progress(self.done, self.total, self.zero, self.written)
        finally:
            self._reporting.release()
