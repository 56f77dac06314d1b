# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The VM of the other tests, started by a script of somebody else's, with names of its own for everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers import guests
from helpers.guests import VM
from helpers.node import Node

_SCRIPT = """#!/bin/sh
exec qemu-system-x86_64 -nodefaults -display none -machine pc -accel tcg -m 32 \\
    -uuid 7cf798df-7725-443d-a246-a2aa9b6fd781 \\
    -chardev file,id=con,path={console} -device isa-serial,chardev=con \\
    -qmp unix:{root}/qmp,server=on,wait=off -qmp unix:{root}/watch,server=on,wait=off -daemonize \\
    -device virtio-scsi-pci,id=hba -drive file={images}/vm-{vmid}-disk-0.qcow2,format=qcow2,if=none,id=first \\
    -device scsi-hd,drive=first,bus=hba.0,{first}bootindex=1 \\
    -blockdev driver=file,filename={images}/vm-{vmid}-disk-1.raw,node-name=file1 \\
    -blockdev driver=raw,file=file1,node-name=second -device virtio-blk-pci,drive=second,id=disk1,bootindex=2 "$@"
"""


def make_adopted(node: Node, *, first: str = "id=disk0,", **settings: Any) -> None:
    """A stopped adopted VM.

    :param first: options of the first disk's device; :param settings: further settings of the definition.
    """
    guests.make_vm(node)
    node.config(VM, "qemu").unlink()
    run = Path(node.host.paths.qemu_run)
    run.mkdir(parents=True, exist_ok=True)
    images = node.images / str(VM)
    script = node.root / "start"
    console = run / f"{VM}.serial.log"
    script.write_text(_SCRIPT.format(root=node.root, images=images, vmid=VM, console=console, first=first))
    script.chmod(0o755)
    definition = {
        "vmid": VM,
        "qmp": f"{node.root}/qmp",
        "start": [str(script)],
        "disks": [
            {"key": "scsi0", "path": f"{images}/vm-{VM}-disk-0.qcow2", "format": "qcow2"},
            {"key": "virtio0", "path": f"{images}/vm-{VM}-disk-1.raw", "format": "raw"},
        ],
        "config": {"net0": "virtio=BC:24:11:00:00:09"},
        **settings,
    }
    folder = Path(node.host.paths.adopted_guests)
    folder.mkdir()
    (folder / "legacy.yml").write_text(json.dumps(definition))


def traces(node: Node) -> list[str]:
    """What a backup put into this QEMU and did not take away."""
    with guests.Monitor(node) as monitor:
        nodes = [item["node-name"] for item in monitor.execute("query-named-block-nodes", flat=True)]
        used = [item["inserted"]["node-name"] for item in monitor.execute("query-block")]
        exports = [item["id"] for item in monitor.execute("query-block-exports")]
    return [name for name in [*nodes, *used, *exports] if name.startswith("bk-")]
