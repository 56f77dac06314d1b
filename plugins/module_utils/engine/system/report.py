# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the engine tells the outside what it does; the CLI, the modules and the per-guest log are all reporters."""

from __future__ import annotations

from typing import Protocol


def printable(text: str) -> str:
    """The text with what terminals would obey escaped; names and notes may come from whoever can write archives."""
    if text.isprintable():
        return text
    shown = (char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text)
    return "".join(shown)


class Reporter(Protocol):
    """Receives log lines and progress. Called from one thread at a time."""

    def info(self, message: str) -> None:
        """A step of the normal course."""

    def warn(self, message: str) -> None:
        """Something the operator should look at although the run goes on."""

    def error(self, message: str) -> None:
        """A failure; the exception that carries it follows."""

    def progress(self, done: int, total: int, zero: int, written: int) -> None:
        """Bytes of guest data handled so far, their total, how many of those were zero, archive bytes written."""


class SilentReporter:
    """Tells nobody."""

    def info(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        pass

    def error(self, message: str) -> None:
        pass

    def progress(self, done: int, total: int, zero: int, written: int) -> None:
        pass
