# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine in a process of its own, forked from the test: fast, isolated, and open to faults."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from typing import Any, Callable, ClassVar

from helpers.faults import Fault


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30) -> None:
    """Poll until ``condition`` holds; fail with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Ended:
    """``status`` is the exit status, or the negative number of the signal; ``step`` where the fault came."""

    status: int
    out: str
    err: str
    step: str


class Child:
    """A process that does ``work`` and exits with what it returns."""

    living: ClassVar[list[Child]] = []

    def __init__(self, work: Callable[[], int], fault: Fault | None = None) -> None:
        self._out, self._err, self._step = map(tempfile.TemporaryFile, ["w+b"] * 3)
        sys.stdout.flush()
        sys.stderr.flush()
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._child(work, fault)
        self.living.append(self)

    @classmethod
    def end_all(cls) -> None:
        """End what a failed test left."""
        for child in list(cls.living):
            child.send(signal.SIGKILL)
            child.wait()

    def wait(self, seconds: float = 120) -> Ended:
        """Its end.

        :raises AssertionError: it does not end in that time; it is killed then.
        """
        deadline = time.monotonic() + seconds
        while self._status is None and not self._reap(os.WNOHANG):
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                self._reap(0)
                raise AssertionError(f"no end within {seconds:g} s: {self._text(self._out)}{self._text(self._err)}")
            time.sleep(0.005)
        assert self._status is not None
        return Ended(self._status, self._text(self._out), self._text(self._err), self._text(self._step))

    def wait_held(self, seconds: float = 60) -> str:
        """Wait until a fault made it stand still; returns the step's name."""
        deadline = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WUNTRACED | os.WNOHANG)
            if pid and os.WIFSTOPPED(status):
                return self._text(self._step)
            if pid:
                self._end(status)
                raise AssertionError(f"ended with {self._status}: {self._text(self._out)}{self._text(self._err)}")
            assert time.monotonic() < deadline, "it did not come to the step"
            time.sleep(0.005)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    def _reap(self, flags: int) -> bool:
        pid, status = os.waitpid(self.pid, flags)
        if pid:
            self._end(status)
        return bool(pid)

    def _end(self, status: int) -> None:
        self._status = os.waitstatus_to_exitcode(status)
        self.living.remove(self)

    def _child(self, work: Callable[[], int], fault: Fault | None) -> None:
        status = 70
        try:
            os.dup2(self._out.fileno(), 1)
            os.dup2(self._err.fileno(), 2)
            sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
            sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
            if fault is not None:
                fault.install(lambda name: os.pwrite(self._step.fileno(), name.encode(), 0))
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    @staticmethod
    def _text(stream: Any) -> str:
        size = os.fstat(stream.fileno()).st_size
        return os.pread(stream.fileno(), size, 0).decode("utf-8", "surrogateescape")
