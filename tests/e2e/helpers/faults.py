# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults at a named step: the process that runs the engine is killed, stopped or sent a signal there.

A *step* is something that changes a guest or the host: an entry in the undo journal, a QMP or agent command, a program
that begins or ends, a file that gets or loses its name, a piece of an archive. The functions that make steps are
wrapped in the process under test alone; the fault comes when the step took effect, and before the engine goes on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Callable

from engine.capture.nbd import NbdExport
from engine.errors import ProtocolError
from engine.guests.qemu.agent import AgentClient
from engine.guests.qemu.qmp import QmpClient
from engine.stream.sink import FrameSink
from engine.system import process
from engine.system.undo import UndoStack

KILL, TERM, HOLD, FAIL, NOTE = "kill", "term", "hold", "fail", "note"
"""Die at once; get a SIGTERM; stand still until told to go on; get an error although the step was made; or nothing."""

_LOOKING = ("query-", "qom-get", "qom-list", "guest-sync", "guest-ping")
_HARMLESS = ("ionice", "lxc-info", "stat")
_LIBVIRT = (
    "abortJob",
    "backupBegin",
    "create",
    "createWithFlags",
    "fsFreeze",
    "fsThaw",
    "resume",
    "shutdownFlags",
    "suspend",
)


@dataclass(frozen=True)
class Fault:
    """What happens at which step: the one of that number (from 1), or the first one whose name begins with ``at``.

    :data:`NOTE` notes the names of all steps.
    """

    action: str
    number: int = 0
    at: str = ""

    def install(self, tell: Callable[[str], object]) -> None:
        """Wrap the functions that make steps, in this process; ``tell`` is given the names of steps."""
        names: list[str] = []

        def step(name: str) -> None:
            names.append(name)
            if self.action == NOTE:
                tell("\n".join(names))
            elif len(names) == self.number or (self.at and name.startswith(self.at) and not self._met(names[:-1])):
                tell(name)
                self._act()

        _wrap_all(step)

    def _met(self, names: list[str]) -> bool:
        return any(name.startswith(self.at) for name in names)

    def _act(self) -> None:
        if self.action == FAIL:
            raise ProtocolError("injected by a test")
        number = {KILL: signal.SIGKILL, TERM: signal.SIGTERM, HOLD: signal.SIGSTOP}[self.action]
        os.kill(os.getpid(), number)


def _wrap_all(step: Callable[[str], None]) -> None:
    def wrap(owner: Any, name: str, describe: Callable[..., str], *, before: bool = False) -> None:
        real = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            text = describe(*args)
            if text and before:
                step(text)
            result = real(*args, **kwargs)
            if text and not before:
                step(text)
            return result

        setattr(owner, name, wrapped)

    wrap(UndoStack, "push", lambda _stack, kind: f"journal {kind}")
    wrap(UndoStack, "drop", _closed, before=True)
    wrap(QmpClient, "execute", lambda _client, command, *_rest: _command("qmp", command))
    wrap(AgentClient, "execute", lambda _client, command, *_rest: _command("agent", command))
    wrap(process, "end_process", lambda child: _program("end", child.args))
    wrap(subprocess.Popen, "communicate", lambda child, *_rest: _program("during", child.args), before=True)
    wrap(NbdExport, "__init__", lambda *_rest: "connected to a disk")
    wrap(FrameSink, "_put", lambda *_rest: "piece of the archive", before=True)
    if "libvirt" in sys.modules:
        for name in _LIBVIRT:
            wrap(sys.modules["libvirt"].virDomain, name, lambda *_rest, name=name: f"libvirt {name}")
        wrap(sys.modules["libvirt"].virConnect, "defineXML", lambda *_rest: "libvirt defineXML")
    wrap(os, "rename", lambda old, new: _file("replace", new), before=True)
    wrap(os, "rename", lambda old, new: _file("replaced", new))
    wrap(os, "link", lambda _old, new: _file("name", new), before=True)
    wrap(os, "link", lambda _old, new: _file("named", new))
    wrap(os, "unlink", lambda path, **_rest: _file("unlinked", path) if str(path).endswith(".dat") else "")


def _closed(stack: UndoStack, token: int) -> str:
    return f"close {stack._open[token][0]}" if token in stack._open else ""


def _command(channel: str, command: str) -> str:
    return "" if command.startswith(_LOOKING) else f"{channel} {command}"


def _program(what: str, argv: Any) -> str:
    words = [os.path.basename(word) for word in argv if not word.startswith("-")]
    if words[0] == "setpriv":
        words = words[2:]
    return "" if words[0] in _HARMLESS else f"{what} {words[0]}"


def _file(what: str, path: str) -> str:
    """Records and logs are left out: they only tell people what happened."""
    kind = os.path.splitext(path)[1]
    return "" if kind in (".json", ".log", ".fw") else f"{what} {kind}"
