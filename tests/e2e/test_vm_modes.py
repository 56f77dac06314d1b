# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every mode on a VM in every state: what is done, what it costs the guest, and that the guest ends as it was."""

from __future__ import annotations

import time

import pytest
from helpers import guests
from helpers.guests import VM, Monitor
from helpers.node import Node
from helpers.vms import back_up, of_one_instant, set_config, writes_on

MODES = ("snapshot", "suspend", "stop")


@pytest.mark.parametrize("mode", MODES)
def test_running(machine: Node, mode: str) -> None:
    guests.start(machine, VM)
    pid = guests.qemu_pid(machine)
    guest = back_up(machine, "--mode", mode)
    assert (guest["status"], guest["mode"]) == ("ok", mode), guest["error"]
    guests.goes_on(machine, VM)
    timings = guest["timings"]
    assert 0 < timings["pause_seconds"] < 5
    assert (timings["downtime_seconds"] is not None, guests.qemu_pid(machine) != pid) == (mode == "stop",) * 2
    assert timings["guest_frozen"] is False
    of_one_instant(machine, guest)


def test_paused(machine: Node) -> None:
    guests.start(machine, VM)
    writes_on(machine)
    pid = guests.qemu_pid(machine)
    with Monitor(machine) as monitor:
        monitor.execute("stop")
    for mode in ("snapshot", "suspend"):
        guest = back_up(machine, "--mode", mode)
        assert (guest["status"], guest["mode"]) == ("ok", mode), guest["error"]
        assert guest["timings"]["pause_seconds"] is None
        assert machine.status(VM) == "paused"
    of_one_instant(machine, guest)
    began = time.monotonic()
    guest = back_up(machine, "--mode", "stop", status=3)
    assert "it is paused" in guest["error"]["message"]
    assert time.monotonic() - began < 30
    assert (machine.status(VM), guests.qemu_pid(machine)) == ("paused", pid)


@pytest.mark.parametrize("template", [False, True], ids=["stopped", "template"])
def test_not_running(machine: Node, template: bool) -> None:
    if template:
        set_config(machine, "template: 1")
    for mode in MODES:
        guest = back_up(machine, "--mode", mode)
        assert (guest["status"], guest["mode"], guest["requested_mode"]) == ("ok", "stop", mode)
        assert set(guest["timings"].values()) == {None, False}
        assert machine.status(VM) == "stopped"
    # A console would be a sign of a QEMU that was started.
    assert guests.console(machine) == ""


def test_a_guest_that_does_not_shut_down(machine: Node) -> None:
    # The firmware finds nothing to boot, and does not look at the power button.
    set_config(machine, "boot: order=virtio0")
    machine.call("guest", "start", str(VM))
    pid = guests.qemu_pid(machine)
    guest = back_up(machine, "--mode", "stop", "--stopwait", "0", status=3)
    assert "did not power off within 0 s" in guest["error"]["message"]
    assert (machine.status(VM), guests.qemu_pid(machine)) == ("running", pid)
