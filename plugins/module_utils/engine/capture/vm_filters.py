# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copy-before-write filters in a running QEMU: what the guest overwrites is kept aside until the backup has read it.

All nodes and exports of a backup begin with one prefix, so that leftovers of a killed run are recognised.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import Any, Iterable, Mapping

from ..errors import GuestError, ProtocolError
from ..guests.qemu.blocks import FILTER, OURS, BlockDevice
from ..guests.qemu.qmp import QmpClient, QmpError, listening
from ..storages.scratch import ScratchImage

FILTERS = "capture.vm.filters"
"""Undo kind: filters and exports in a running QEMU: ``qmp``, ``label``, ``devices`` (lists), ``socket``."""
FILE = "capture.vm.file"
"""Undo kind: a file that is of no use afterwards: ``path``."""

_CBW, _SNAP, _FLEECE, _COPY, _EXPORT = FILTER, f"{OURS}snap-", f"{OURS}fleece-", f"{OURS}copy-", f"{OURS}exp-"
_CBW_TIMEOUT = 30
"""Seconds that a guest's write may wait for a fleecing image that does not answer; then the backup fails."""
_EXPORT_SECONDS = 30
FIRST_SAFE_WITH_IOTHREAD = (9, 0)


@dataclass(frozen=True)
class Filtered:
    """A disk of a running VM.

    :param size: bytes; :param fleece: its fleecing image.
    """

    device: BlockDevice
    size: int
    fleece: ScratchImage

    @property
    def name(self) -> str:
        return self.device.name


def disk_sizes(qmp: QmpClient, devices: Iterable[BlockDevice], label: str) -> dict[str, int]:
    """Sizes in bytes of the disks as the guest sees them, by key.

    :raises GuestError: a disk of the config is not in the running VM, or it cannot be read without risk.
    """
    nodes = {node.get("node-name"): node for node in qmp.execute("query-named-block-nodes", {"flat": True})}
    sizes = {}
    for device in devices:
        node = nodes.get(device.node)
        if node is None or _current_node(qmp, device) != device.node:
            raise GuestError(
                f"cannot back up {label}: its running QEMU has no disk {device.key}",
                hint="the config was changed after the start, or the VM was not started by holdfast: restart it",
            )
        sizes[device.key] = int(node["image"]["virtual-size"])
    return sizes


def refuse_iothreads(qmp: QmpClient, devices: Iterable[BlockDevice], label: str) -> None:
    """:raises GuestError: a disk has an iothread, and this QEMU would abort when its reader disconnects."""
    if qmp.version >= FIRST_SAFE_WITH_IOTHREAD:
        return
    for device in devices:
        if _has_iothread(qmp, device):
            raise GuestError(
                f"cannot back up {label} while it runs: {device.key} has an iothread, with which QEMU before 9.0 can"
                " crash",
                hint="remove the iothread, back the VM up while it is shut down, or run a newer QEMU",
            )


def prepare(qmp: QmpClient, disks: Iterable[Filtered]) -> None:
    """Open the fleecing images; the guest runs on and nothing changes for it."""
    for disk in disks:
        file = {**_file(disk.fleece), "discard": "unmap"}
        node = {"node-name": _FLEECE + disk.name, "discard": "unmap", "file": file}
        qmp.execute("blockdev-add", {**_format(disk.fleece, disk.size), **node})


def insert(qmp: QmpClient, disks: Iterable[Filtered]) -> None:
    """Put the filters above the disks; to be called while the guest does not run."""
    for disk in disks:
        filtered = {
            "driver": "copy-before-write",
            "node-name": _CBW + disk.name,
            "file": disk.device.node,
            "target": _FLEECE + disk.name,
            # If fleecing fails, the backup breaks and not the guest.
            "on-cbw-error": "break-snapshot",
            "cbw-timeout": _CBW_TIMEOUT,
        }
        qmp.execute("blockdev-add", filtered)
        qmp.execute("qom-set", {"path": disk.device.path, "property": "drive", "value": _CBW + disk.name})
        view = {
            "driver": "snapshot-access",
            "node-name": _SNAP + disk.name,
            "file": _CBW + disk.name,
            "discard": "unmap",
        }
        qmp.execute("blockdev-add", view)


def export(qmp: QmpClient, disks: Iterable[Filtered], socket: str, label: str) -> None:
    """Serve the view of each disk under its node's name; a reader may discard what it has read.

    :raises GuestError: this QEMU already serves NBD for somebody else.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket)
    address = {"type": "unix", "data": {"path": socket}}
    try:
        qmp.execute("nbd-server-start", {"addr": address, "max-connections": 8})
    except QmpError as exc:
        raise GuestError(
            f"cannot read the disks of {label}: QEMU cannot start its NBD server: {exc.desc}",
            hint="there is one per QEMU: end whatever uses it",
        ) from exc
    for disk in disks:
        arguments = {"type": "nbd", "id": _EXPORT + disk.name, "node-name": _SNAP + disk.name, "name": disk.name}
        # Writable stands for discards alone: the view refuses writes.
        qmp.execute("block-export-add", {**arguments, "writable": True})


def export_copy(qmp: QmpClient, name: str, image: ScratchImage, size: int) -> None:
    """Serve a raw image, the copy of something that is no disk of the guest, beside the views.

    :raises GuestError: the copy could not be kept.
    """
    try:
        with open(image.path, "rb") as stream:
            os.fsync(stream.fileno())
    except OSError as exc:
        raise GuestError(f"cannot keep a copy of {name} in {image.path}: {exc.strerror}") from exc
    node = {"node-name": _COPY + name, "read-only": True, "file": {**_file(image), "read-only": True}}
    qmp.execute("blockdev-add", {**_format(image, size), **node})
    arguments = {"type": "nbd", "id": _EXPORT + name, "node-name": _COPY + name, "name": name}
    qmp.execute("block-export-add", arguments)


def remove(qmp: QmpClient, devices: Iterable[BlockDevice], socket: str) -> bool:
    """Take away whatever a backup put into this QEMU, in the order that QEMU allows; the second call does nothing.

    :param socket: where a backup serves; a server that listens elsewhere is somebody else's and stays.
    :returns: whether there was anything. :raises ProtocolError: something would not go.
    """
    ours = [item["id"] for item in qmp.execute("query-block-exports") if item["id"].startswith(_EXPORT)]
    for name in ours:
        with contextlib.suppress(QmpError):
            qmp.execute("block-export-del", {"id": name, "mode": "hard"})
    deadline = time.monotonic() + _EXPORT_SECONDS
    while any(item["id"] in ours for item in qmp.execute("query-block-exports")):
        if time.monotonic() > deadline:
            raise ProtocolError(f"{qmp.label}: QEMU does not give up the exports {', '.join(ours)}")
        time.sleep(0.02)
    serving = listening(socket)
    if serving:
        qmp.execute("nbd-server-stop")
    names = _node_names(qmp)
    if not serving and not any(name.startswith(OURS) for name in names):
        return False
    for name in [name for name in names if name.startswith(_SNAP)]:
        qmp.execute("blockdev-del", {"node-name": name})
    for device in devices:
        if str(_current_node(qmp, device)).startswith(_CBW):
            qmp.execute("qom-set", {"path": device.path, "property": "drive", "value": device.node})
    for prefix in (_CBW, _FLEECE, _COPY):
        for name in [name for name in names if name.startswith(prefix)]:
            qmp.execute("blockdev-del", {"node-name": name})
    return True


def undo_filters(data: Mapping[str, Any]) -> None:
    """Clean the QEMU of a run that may be dead; if QEMU itself is gone, so are the filters."""
    if listening(str(data["qmp"])):
        with QmpClient(str(data["qmp"]), str(data["label"])) as qmp:
            remove(qmp, map(BlockDevice.from_list, data["devices"]), str(data["socket"]))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(str(data["socket"]))


def undo_file(data: Mapping[str, Any]) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(str(data["path"]))


def _file(image: ScratchImage) -> dict[str, Any]:
    """The node of the file or device under an image."""
    node: dict[str, Any] = {"driver": "host_device" if image.device else "file", "filename": image.path}
    if image.device:
        # A pool that is full tells so when its device is written, and not when the page cache is.
        node["cache"] = {"direct": True}
    return node


def _format(image: ScratchImage, size: int) -> dict[str, Any]:
    """The node of an image; a device may be larger than what was asked for."""
    return {"driver": image.format, **({"size": size} if image.format == "raw" else {})}


def _has_iothread(qmp: QmpClient, device: BlockDevice) -> bool:
    """Whether the disk, or the controller that it hangs on, has one."""
    if _property(qmp, device, "iothread"):
        return True
    bus = str(_property(qmp, device, "parent_bus") or "")
    controller = "/".join(bus.split("/")[:4])
    try:
        return bool(qmp.execute("qom-get", {"path": controller, "property": "iothread"}))
    except QmpError:
        return False


def _current_node(qmp: QmpClient, device: BlockDevice) -> Any:
    """The node directly under a disk's device; ``None`` when there is no such device."""
    drive = _property(qmp, device, "drive")
    # Of a disk given by -drive the property is the name of that, under which the nodes change.
    named = [item for item in qmp.execute("query-block") if item["device"] and item["device"] == drive]
    return named[0].get("inserted", {}).get("node-name") if named else drive


def _property(qmp: QmpClient, device: BlockDevice, name: str) -> Any:
    """A property of a disk's device; ``None`` when there is no such device or property."""
    try:
        return qmp.execute("qom-get", {"path": device.path, "property": name})
    except QmpError:
        return None


def _node_names(qmp: QmpClient) -> list[str]:
    return [str(node.get("node-name")) for node in qmp.execute("query-named-block-nodes", {"flat": True})]
