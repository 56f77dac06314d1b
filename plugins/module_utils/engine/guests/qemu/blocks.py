# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks as a running QEMU knows them: by block nodes and by devices in its tree of objects."""

from __future__ import annotations

import os
from dataclasses import astuple, dataclass
from typing import Any, Iterable, Sequence

from ...errors import GuestError
from ...settings.adopted import AdoptedDisk
from .disks import node_name
from .qmp import QmpClient

OURS = "bk-"
"""How the names of all nodes begin that a backup puts into a QEMU."""
FILTER = f"{OURS}cbw-"
"""The same for the filters that stand above the guest's disks meanwhile."""


@dataclass(frozen=True)
class BlockDevice:
    """One disk of a running VM.

    :param key: drive key; :param node: block node under the guest's device, when no backup is in between.
    :param path: of that device in the tree of objects.
    """

    key: str
    node: str
    path: str

    @property
    def name(self) -> str:
        """What our own nodes and exports of this disk are named after."""
        return node_name(self.key)

    def to_list(self) -> list[str]:
        """For undo entries; see :meth:`from_list`."""
        return list(astuple(self))

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> BlockDevice:
        key, node, path = map(str, values)
        return cls(key, node, path)


def launched_device(key: str) -> BlockDevice:
    """A disk of a VM that our launcher started: everything follows from the key."""
    path = "/machine/system.flash1" if key == "efidisk0" else f"/machine/peripheral/{key}"
    return BlockDevice(key, node_name(key), path)


def find_devices(qmp: QmpClient, disks: Iterable[AdoptedDisk]) -> list[BlockDevice]:
    """The disks of a VM that somebody else started, asked over QMP.

    :raises GuestError: a disk is not there, or its device has no id by which it could be named.
    """
    nodes = qmp.execute("query-named-block-nodes", {"flat": True})
    users = {str(item["inserted"].get("node-name")): item for item in qmp.execute("query-block") if "inserted" in item}
    return [_find(disk, nodes, users, qmp.label) for disk in disks]


def _find(disk: AdoptedDisk, nodes: Sequence[Any], users: dict[str, Any], label: str) -> BlockDevice:
    found = [disk.node] if disk.node else [name for name in _nodes_of(disk, nodes) if name in users]
    ours = FILTER + node_name(disk.key)
    if not disk.node and ours in users:
        # A backup that was killed left its filter in between.
        found = _nodes_of(disk, nodes)
    if len(found) != 1:
        count = len(found) or "no"
        raise GuestError(
            f"cannot back up {label}: its running QEMU has {count} disks with {disk.path} as {disk.format}",
            hint="compare path and format in the guest's definition with `query-block`, or give the name of the node",
        )
    user = users.get(found[0]) or users.get(ours)
    if user is None:
        raise GuestError(
            f"cannot back up {label}: no device of the guest uses the node {found[0]!r} of {disk.key} directly",
            hint="a snapshot, a throttle or another job stands in between: give the node under the guest's device",
        )
    device = str(user.get("qdev") or "")
    if not device or "peripheral-anon" in device:
        raise GuestError(
            f"cannot back up {label} while it runs: the device of {disk.key} has no id",
            hint="start QEMU with an id for it (-device virtio-blk-pci,id=disk0,...), or back it up while it is off",
        )
    path = device if device.startswith("/") else f"/machine/peripheral/{device}"
    return BlockDevice(
        disk.key, found[0], path[: -len("/virtio-backend")] if path.endswith("/virtio-backend") else path
    )


def _nodes_of(disk: AdoptedDisk, nodes: Sequence[Any]) -> list[str]:
    wanted = os.path.realpath(disk.path)
    return [
        str(node["node-name"])
        for node in nodes
        if node.get("drv") == disk.format
        and not str(node.get("node-name")).startswith(OURS)
        and os.path.realpath(str(node.get("file"))) == wanted
    ]
