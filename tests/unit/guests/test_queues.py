# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sockets that serve one client, and whose queue is full of others."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from typing import Callable, Iterator

from engine.guests.qemu.agent import AgentClient
from engine.guests.qemu.qmp import QmpClient

Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def crowded(path: Path, serve: Serve) -> Iterator[None]:
    """A socket whose queue is full of clients that go away half a second later, as those of killed runs do."""
    others = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        while True:
            others.append(socket.socket(socket.AF_UNIX))
            others[-1].setblocking(False)
            try:
                others[-1].connect(str(path))
            except BlockingIOError:
                break

        def go_on() -> None:
            time.sleep(0.5)
            for other in others:
                other.close()
            for _other in others[:-1]:
                server.accept()[0].close()
            connection, _address = server.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=go_on)
        thread.start()
        yield
        thread.join()


def agent(connection: socket.socket) -> None:
    for line in connection.makefile("rb"):
        number = json.loads(line.rpartition(b"\xff")[2])["arguments"]["id"]
        connection.sendall(b"\xff" + json.dumps({"return": number}).encode() + b"\n")


def monitor(connection: socket.socket) -> None:
    version = {"qemu": {"major": 9, "minor": 0, "micro": 0}, "package": ""}
    connection.sendall(json.dumps({"QMP": {"version": version, "capabilities": []}}).encode() + b"\n")
    # The client ends its messages with nothing.
    while request := connection.recv(65536):
        connection.sendall(json.dumps({"return": {}, "id": json.loads(request).get("id")}).encode() + b"\n")


def test_an_agent_is_reached_behind_others(tmp_path: Path) -> None:
    with crowded(tmp_path / "qga", agent), AgentClient(str(tmp_path / "qga"), "VM 100"):
        pass


def test_a_monitor_is_reached_behind_others(tmp_path: Path) -> None:
    with crowded(tmp_path / "qmp", monitor), QmpClient(str(tmp_path / "qmp"), "VM 100") as client:
        assert client.version == (9, 0)
