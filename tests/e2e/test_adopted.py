# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""VMs that somebody else starts: all modes, trouble, and their archives as managed VMs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator

import pytest
from helpers import guests
from helpers.adopted import make_adopted, traces
from helpers.faults import KILL, Fault
from helpers.guests import VM
from helpers.node import Node

TWIN = 200


@pytest.fixture
def legacy(node: Node) -> Iterator[Node]:
    """A node with a stopped adopted VM, which can also be started paused."""
    make_adopted(node, start_paused=[f"{node.root}/start", "-S"])
    yield node
    node.call("heal")
    node.call("guest", "stop", str(VM), "--force")


def back_up(node: Node, *options: str, status: int = 0) -> dict[str, Any]:
    ended = node.start("run", "legacy", "--storage", "backup", *options, "--json").wait()
    assert ended.status == status, ended.err
    assert node.leftovers() == []
    (guest,) = json.loads(ended.out)["guests"]
    return dict(guest)


def redefine(node: Node, **settings: Any) -> None:
    path = Path(node.host.paths.adopted_guests) / "legacy.yml"
    definition = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({key: value for key, value in definition.items() if value is not None}))


@pytest.mark.parametrize("mode", ["snapshot", "suspend", "stop"])
def test_running(legacy: Node, mode: str) -> None:
    guests.start(legacy, VM)
    guest = back_up(legacy, "--mode", mode)
    assert (guest["status"], guest["mode"], guest["kind"]) == ("ok", mode, "adopted")
    assert guest["timings"]["pause_seconds"] < 5
    assert (legacy.status(VM), traces(legacy)) == ("running", [])
    legacy.call("restore", guest["archive"], str(TWIN))
    assert guests.numbers(legacy, TWIN).one_instant
    config = legacy.config(TWIN, "qemu").read_text().splitlines()
    assert {
        "cores: 1", "kvm: 0", "memory: 32", "name: legacy", "net0: virtio=BC:24:11:00:00:09", "scsihw: virtio-scsi-pci",
        "smbios1: uuid=7cf798df-7725-443d-a246-a2aa9b6fd781",
    } <= set(config)  # fmt: skip


def test_stop_without_a_command_that_starts_it_paused(legacy: Node) -> None:
    redefine(legacy, start_paused=None)
    guests.start(legacy, VM)
    guest = back_up(legacy, "--mode", "stop")
    assert guest["mode"] == "stop"
    assert guest["timings"]["downtime_seconds"] > 0
    assert (legacy.status(VM), traces(legacy)) == ("running", [])
    redefine(legacy, start=None)
    assert "could not be started again" in back_up(legacy, "--mode", "stop", status=3)["error"]["message"]
    assert legacy.status(VM) == "running"


def test_stop_command(legacy: Node) -> None:
    stop = legacy.root / "stop"
    stop.write_text(f"#!/bin/sh\necho asked >{legacy.root}/asked\nkill $(pgrep -f 'unix:{legacy.root}/qmp')\n")
    stop.chmod(0o755)
    redefine(legacy, stop=[str(stop)])
    guests.start(legacy, VM)
    legacy.call("guest", "stop", "legacy")
    assert (legacy.root / "asked").exists()
    assert legacy.status(VM) == "stopped"
    redefine(legacy, start=["/bin/false"])
    assert "/bin/false" in legacy.call("guest", "start", "legacy", status=1)


@pytest.mark.parametrize("step", ["journal capture.vm.filters", "qmp stop", "qmp qom-set", "qmp block-export-add"])
def test_killed(legacy: Node, step: str) -> None:
    guests.start(legacy, VM)
    ended = legacy.start("run", "legacy", "--storage", "backup", fault=Fault(KILL, at=step)).wait()
    assert ended.status == -9
    legacy.call("heal")
    assert legacy.leftovers() == []
    assert (legacy.status(VM), traces(legacy)) == ("running", [])


def test_devices_without_id(node: Node) -> None:
    make_adopted(node, first="")
    guests.start(node, VM)
    error = back_up(node, status=3)["error"]
    assert "has no id" in error["message"]
    assert "id=" in error["hint"]
    assert (node.status(VM), traces(node)) == ("running", [])
    assert back_up(node, "--mode", "stop", status=3)["error"]["message"] == error["message"]
    node.call("guest", "stop", "legacy", "--force")
    assert back_up(node)["status"] == "ok"


def test_wrong_definitions(legacy: Node) -> None:
    redefine(legacy, vmid="x")
    (row,) = legacy.json("guests")
    assert (row["name"], row["kind"], row["status"]) == ("legacy", "adopted", "unknown")
    assert "vmid: 'x' is not a guest id" in row["error"]
    assert "vmid" in back_up(legacy, status=3)["error"]["message"]
    redefine(legacy, vmid=VM, disks=[{"key": "scsi0", "path": "/nowhere", "format": "raw"}])
    guests.start(legacy, VM)
    assert "no disks with /nowhere" in back_up(legacy, status=3)["error"]["message"]
