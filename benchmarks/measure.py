# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running one measured step: time, processor time and peak memory of the step alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Callable


@dataclass(frozen=True)
class Measured:
    """Seconds on the clock, seconds of processors, MiB of the largest process."""

    seconds: float
    busy: float
    peak: float


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _wait(pid: int, began: float, what: str) -> Measured:
    _pid, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{what} failed with status {status}")
    return Measured(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def function(name: str, what: Callable[[], object]) -> Measured:
    """Run ``what`` in a process of its own."""
    sys.stdout.flush()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            what()
            status = 0
        finally:
            os._exit(status)
    return _report(name, _wait(pid, began, name))


def shell(name: str, line: str) -> Measured:
    """Run a shell pipeline; all of its programs count."""
    began = time.monotonic()
    process = subprocess.Popen(["bash", "-o", "pipefail", "-c", line])
    return _report(name, _wait(process.pid, began, name))


def _report(name: str, result: Measured) -> Measured:
    say(f"{name:44} {result.seconds:7.2f} s {result.busy:7.2f} s of processors, peak {result.peak:5.0f} MiB")
    return result


def compare(what: str, rounds: int, ours: Callable[[], Measured], theirs: Callable[[], Measured]) -> float:
    """Both in turn, the best of each counts; returns our time as a share of theirs."""
    pairs = [(ours().seconds, theirs().seconds) for _ in range(rounds)]
    ratio = min(pair[0] for pair in pairs) / min(pair[1] for pair in pairs)
    say(f"== {what}: {ratio:.2f} x the time of the plain programs")
    return ratio
