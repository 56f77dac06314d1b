# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several things at the same time, and signals that end them."""

from __future__ import annotations

import signal

import pytest
from helpers import guests
from helpers.faults import HOLD, Fault
from helpers.guests import CT, VM, goes_on
from helpers.node import Node

PIECE = Fault(HOLD, at="piece of the archive")
RUN = ("run", str(CT), "--storage", "backup")


def test_a_second_run_is_refused_or_waits(box: Node) -> None:
    first = box.start(*RUN, fault=PIECE)
    first.wait_held()
    complaint = box.call(*RUN, "--lockwait", "0", status=1)
    assert f"pid {first.pid}" in complaint
    assert "hint: " in complaint
    second = box.start(*RUN, "--lockwait", "1", fault=Fault(HOLD, at="journal task.folder"))
    first.resume()
    assert first.wait().status == 0
    second.wait_held()
    second.resume()
    assert second.wait().status == 0
    assert len(box.archives()) == 2
    assert box.leftovers() == []


def test_a_guest_under_backup_is_left_alone(btrfs_box: Node) -> None:
    box = btrfs_box
    guests.start(box, CT)
    run = box.start(*RUN, fault=PIECE)
    run.wait_held()
    # A clean-up sees that this run lives.
    assert "0 killed" in box.call("heal")
    assert "backup of" in box.call("guest", "stop", str(CT), status=1)
    assert box.json("status")["runs"][0]["state"] == "running"
    run.resume()
    assert run.wait().status == 0
    goes_on(box, CT)
    assert box.leftovers() == []


def test_two_restores_of_one_id(box: Node) -> None:
    box.call(*RUN)
    first = box.start("restore", "backup:latest/box", "201", fault=Fault(HOLD, at="journal task.unnamed"))
    first.wait_held()
    complaint = box.call("restore", "backup:latest/box", "201", status=1)
    assert "restore of guest 201" in complaint
    assert f"pid {first.pid}" in complaint
    other = box.json("restore", "backup:latest/box", "202")
    assert other["state"] == "restored"
    first.resume()
    assert first.wait().status == 0
    assert sorted(path.name for path in (box.images / "201").iterdir()) == [
        f"subvol-201-disk-{number}.subvol" for number in range(3)
    ]
    assert box.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_run(number: signal.Signals, machine: Node) -> None:
    guests.start(machine, VM)
    child = machine.start("run", "--all", "--storage", "backup", fault=PIECE)
    child.wait_held()
    child.send(number)
    # One is enough; more of them do not disturb the clean-up.
    child.send(number)
    child.resume()
    ended = child.wait()
    assert ended.status == 1
    assert f"interrupted by {number.name}" in ended.err
    assert machine.leftovers() == []
    assert machine.archives() == []
    assert machine.json("status")["runs"][0]["state"] == "interrupted"
    goes_on(machine, VM)
