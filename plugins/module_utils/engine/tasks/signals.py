# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signals that end a run become one :class:`Interrupted`, so that everything is undone on the way out."""

from __future__ import annotations

import contextlib
import signal
import threading
from types import FrameType
from typing import Iterator

from ..errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_waiting: list[Interrupted] = []
_stopping = False
_blocks = 0
"""How many blocks must end before a signal may stop the run; :data:`_waiting` holds the signal meanwhile."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise :class:`Interrupted` in the block at the first signal; later ones are ignored while things are undone.

    Outside the main thread signals cannot be handled, and the block runs as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _stopping
    _stopping = False
    seen: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        global _stopping
        if not seen:
            seen.append(number)
            _stopping = True
            interrupted = Interrupted(
                f"interrupted by {signal.Signals(number).name}", hint="everything was undone; start the run again"
            )
            if not _blocks:
                raise interrupted
            _waiting.append(interrupted)

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopping() -> bool:
    """Whether a signal has stopped the run that is going on, and it is only wound up."""
    return _stopping


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let the block end first when a signal arrives in it; :class:`Interrupted` is raised behind it."""
    global _blocks
    _blocks += 1
    try:
        yield
    finally:
        _blocks -= 1
    if _waiting and not _blocks:
        raise _waiting.pop()
