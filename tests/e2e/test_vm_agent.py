# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guest agents that are absent, refuse, hang or die: the backup is made all the same, and a thaw is always sent.

What a well agent does is proved on a VM that has one; here a fake one takes its place on a real VM, to be ill.
"""

from __future__ import annotations

import json
import os
from typing import Any, Iterator

import pytest
from engine.guests.qemu import agent
from helpers import guests
from helpers.agent import FakeAgent
from helpers.guests import VM
from helpers.node import Node
from helpers.vms import back_up, set_config

FREEZE, THAW, STATUS = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-fsfreeze-status"


@pytest.fixture
def running(machine: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A VM that runs and whose config says that it has an agent; the engine does not wait long for it."""
    for name in ("PING_SECONDS", "FREEZE_SECONDS", "THAW_SECONDS", "THAW_PING_SECONDS"):
        monkeypatch.setattr(agent, name, 1.0)
    guests.start(machine, VM)
    yield machine
    guests.goes_on(machine, VM)


@pytest.mark.parametrize(
    ("ill", "frozen", "warning", "thaws"),
    [
        ({}, True, "", True),
        ({"refuses": (FREEZE,)}, False, "are not frozen, the backup goes on without", True),
        ({"ignores": (FREEZE,)}, False, "are not frozen, the backup goes on without", True),
        ({"ignores": (STATUS,)}, False, "are not frozen, the backup goes on without", False),
    ],
    ids=["well", "refuses", "hangs", "hangs before"],
)
def test_ill_before_the_instant(running: Node, ill: dict[str, Any], frozen: bool, warning: str, thaws: bool) -> None:
    fake = FakeAgent(running, **ill)
    guest = back_up(running)
    fake.close()
    assert guest["status"] == "ok"
    assert guest["timings"]["guest_frozen"] is frozen
    assert [warning in text for text in guest["warnings"]] == ([True] if warning else [])
    assert (THAW in fake.asked()) is thaws


def test_frozen_by_somebody_else(running: Node) -> None:
    fake = FakeAgent(running)
    (running.root / "frozen").touch()
    guest = back_up(running)
    assert fake.frozen()
    fake.close()
    assert guest["timings"]["guest_frozen"] is False
    assert "are frozen already, by somebody else" in guest["warnings"][0]


def test_dies_while_the_guest_is_frozen(running: Node) -> None:
    """The archive is good; what may still be frozen is thawed by the next run, when the agent is back."""
    fake = FakeAgent(running, dies_at=THAW)
    ended = running.start("run", str(VM), "--storage", "backup", "--json").wait()
    fake.close()
    assert ended.status == 0
    (guest,) = json.loads(ended.out)["guests"]
    assert guest["timings"]["guest_frozen"] is True
    assert any("may still be frozen" in warning for warning in guest["warnings"])
    assert any("the next run tries again" in warning for warning in guest["warnings"])
    # Each try leaves a thaw in the channel, for an agent that only hung.
    assert fake.asked().count(THAW) >= 2
    assert [path for path in running.leftovers() if not path.endswith(".journal")] == []
    (running.root / "agent.log").unlink()
    back = FakeAgent(running)
    running.call("heal")
    assert not back.frozen()
    back.close()
    assert running.leftovers() == []


def test_absent_or_not_wanted(running: Node) -> None:
    set_config(running, "agent: 1")
    guest = back_up(running)
    assert guest["timings"]["guest_frozen"] is False
    assert "the guest agent of VM 100" in guest["warnings"][0]
    for value in ("1,freeze-fs-on-backup=0", "0"):
        set_config(running, f"agent: {value}")
        guest = back_up(running)
        assert (guest["timings"]["guest_frozen"], guest["warnings"]) == (False, [])
        with open(guest["log"], encoding="utf-8") as log:
            assert "the agent or its freeze option is disabled" in log.read()


def test_neither_pausing_nor_stopping_asks_for_a_freeze(running: Node) -> None:
    fake = FakeAgent(running)
    guest = back_up(running, "--mode", "suspend")
    fake.close()
    assert (guest["timings"]["guest_frozen"], guest["timings"]["freeze_seconds"], fake.asked()) == (False, None, [])
    assert os.path.exists(guest["path"])
