# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counters, the bandwidth limit and the copy loops."""

from __future__ import annotations

import io
import os
import threading

import pytest
from engine.stream.limit import Limiter
from engine.stream.progress import Progress
from engine.stream.pump import feed, pump_fd
from engine.system.report import SilentReporter


class Recorder(SilentReporter):
    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int, int]] = []

    def progress(self, done: int, total: int, zero: int, written: int) -> None:
        self.calls.append((done, total, zero, written))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_progress_is_told_now_and_then() -> None:
    recorder, clock = Recorder(), Clock()
    progress = Progress(100, recorder, clock=clock)
    progress.add(10, 5)
    assert recorder.calls == [(0, 100, 0, 0)]
    clock.now = 1.0
    progress.add(10)
    progress.add(10)
    progress.set_written(7)
    assert recorder.calls[1:] == [(20, 100, 5, 0)]
    progress.finish()
    assert recorder.calls[-1] == (30, 100, 5, 7)


def test_progress_counts_from_many_threads() -> None:
    progress = Progress(0, SilentReporter(), interval=0)

    def count() -> None:
        for _step in range(1000):
            progress.add(1, 1)

    threads = [threading.Thread(target=count) for _thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (progress.done, progress.zero) == (8000, 8000)


def test_limit_keeps_the_rate() -> None:
    clock = Clock()
    limiter = Limiter(1024, clock, clock.sleep)
    for _step in range(40):
        limiter.take(256 * 1024)
    assert clock.now == pytest.approx(9.75)
    unlimited = Limiter(0, clock, clock.sleep)
    unlimited.take(10**12)
    assert clock.now == pytest.approx(9.75)


def test_pump_copies_a_pipe_into_a_sink() -> None:
    ours, theirs = os.pipe()
    data = os.urandom(3_000_000)

    def fill() -> None:
        with os.fdopen(theirs, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=fill)
    thread.start()
    out = io.BytesIO()
    progress = Progress(0, SilentReporter())
    try:
        assert pump_fd(ours, out, progress) == len(data)
    finally:
        os.close(ours)
        thread.join()
    assert out.getvalue() == data
    assert progress.done == len(data)


def test_feed_copies_a_source_into_a_pipe_and_shows_it_first() -> None:
    theirs, ours = os.pipe()
    seen = bytearray()
    got = feed(io.BytesIO(b"abc" * 1000), ours, inspect=seen.extend)
    os.close(ours)
    assert got == 3000
    assert os.read(theirs, 4000) == bytes(seen) == b"abc" * 1000
    os.close(theirs)


def test_feed_stops_when_the_program_stops_reading() -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    assert feed(io.BytesIO(bytes(5_000_000)), ours) == 0
    os.close(ours)


def test_feed_gives_nothing_that_was_refused() -> None:
    theirs, ours = os.pipe()

    def refuse(part: memoryview) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        feed(io.BytesIO(b"bad"), ours, inspect=refuse)
    os.close(ours)
    assert os.read(theirs, 10) == b""
    os.close(theirs)
