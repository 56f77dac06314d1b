# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Definitions of VMs that somebody else starts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from engine.errors import ConfigError
from engine.settings.adopted import AdoptedDisk, parse_adopted

DISK = {"key": "scsi0", "path": "/a", "format": "raw"}
GOOD: dict[str, Any] = {"vmid": 300, "qmp": "/run/qmp", "disks": [DISK]}


def test_everything() -> None:
    text = """
vmid: 300
name: web
qmp: /run/qmp
agent: /run/qga
start: [systemctl, start, web]
start_paused: [web, -S]
stop: [systemctl, stop, web]
disks:
  - {key: scsi0, path: /a, format: qcow2, node: root}
  - {key: virtio1, path: /b, format: raw, backup: false}
config: {memory: 512, onboot: true}
"""
    guest = parse_adopted(text, "file", "file.yml")
    assert (guest.vmid, guest.name, guest.qmp, guest.agent) == (300, "web", "/run/qmp", "/run/qga")
    assert guest.disks == (AdoptedDisk("scsi0", "/a", "qcow2", "root"), AdoptedDisk("virtio1", "/b", "raw", ""))
    assert (guest.start, guest.start_paused) == (("systemctl", "start", "web"), ("web", "-S"))
    assert guest.stop == ("systemctl", "stop", "web")
    assert dict(guest.config.items()) == {
        "agent": "1", "name": "web", "memory": "512", "onboot": "1", "scsi0": "/a", "virtio1": "/b,backup=0",
    }  # fmt: skip


def test_little() -> None:
    guest = parse_adopted(json.dumps(GOOD), "file", "file.yml")
    assert (guest.name, guest.agent, guest.start, guest.stop) == ("file", "", (), ())
    assert guest.config.get("agent") is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"vmid": 99}, "vmid: 99"),
        ({"vmid": "300"}, "vmid: '300'"),
        ({"qmp": None}, "qmp"),
        ({"qmp": "run/qmp"}, "not an absolute path"),
        ({"agent": 5}, "agent: 5 is not a text"),
        ({"start": "systemctl start web"}, "not a list"),
        ({"start": ["sleep", 5]}, "not a list of texts"),
        ({"what": 1}, "no setting 'what'"),
        ({"disks": [{**DISK, "size": 1}]}, "no setting 'size'"),
        ({"disks": [{**DISK, "format": "vmdk"}]}, "format 'vmdk'"),
        ({"disks": [{**DISK, "path": "/a,b"}]}, "comma"),
        ({"disks": [{**DISK, "key": "disk0"}]}, "a key like scsi0"),
        ({"disks": [DISK, DISK]}, "of its own"),
        ({"disks": ["/a"]}, "not a mapping"),
        ({"disks": [{"key": "scsi0", "path": "/a"}]}, "format is missing"),
    ],
)
def test_wrong(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        parse_adopted(json.dumps({**GOOD, **change}), "file", "file.yml")
    assert "file.yml" in caught.value.message


@pytest.mark.parametrize("text", ["- 1", "a: [", ""])
def test_no_mapping(text: str) -> None:
    with pytest.raises(ConfigError, match=r"file\.yml"):
        parse_adopted(text, "file", "file.yml")
