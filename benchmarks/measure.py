# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measuring steps in processes of their own, and comparing two of them in turn.

The measuring process stays small: a new process starts with the memory of the one that made it.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Callable

#: MiB that no process of the engine may exceed.
MEMORY_AIM = 256

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """Seconds on the clock, seconds of processors (with helpers that run beside the step), MiB of memory.

    :param largest: peak of the step's largest process; :param own: peak of the engine's process, 0 if it is none.
    """

    seconds: float
    busy: float
    largest: float
    own: float = 0


@dataclass(frozen=True)
class Step:
    """Something to measure; ``prepare`` runs before each time and is not measured."""

    name: str
    run: Callable[[], Measured]
    prepare: Callable[[], object] = lambda: None

    def measure(self) -> Measured:
        self.prepare()
        # What earlier steps left to be written must not slow this one down.
        os.sync()
        result = self.run()
        own = f", engine {result.own:.0f} MiB" if result.own else ""
        say(
            f"   {self.name:16} {result.seconds:6.2f} s, processors {result.busy:6.2f} s,"
            f" largest process {result.largest:.0f} MiB{own}"
        )
        return result


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def function(what: Callable[[], object]) -> Measured:
    """Measure ``what`` in a process of its own; the interpreter and what is imported already cost no time there."""
    sys.stdout.flush()
    ours, theirs = os.pipe()
    watch = _Watch()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            what()
            os.write(theirs, str(_peak()).encode())
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        own = pipe.read()
    return watch.wait(pid, own=float(own or 0))


def shell(line: str) -> Measured:
    """Measure a pipeline; all of its programs count."""
    watch = _Watch()
    process = subprocess.Popen(["bash", "-o", "pipefail", "-c", line])
    return watch.wait(process.pid)


def apart(what: Callable[[], object]) -> None:
    """Do something in a process of its own, so that its memory is gone afterwards."""
    function(what)


def remove(path: str) -> None:
    """Remove a file or folder that an earlier step may have made."""
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)


def compare(what: str, rounds: int, aim: float, ours: Step, theirs: Step) -> None:
    """Measure both in turn; the median of the pairs' ratios counts, so that noise which lasts hits both sides."""
    say(f"== {what}")
    pairs = [(ours.measure(), theirs.measure()) for _round in range(rounds)]
    left, right = ([pair[side] for pair in pairs] for side in (0, 1))
    ratios = sorted(one.seconds / other.seconds for one, other in pairs)
    busy = statistics.median(one.busy / other.busy for one, other in pairs)
    ratio = statistics.median(ratios)
    say(f"   {what}: {ratio:.2f} of the time of {theirs.name}, {verdict(ratio, aim)}")
    say(f"      pairs from {ratios[0]:.2f} to {ratios[-1]:.2f}; {busy:.2f} of its processor time")
    seconds = [statistics.median(one.seconds for one in side) for side in (left, right)]
    say(f"      medians {seconds[0]:.2f} s against {seconds[1]:.2f} s")
    largest = max(one.largest for one in left)
    # The largest process is the engine's where it was not measured as a function.
    own = max(one.own for one in left) or largest
    say(f"      peak memory of the engine {own:.0f} MiB, {verdict(own, MEMORY_AIM)}")
    say(f"      largest processes {largest:.0f} MiB against {max(one.largest for one in right):.0f} MiB")


def verdict(value: float, aim: float) -> str:
    return f"aim {aim:g} {'met' if value <= aim else 'MISSED'}"


class _Watch:
    """Started before a step; tells what the step cost when it has ended."""

    def __init__(self) -> None:
        self._helpers = _children()
        self._busy = sum(_busy(pid) for pid in self._helpers)
        self._began = time.monotonic()

    def wait(self, pid: int, own: float = 0) -> Measured:
        _pid, status, usage = os.wait4(pid, 0)
        seconds = time.monotonic() - self._began
        if status:
            raise SystemExit(f"the step failed with status {status}")
        beside = sum(_busy(pid) for pid in self._helpers) - self._busy
        return Measured(seconds, usage.ru_utime + usage.ru_stime + beside, usage.ru_maxrss / 1024, own)


def _children() -> list[int]:
    """Helpers of this process that run now, such as the daemon that serves a disk to both sides."""
    with open("/proc/self/task/" + str(os.getpid()) + "/children") as file:
        return [int(pid) for pid in file.read().split()]


def _busy(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _peak() -> float:
    """MiB of memory that this process had at most."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
