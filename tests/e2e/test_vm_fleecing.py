# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a running VM's overwritten blocks go, that they go again, and that trouble there never reaches the guest."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Iterator

from helpers import guests
from helpers.faults import HOLD, Fault
from helpers.guests import VM, Monitor
from helpers.node import Node
from helpers.process import Child, wait_for
from helpers.vms import back_up, of_one_instant, writes_on

FLEECING = ("--fleecing", "enabled=1,storage=local")
SLOW = ("--bwlimit", "2048", "--compress", "0")
"""The VM's disks hold 12 MiB of data: this takes 6 s."""
COPYING = "piece of the archive"


def fleeces(node: Node) -> list[Path]:
    return sorted(path for path in node.root.rglob("vm-*-fleece-*") if path.is_file())


def allocated(paths: list[Path]) -> int:
    return sum(path.stat().st_blocks * 512 for path in paths)


@contextlib.contextmanager
def held(node: Node, at: str, *options: str) -> Iterator[Child]:
    """A slow backup that stands still at a step; it goes on when it is told to, or behind the block."""
    child = node.start("run", str(VM), "--storage", "backup", *SLOW, *options, fault=Fault(HOLD, at=at))
    try:
        child.wait_held()
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.resume()
        child.wait()


def test_volumes_of_the_storage_are_gone_after_a_kill(machine: Node) -> None:
    guests.start(machine, VM)
    with held(machine, COPYING, *FLEECING) as child:
        folder = machine.images / str(VM)
        assert fleeces(machine) == [folder / "vm-100-fleece-0.qcow2", folder / "vm-100-fleece-1.qcow2"]
        with Monitor(machine) as monitor:
            nodes = monitor.execute("query-named-block-nodes", flat=True)
        sizes = {node["node-name"]: node["image"]["virtual-size"] for node in nodes}
        assert sizes["bk-fleece-drive-scsi0"] == sizes["drive-scsi0"] == 24 << 20
        child.send(signal.SIGKILL)
        assert child.wait().status == -signal.SIGKILL
    machine.call("heal")
    assert fleeces(machine) == []
    guests.goes_on(machine, VM)


def test_blocks_that_are_read_are_released(machine: Node) -> None:
    guests.start(machine, VM)
    with held(machine, COPYING) as child:
        images = fleeces(machine)
        assert len(images) == 2
        # One tick of the VM's clock writes one sector, and with it goes a cluster of 64 KiB.
        wait_for(lambda: allocated(images) > 4 << 20, "the guest to overwrite blocks that are not read yet")
        child.resume()
        wait_for(lambda: allocated(images[:1]) == 0, "the first disk's blocks to be released")
        # It is read, so nothing of it is kept again, although the guest goes on writing to it.
        writes_on(machine)
        assert allocated(images[:1]) == 0
        assert allocated(images[1:]) > 0
        assert child.wait().status == 0
    (path,) = machine.archives()
    of_one_instant(machine, {"archive": f"backup:backup/{os.path.basename(path)}"})


def test_full(machine: Node) -> None:
    """The guest writes more than there is room for: the backup is given up, and the space is free again."""
    guests.start(machine, VM)
    with machine.mounted("size=3m"):
        with held(machine, "qmp block-export-add", "--fleecing", "enabled=1,storage=disk") as child:
            wait_for(lambda: allocated(fleeces(machine)) > 5 << 19, "the images to grow")
            child.resume()
            ended = child.wait()
        assert ended.status == 3
        assert "fleecing" in ended.err
        assert machine.leftovers() == []
        guests.goes_on(machine, VM)
        assert machine.archives() == []


def test_no_room_from_the_start(machine: Node) -> None:
    guests.start(machine, VM)
    with machine.mounted("size=3m") as disk:
        (disk / "filler").write_bytes(bytes(3 << 20))
        guest = back_up(machine, "--fleecing", "enabled=1,storage=disk", status=3)
        assert "cannot make fleecing images on storage 'disk': only" in guest["error"]["message"]
        (disk / "filler").unlink()
    guests.goes_on(machine, VM)


def test_a_target_that_stands_still(machine: Node) -> None:
    """Nothing of the engine moves; the guest writes as if there were no backup."""
    guests.start(machine, VM)
    with held(machine, COPYING) as child:
        for _step in range(3):
            writes_on(machine)
        child.send(signal.SIGKILL)
        assert child.wait().status == -signal.SIGKILL
    machine.call("heal")
    assert machine.leftovers() == []
    guests.goes_on(machine, VM)


def test_storages_that_cannot_take_images(machine: Node) -> None:
    for name, message in (("nowhere", "'nowhere' does not exist"), ("backup", "for content 'images'")):
        complaint = machine.call(
            "run",
            str(VM),
            "--storage",
            "backup",
            "--fleecing",
            f"enabled=1,storage={name}",
            status=2 if name == "nowhere" else 1,
        )
        assert message in complaint
