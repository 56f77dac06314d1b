# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fake guest agent, for guests that have none: it freezes nothing, but remembers what it was asked for.

Like a real one it answers only while its guest runs. A test that gets a guest with a real agent needs another object
with the same two methods, :meth:`FakeAgent.frozen` and :meth:`FakeAgent.close`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

from helpers.guests import VM, Monitor
from helpers.node import Node
from helpers.process import Child, wait_for


class FakeAgent:
    """Listens where the VM's agent would, in a process of its own.

    The VM must have been started without an agent; its config gets one now.

    :param refuses: commands that are answered with an error; :param ignores: commands that are never answered.
    :param dies_at: the command after which nothing is answered any more.
    """

    def __init__(
        self, node: Node, *, refuses: tuple[str, ...] = (), ignores: tuple[str, ...] = (), dies_at: str = ""
    ) -> None:
        self._node = node
        self._refuses = refuses
        self._ignores = ignores
        self._dies_at = dies_at
        self._mark = node.root / "frozen"
        self._log = node.root / "agent.log"
        config = node.config(VM, "qemu")
        text = config.read_text(encoding="utf-8")
        config.write_text(text if "agent: " in text else f"agent: 1\n{text}", encoding="utf-8")
        self._path = Path(node.host.paths.qemu_run) / f"{VM}.qga"
        self._child = Child(self._serve)
        wait_for(self._path.exists, "the fake agent")

    def frozen(self) -> bool:
        return self._mark.exists()

    def asked(self) -> list[str]:
        """Commands so far."""
        return self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []

    def close(self) -> None:
        self._child.send(signal.SIGKILL)
        self._child.wait()
        self._path.unlink()

    def _serve(self) -> int:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(str(self._path))
        server.listen(1)
        while True:
            connection, _address = server.accept()
            with contextlib.suppress(OSError), connection, connection.makefile("rb") as stream:
                for line in stream:
                    answer = self._answer(json.loads(line.rpartition(b"\xff")[2]))
                    connection.sendall(answer)

    def _answer(self, request: dict[str, Any]) -> bytes:
        command = request["execute"]
        with self._log.open("a", encoding="utf-8") as stream:
            stream.write(command + "\n")
        wait_for(self._guest_runs, "the guest to run")
        if command in self._ignores or self._dies_at in self.asked():
            return b""
        if command in self._refuses:
            return b'{"error": {"class": "GenericError", "desc": "the fake agent refuses"}}\n'
        if command == "guest-sync-delimited":
            return b"\xff" + json.dumps({"return": request["arguments"]["id"]}).encode() + b"\n"
        if command == "guest-shutdown":
            with Monitor(self._node) as monitor:
                monitor.execute("system_powerdown")
            return b""
        if command == "guest-fsfreeze-status":
            return b'{"return": "frozen"}\n' if self.frozen() else b'{"return": "thawed"}\n'
        if command == "guest-fsfreeze-freeze":
            self._mark.touch()
        elif command == "guest-fsfreeze-thaw":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._mark)
        return b'{"return": 2}\n'

    def _guest_runs(self) -> bool:
        with Monitor(self._node) as monitor:
            return monitor.running()
