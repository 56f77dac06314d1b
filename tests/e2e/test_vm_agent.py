# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guest agents that are absent, refuse, hang or die: the backup is made all the same, and a thaw is always sent.

What a well agent does is proved on a VM that has one; here a fake one takes its place on a real VM, to be ill.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any, Iterator

import pytest
from engine.guests.qemu import agent
from helpers import guests
from helpers.guests import VM
from helpers.node import Node
from helpers.vms import back_up, set_config

HANG, DIE, REFUSE = "hang", "die", "refuse"
FREEZE, THAW, STATUS = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-fsfreeze-status"


class FakeAgent:
    """Listens where QEMU would for a guest's agent.

    :param ill: what it does instead of answering, by command.
    """

    def __init__(self, path: Path, ill: dict[str, str]) -> None:
        self.seen: list[str] = []
        self._ill = ill
        self._frozen = ill.get(STATUS) == "frozen"
        self._dead = False
        path.unlink()
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._server.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                channel, _address = self._server.accept()
            except OSError:
                return
            with channel, channel.makefile("rb") as lines:
                for line in lines:
                    message = json.loads(line.lstrip(b"\xff"))
                    self._answer(channel, message["execute"], message.get("arguments") or {})

    def _answer(self, channel: socket.socket, command: str, arguments: dict[str, Any]) -> None:
        self.seen.append(command)
        illness = self._ill.get(command)
        if illness == DIE:
            self._dead = True
        if self._dead or illness == HANG:
            return
        if command == FREEZE and illness is None:
            self._frozen = True
        elif command == THAW:
            self._frozen = False
        result = {
            "guest-sync-delimited": arguments.get("id"),
            STATUS: "frozen" if self._frozen else "thawed",
        }.get(command, 1)
        answer = {"error": {"class": "GenericError", "desc": "no"}} if illness == REFUSE else {"return": result}
        prefix = b"\xff" if command == "guest-sync-delimited" else b""
        channel.sendall(prefix + json.dumps(answer).encode() + b"\n")


@pytest.fixture
def running(machine: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A VM that runs and whose config says that it has an agent; the engine does not wait long for it."""
    for name in ("PING_SECONDS", "FREEZE_SECONDS", "THAW_SECONDS", "THAW_PING_SECONDS"):
        monkeypatch.setattr(agent, name, 1.0)
    set_config(machine, "agent: 1")
    guests.start(machine, VM)
    yield machine
    guests.goes_on(machine, VM)


def channel(node: Node) -> Path:
    return Path(node.host.paths.qemu_run) / f"{VM}.qga"


@pytest.mark.parametrize(
    ("ill", "frozen", "warnings", "thaws"),
    [
        ({}, True, [], True),
        ({FREEZE: REFUSE}, False, ["are not frozen, the backup goes on without"], True),
        ({FREEZE: HANG}, False, ["are not frozen, the backup goes on without"], True),
        ({STATUS: HANG}, False, ["are not frozen, the backup goes on without"], False),
        ({STATUS: "frozen"}, False, ["are frozen already, by somebody else"], False),
    ],
    ids=["well", "refuses", "hangs", "hangs before", "frozen by somebody else"],
)
def test_ill_before_the_instant(
    running: Node, ill: dict[str, str], frozen: bool, warnings: list[str], thaws: bool
) -> None:
    fake = FakeAgent(channel(running), ill)
    try:
        guest = back_up(running)
    finally:
        fake.close()
    assert guest["status"] == "ok"
    assert guest["timings"]["guest_frozen"] is frozen
    assert len(guest["warnings"]) == len(warnings)
    assert all(text in found for text, found in zip(warnings, guest["warnings"]))
    assert (THAW in fake.seen) is thaws


def test_dies_while_the_guest_is_frozen(running: Node) -> None:
    """The archive is good; what may still be frozen is thawed by the next run, when the agent is back."""
    fake = FakeAgent(channel(running), {THAW: DIE})
    ended = running.start("run", str(VM), "--storage", "backup", "--json").wait()
    fake.close()
    assert ended.status == 0
    (guest,) = json.loads(ended.out)["guests"]
    assert guest["timings"]["guest_frozen"] is True
    assert any("may still be frozen" in warning for warning in guest["warnings"])
    assert any("the next run tries again" in warning for warning in guest["warnings"])
    # Each try leaves a thaw in the channel, for an agent that only hung.
    assert fake.seen.count(THAW) >= 2
    assert [path for path in running.leftovers() if not path.endswith(".journal")] == []
    back = FakeAgent(channel(running), {})
    try:
        running.call("heal")
    finally:
        back.close()
    assert THAW in back.seen
    assert running.leftovers() == []


def test_absent_or_not_wanted(running: Node) -> None:
    guest = back_up(running)
    assert guest["timings"]["guest_frozen"] is False
    assert "cannot synchronise with the guest agent" in guest["warnings"][0]
    for value in ("1,freeze-fs-on-backup=0", "0"):
        set_config(running, f"agent: {value}")
        guest = back_up(running)
        assert (guest["timings"]["guest_frozen"], guest["warnings"]) == (False, [])
        with open(guest["log"], encoding="utf-8") as log:
            assert "the agent or its freeze option is disabled" in log.read()


def test_neither_pausing_nor_stopping_asks_for_a_freeze(running: Node) -> None:
    fake = FakeAgent(channel(running), {})
    guest = back_up(running, "--mode", "suspend")
    fake.close()
    assert (guest["timings"]["guest_frozen"], guest["timings"]["freeze_seconds"], fake.seen) == (False, None, [])
    assert os.path.exists(guest["path"])
