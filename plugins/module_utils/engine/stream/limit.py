# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bandwidth limit."""

from __future__ import annotations

import time
from typing import Callable


class Limiter:
    """Token bucket: lets a quarter of a second's worth through at once, then makes the caller wait.

    :param kib_per_second: 0 means no limit.
    """

    def __init__(
        self,
        kib_per_second: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = kib_per_second * 1024
        self._clock = clock
        self._sleep = sleep
        self._tokens = self._rate / 4
        self._last = clock()

    def take(self, count: int) -> None:
        """Account for ``count`` bytes, and wait until the average rate is kept again."""
        if self._rate <= 0:
            return
        now = self._clock()
        self._tokens = min(self._rate / 4, self._tokens + (now - self._last) * self._rate) - count
        self._last = now
        if self._tokens < 0:
            self._sleep(-self._tokens / self._rate)
