# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fuzzing for a bounded time: ``python -m tests.fuzz [--seconds N] [TARGET...]``."""

from __future__ import annotations

import argparse
import contextlib
import resource
import signal
import sys
import time
from types import FrameType
from typing import Any, Callable, Iterator

from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.targets import TARGETS

BYTES = 3 << 30
"""Of address space; whoever believes a hostile number runs against it."""
SECONDS = 20
"""How long one input may take."""
_ROUND = 200


@contextlib.contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """Fail what takes longer."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"one input took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def runner(name: str, examples: int, count: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """A function that tries a target with that many inputs; it raises what the target must not raise."""
    strategy, target = TARGETS[name]

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.reuse, Phase.generate, Phase.shrink],
    )
    @given(strategy)
    def attempt(example: Any) -> None:
        count()
        with bounded(SECONDS):
            target(example)

    return attempt


def try_until(end: float, name: str) -> int:
    """Try one target until that moment of the monotonic clock, at least once; returns how many inputs it got."""
    tried = 0

    def count() -> None:
        nonlocal tried
        tried += 1

    while True:
        runner(name, _ROUND, count)()
        if time.monotonic() >= end:
            return tried


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", nargs="?", type=int, default=60, help="for all targets together (60)")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    chosen = args.target or list(TARGETS)
    began = time.monotonic()
    for number, name in enumerate(chosen, 1):
        tried = try_until(began + args.seconds * number / len(chosen), name)
        sys.stdout.write(f"{name:8} {tried} inputs, nothing wrong\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
