# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The undo stack: every step that changes a guest or the host first writes down how to take it back.

Success, error, signal and the next run after a ``kill -9`` all clean up through the same handlers. An entry is a *kind*
(the name of a handler) and JSON data with everything the handler needs; handlers are idempotent, because after a crash
nobody knows whether the step itself happened. The journal is a text file with one JSON object per line, synced before
the step.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import Any, Callable, Mapping

from ..errors import HoldfastError
from .trouble import FileError, explained, tried

Handler = Callable[[Mapping[str, Any]], None]


class UndoStack:
    """Journaled stack of undo entries of one guest in one run.

    :param path: journal file, created on the first push. ``None`` keeps the stack in memory (tests, stateless tools).
    :param handlers: what each kind does when it is undone.
    :ivar junk: lines of a loaded journal that are no entries, with their numbers: what they would undo is not known.
    """

    def __init__(self, path: str | None, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._open: dict[int, tuple[str, dict[str, Any]]] = {}
        self._next = 0
        self.junk: list[tuple[int, str]] = []

    @classmethod
    def load(cls, path: str, handlers: Mapping[str, Handler]) -> UndoStack:
        """Read the journal of a dead run; a last line that was cut short belongs to a step that never happened.

        :raises FileError: it cannot be read.
        """
        stack = cls(path, handlers)
        with tried("read the undo journal", path), open(path, "rb") as stream:
            raw = stream.read()
        whole = raw.rfind(b"\n") + 1
        if whole < len(raw):
            # What is written next must not be joined to it. Guests are healed also where nothing can be written.
            with contextlib.suppress(OSError):
                os.truncate(path, whole)
        for number, line in enumerate(raw[:whole].splitlines(), 1):
            stack._take(number, line)
        return stack

    def _take(self, number: int, line: bytes) -> None:
        try:
            entry = json.loads(line)
            token = int(entry["token"])
            opened = None if entry.get("done") else (str(entry["kind"]), dict(entry["data"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self.junk.append((number, line.decode("utf-8", "backslashreplace")))
            return
        self._next = max(self._next, token + 1)
        if opened is None:
            self._open.pop(token, None)
        else:
            self._open[token] = opened

    @property
    def pending(self) -> list[tuple[str, dict[str, Any]]]:
        """Open entries, oldest first."""
        return [self._open[token] for token in sorted(self._open)]

    def push(self, kind: str, **data: Any) -> int:
        """Register an undo *before* the step is taken; returns the entry's token.

        :raises FileError: it cannot be written down, so the step must not be taken.
        """
        if kind not in self._handlers:
            raise KeyError(f"no undo handler is registered for {kind!r}")
        token = self._next
        self._next += 1
        self._write({"token": token, "kind": kind, "data": data})
        self._open[token] = (kind, data)
        return token

    def undo(self, token: int) -> None:
        """Take one step back now, in the normal course of things. Does nothing for an entry already closed.

        :raises HoldfastError: the handler failed; the entry stays open for :meth:`unwind` or a later run.
        """
        if token in self._open:
            kind, data = self._open[token]
            if kind not in self._handlers:
                raise HoldfastError("this version does not know how to undo it", hint="it was written by another one")
            self._handlers[kind](data)
            self.drop(token)

    def drop(self, token: int) -> None:
        """Close an entry without undoing it: the step became permanent."""
        if self._open.pop(token, None) is not None:
            # Where there is no room for it, a later process undoes the step once more, which does no harm.
            with contextlib.suppress(OSError):
                self._write({"token": token, "done": True})

    def unwind(self) -> list[str]:
        """Undo everything still open, newest first; a failing handler does not stop the others.

        :returns: one message per failure. Entries whose handlers failed stay in the journal, which is removed when
            there are none.
        """
        problems: list[str] = []
        for token in sorted(self._open, reverse=True):
            kind, _data = self._open[token]
            try:
                self.undo(token)
            except (HoldfastError, OSError) as exc:
                problems.append(f"{kind}: {explained(exc)}")
            except (KeyError, TypeError, ValueError) as exc:
                # An entry of another version must not keep all later runs from beginning.
                problems.append(f"{kind}: its entry cannot be understood: {exc!r}")
        if not problems and self._path is not None:
            try:
                with tried("remove the undo journal", self._path), contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)
            except FileError as exc:
                problems.append(str(exc))
        return problems

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        with tried("write the undo journal", self._path):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            with open(self._path, "ab", buffering=0) as stream:
                _append(stream.fileno(), json.dumps(entry).encode() + b"\n")


def _append(fd: int, line: bytes) -> None:
    size = os.fstat(fd).st_size
    try:
        if os.write(fd, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    except OSError:
        # Half a line would spoil the next one.
        os.ftruncate(fd, size)
        raise
