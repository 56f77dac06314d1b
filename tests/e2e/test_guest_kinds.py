# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One suite that every kind of guest passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator

import pytest
from helpers import guests
from helpers.adopted import make_adopted
from helpers.domains import make_domain
from helpers.guests import CT, VM
from helpers.node import Node

KINDS = {"qemu": VM, "adopted": VM, "libvirt": VM, "lxc": CT}


@dataclass(frozen=True)
class Subject:
    """A stopped guest of some kind."""

    node: Node
    kind: str

    @property
    def vmid(self) -> int:
        return KINDS[self.kind]

    def row(self) -> dict[str, Any]:
        (row,) = self.node.json("guests")
        return dict(row)

    def status(self) -> str:
        return str(self.row()["status"])

    def call(self, *args: str) -> None:
        self.node.call(*args[:2], str(self.vmid), *args[2:])

    def back_up(self, *options: str) -> dict[str, Any]:
        run = self.node.json("run", str(self.vmid), "--storage", "backup", *options)
        assert self.node.leftovers() == []
        return dict(run["guests"][0])


@pytest.fixture(params=KINDS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    kind = str(request.param)
    node: Node = request.getfixturevalue("domain_node" if kind == "libvirt" else "node")
    makers: dict[str, Any] = {
        "qemu": guests.make_vm, "adopted": make_adopted, "libvirt": make_domain, "lxc": guests.make_container,
    }  # fmt: skip
    makers[kind](node)
    subject = Subject(node, kind)
    yield subject
    node.call("heal")
    subject.call("guest", "stop", "--force")


def test_life(subject: Subject) -> None:
    row = subject.row()
    assert (row["vmid"], row["kind"], row["status"], row["error"]) == (subject.vmid, subject.kind, "stopped", None)
    assert row["name"]
    subject.call("guest", "stop")
    guests.start(subject.node, subject.vmid)
    assert subject.status() == "running"
    subject.call("guest", "start")
    subject.call("guest", "stop")
    assert subject.status() == "stopped"
    subject.call("guest", "start")
    subject.call("guest", "stop", "--force")
    assert subject.status() == "stopped"


def test_backups(subject: Subject) -> None:
    assert subject.back_up("--mode", "snapshot")["mode"] == "stop"
    assert subject.status() == "stopped"
    guests.start(subject.node, subject.vmid)
    # A container in a folder has no snapshots, and says so.
    expected = {"snapshot": "suspend"} if subject.kind == "lxc" else {}
    for mode in ("snapshot", "suspend", "stop"):
        outcome = subject.back_up("--mode", mode, "--max-age", "1h", "--force")
        assert (outcome["status"], outcome["mode"]) == ("ok", expected.get(mode, mode))
        assert subject.status() == "running"
    assert subject.back_up("--max-age", "1h")["status"] == "fresh"
    row = subject.row()
    assert row["archives"] == 4
    assert row["newest"]["volid"].startswith(f"backup:backup/vzdump-{'lxc' if subject.kind == 'lxc' else 'qemu'}-")
