# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The LXC commands for one container, and how what they did is undone."""

from __future__ import annotations

import os
import time
from typing import Any, Mapping

from ...errors import GuestError
from ...system.files import read_text, write_atomic
from ...system.process import run
from ...system.undo import Handler

THAW = "lxc.thaw"
"""Undo kind: processes of a container may be frozen: ``lxcpath``, ``name``."""
START = "lxc.start"
"""Undo kind: a container is stopped and shall run again: ``lxcpath``, ``name``, ``was`` (pid of its init)."""

SHUTDOWN_SECONDS = 60.0
"""How long clean-up waits for a container that was asked to end by a run that is over."""

_FREEZER = "/sys/fs/cgroup/freezer"
"""Where version 1 of the control groups freezes."""
_STATES = {"STOPPED": "stopped", "FROZEN": "frozen", "FREEZING": "frozen"}
FREEZE_SECONDS = 30
_START_SECONDS = 60


class LxcTools:
    """The LXC commands for one container."""

    def __init__(self, lxcpath: str, name: str) -> None:
        self.lxcpath = lxcpath
        self.name = name
        self.folder = os.path.join(lxcpath, name)

    @property
    def undo_data(self) -> dict[str, Any]:
        """What an undo entry needs to find this container again."""
        return {"lxcpath": self.lxcpath, "name": self.name}

    def call(self, what: str, command: str, *options: str, timeout: float) -> str:
        """Run one of the commands and return its output.

        :param what: for the message: what is tried on the container.
        """
        argv = [command, "-n", self.name, "-P", self.lxcpath, *options]
        done = run(argv, check=False, timeout=timeout, error=GuestError)
        if done.returncode:
            detail = (done.stderr or done.stdout).strip() or f"{command} ended with status {done.returncode}"
            raise GuestError(f"cannot {what} container {self.name}: {detail}")
        return done.stdout

    def status(self) -> str:
        return _STATES.get(self._state(), "running")

    def init_pid(self) -> int | None:
        if self.status() == "stopped":
            return None
        answer = self.call("look for the init of", "lxc-info", "-pH", timeout=30).strip()
        return int(answer) if answer.isdigit() else None

    def start(self) -> None:
        log = os.path.join(self.folder, "start.log")
        write_atomic(log, "", 0o600)
        try:
            self.call("start", "lxc-start", "-d", "-o", log, "-l", "WARN", timeout=_START_SECONDS)
        except GuestError as exc:
            # The first errors name the cause, the later ones only that it failed.
            first = [line for line in (read_text(log) or "").splitlines() if " ERROR " in line][:3]
            why = "\n".join(first) or exc.message
            raise GuestError(f"cannot start container {self.name}:\n{why}", hint=f"see {log}") from exc

    def shutdown(self, timeout: float) -> None:
        if self.status() == "stopped":
            return
        self.thaw()
        seconds = str(max(1, int(timeout)))
        try:
            self.call("shut down", "lxc-stop", "--nokill", "--timeout", seconds, timeout=timeout + 15)
        except GuestError as exc:
            if self.status() != "stopped":
                raise GuestError(
                    f"container {self.name} did not stop within {seconds} s: {exc.message}",
                    hint="look what keeps it from ending, or raise stopwait",
                ) from exc

    def stop(self) -> None:
        if self.status() != "stopped":
            self.call("stop", "lxc-stop", "--kill", timeout=60)

    def thaw(self) -> None:
        """Let its processes run, also after a freeze that was cut short, of which LXC may know nothing."""
        state = self._state()
        if state == "STOPPED":
            return
        try:
            if state == "FREEZING":
                # LXC thaws only what it believes to be frozen.
                self.call("thaw", "lxc-freeze", timeout=FREEZE_SECONDS)
            if state in ("FREEZING", "FROZEN"):
                self.call("thaw", "lxc-unfreeze", timeout=FREEZE_SECONDS)
        finally:
            if os.path.isdir(_FREEZER):
                self.call("thaw", "lxc-cgroup", "freezer.state", "THAWED", timeout=FREEZE_SECONDS)

    def _state(self) -> str:
        """In LXC's own words."""
        if not os.path.exists(os.path.join(self.folder, "config")):
            return "STOPPED"
        return self.call("ask the state of", "lxc-info", "-sH", timeout=30).strip()


def _tools(data: Mapping[str, Any]) -> LxcTools:
    return LxcTools(str(data["lxcpath"]), str(data["name"]))


def _undo_start(data: Mapping[str, Any]) -> None:
    tools = _tools(data)
    deadline = time.monotonic() + SHUTDOWN_SECONDS
    # It may still be on its way down. One that does not end in this time does not want to, and runs on.
    while data["was"] is not None and tools.init_pid() == data["was"] and time.monotonic() < deadline:
        time.sleep(0.1)
    if tools.status() == "stopped":
        tools.start()


UNDO: dict[str, Handler] = {THAW: lambda data: _tools(data).thaw(), START: _undo_start}
